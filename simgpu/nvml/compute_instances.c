// SPDX-License-Identifier: Apache-2.0
// Compute instances: the slices of a GPU instance that a MIG device has. A profile's id is NVML's index of
// it: 1, 2, 3, 4 and 7 slices are 0 to 4. They lie at multiples of their size (three slices: of four).
#include "mig.h"
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PROFILES = 5, INDICES = 9, SHARED_ENGINES = 0 };

static const unsigned char slices_of[PROFILES] = {1, 2, 3, 4, 7};

static unsigned step_of(unsigned slices) {
    return slices == 3 ? 4 : slices;
}

static unsigned starts(const struct sim_profile *profile, unsigned slices) {
    return (profile->compute - slices) / step_of(slices) + 1;
}

static unsigned sms_of(struct part part, const struct sim_profile *profile, unsigned id) {
    return id < PROFILES ? sim_compute_sms(&nvml.view, part.device, profile, slices_of[id]) : 0;
}

// ------- profiles

struct compute_info_v1 {
    unsigned id, slices, most, sms, engine[SIM_ENGINES];
};

struct compute_info_v2 {
    unsigned version;
    struct compute_info_v1 info;
    char name[96];
};

struct compute_info_v3 {
    struct compute_info_v2 info;
    unsigned capabilities;
};

static int info_of(nvmlGpuInstance_t instance, unsigned id, unsigned engines, struct compute_info_v1 *out,
                   char name[96]) {
    struct part part;
    NEED(id < INDICES && engines == SHARED_ENGINES);
    NEED_PART(GPU_INSTANCE, instance, &part);
    struct sim_profile profile = profile_of(part);
    unsigned sms = sms_of(part, &profile, id);
    if (!sms)
        return NVML_NOT_SUPPORTED;
    unsigned slices = slices_of[id];
    *out = (struct compute_info_v1){id, slices, starts(&profile, slices), sms, {0}};
    memcpy(out->engine, profile.engine, sizeof out->engine);
    char text[48];
    sim_compute_name(&profile, slices, text, sizeof text);
    snprintf(name, 96, "MIG %s", text);
    return NVML_SUCCESS;
}

API(nvmlGpuInstanceGetComputeInstanceProfileInfo, nvmlGpuInstance_t instance, unsigned id, unsigned engines,
    struct compute_info_v1 *out) {
    char name[96];
    ENTER();
    NEED(out);
    return info_of(instance, id, engines, out, name);
}

API(nvmlGpuInstanceGetComputeInstanceProfileInfoV, nvmlGpuInstance_t instance, unsigned id, unsigned engines,
    struct compute_info_v2 *out) {
    enum { FIRST = 470 };
    ENTER();
    if (sim_driver(&nvml.view) < FIRST)
        return NVML_FUNCTION_NOT_FOUND;
    NEED(out);
    bool third = out->version == (sizeof(struct compute_info_v3) | 3u << 24);
    if (!third && out->version != (sizeof *out | 2u << 24))
        return NVML_VERSION_MISMATCH;
    if (third)
        ((struct compute_info_v3 *)(void *)out)->capabilities = 0;
    return info_of(instance, id, engines, &out->info, out->name);
}

// ------- placements

static bool is_free(struct part part, unsigned start, unsigned size) {
    for (part.ci = 0; part.ci < SIM_COMPUTES; part.ci++) {
        struct sim_shape other = sim_shape(atomic_load(&compute_of(part)->shape));
        if (atomic_load(&compute_of(part)->serial) && start < other.start + other.size &&
            other.start < start + size)
            return false;
    }
    return true;
}

API(nvmlGpuInstanceGetComputeInstancePossiblePlacements, nvmlGpuInstance_t instance, unsigned id,
    struct placement *out, unsigned *count) {
    struct part part;
    ENTER();
    NEED(count);
    NEED_PART(GPU_INSTANCE, instance, &part);
    struct sim_profile profile = profile_of(part);
    if (!sms_of(part, &profile, id))
        return NVML_NOT_SUPPORTED;
    unsigned n = starts(&profile, slices_of[id]), room = out ? *count : n;
    *count = n;
    for (unsigned i = 0; out && i < n && i < room; i++)
        out[i] = (struct placement){i * step_of(slices_of[id]), slices_of[id]};
    return room < n ? NVML_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

API(nvmlGpuInstanceGetComputeInstanceRemainingCapacity, nvmlGpuInstance_t instance, unsigned id,
    unsigned *count) {
    struct part part;
    ENTER();
    NEED(count);
    NEED_PART(GPU_INSTANCE, instance, &part);
    struct sim_profile profile = profile_of(part);
    if (!sms_of(part, &profile, id))
        return NVML_NOT_SUPPORTED;
    *count = 0;
    for (unsigned i = 0; i < starts(&profile, slices_of[id]); i++)
        *count += is_free(part, i * step_of(slices_of[id]), slices_of[id]);
    return NVML_SUCCESS;
}

// ------- made and removed

static bool unused_id(struct part *part) {
    for (part->ci = 0; part->ci < SIM_COMPUTES; part->ci++)
        if (!atomic_load(&compute_of(*part)->serial))
            return true;
    return false;
}

static int new_uuid(unsigned char *uuid) {
    if (syscall(SYS_getrandom, uuid, 16, 0) != 16)
        return NVML_UNKNOWN;
    uuid[6] = (unsigned char)((uuid[6] & 15) | 0x50); // of the fifth version, as NVIDIA's are
    uuid[8] = (unsigned char)((uuid[8] & 63) | 128);
    return NVML_SUCCESS;
}

static int create_at(struct part *part, unsigned id, unsigned start) {
    if (!is_free(*part, start, slices_of[id]) || !unused_id(part))
        return NVML_INSUFFICIENT_RESOURCES;
    struct sim_compute *compute = compute_of(*part);
    int result = new_uuid(compute->uuid);
    if (result)
        return result;
    atomic_store(&compute->shape, sim_shape_word((struct sim_shape){id, start, slices_of[id]}));
    capability_add(*part, true);
    atomic_store(&compute->serial, atomic_fetch_add(&nvml.view.at->mig[part->device].serial, 1) + 1);
    return NVML_SUCCESS;
}

static int create_anywhere(struct part *part, const struct sim_profile *profile, unsigned id) {
    int result = NVML_INSUFFICIENT_RESOURCES;
    for (unsigned i = 0; i < starts(profile, slices_of[id]) && result == NVML_INSUFFICIENT_RESOURCES; i++)
        result = create_at(part, id, i * step_of(slices_of[id]));
    return result;
}

static bool is_possible(const struct sim_profile *profile, unsigned id, const struct placement *where) {
    unsigned slices = slices_of[id];
    return where->size == slices && where->start % step_of(slices) == 0 &&
           where->start / step_of(slices) < starts(profile, slices);
}

static int create(nvmlGpuInstance_t instance, unsigned id, const struct placement *where,
                  nvmlComputeInstance_t *out) {
    struct part part;
    NEED(out);
    NEED_PART(GPU_INSTANCE, instance, &part);
    NEED_PERMISSION(may_change());
    struct sim_profile profile = profile_of(part);
    if (!sms_of(part, &profile, id))
        return NVML_NOT_SUPPORTED;
    NEED(!where || is_possible(&profile, id, where));
    int lock = sim_mig_lock(&nvml.view);
    if (lock < 0)
        return NVML_UNKNOWN;
    int result = !read_handle(GPU_INSTANCE, instance, &part) ? NVML_NOT_FOUND
                 : where                                     ? create_at(&part, id, where->start)
                                                             : create_anywhere(&part, &profile, id);
    close(lock);
    if (!result)
        *out = handle_for(COMPUTE_INSTANCE, part);
    return result;
}

API(nvmlGpuInstanceCreateComputeInstance, nvmlGpuInstance_t instance, unsigned id,
    nvmlComputeInstance_t *out) {
    ENTER();
    return create(instance, id, NULL, out);
}

API(nvmlGpuInstanceCreateComputeInstanceWithPlacement, nvmlGpuInstance_t instance, unsigned id,
    const struct placement *where, nvmlComputeInstance_t *out) {
    ENTER();
    NEED(where);
    return create(instance, id, where, out);
}

static int remove_part(struct part part) {
    if (sim_in_use(&nvml.view, sim_place(part.device, part.gi, part.ci)))
        return NVML_IN_USE;
    atomic_store(&compute_of(part)->serial, 0);
    capability_remove(part, true);
    return NVML_SUCCESS;
}

API(nvmlComputeInstanceDestroy, nvmlComputeInstance_t instance) {
    ENTER();
    return remove_alone(COMPUTE_INSTANCE, instance, remove_part);
}

// ------- looked up

API(nvmlGpuInstanceGetComputeInstances, nvmlGpuInstance_t instance, unsigned id, nvmlComputeInstance_t *out,
    unsigned *count) {
    struct part part;
    ENTER();
    NEED(out && count);
    NEED_PART(GPU_INSTANCE, instance, &part);
    NEED_PERMISSION(may_look());
    struct sim_profile profile = profile_of(part);
    if (!sms_of(part, &profile, id))
        return NVML_NOT_SUPPORTED;
    *count = 0;
    for (part.ci = 0; part.ci < SIM_COMPUTES; part.ci++)
        if (atomic_load(&compute_of(part)->serial) &&
            sim_shape(atomic_load(&compute_of(part)->shape)).row == id)
            out[(*count)++] = handle_for(COMPUTE_INSTANCE, part);
    return NVML_SUCCESS;
}

API(nvmlGpuInstanceGetComputeInstanceById, nvmlGpuInstance_t instance, unsigned id,
    nvmlComputeInstance_t *out) {
    struct part part;
    ENTER();
    NEED(out);
    NEED_PART(GPU_INSTANCE, instance, &part);
    NEED_PERMISSION(may_look());
    part.ci = id;
    if (id >= SIM_COMPUTES || !atomic_load(&compute_of(part)->serial))
        return NVML_NOT_FOUND;
    *out = handle_for(COMPUTE_INSTANCE, part);
    return NVML_SUCCESS;
}

struct compute_instance_info {
    nvmlDevice_t device;
    nvmlGpuInstance_t instance;
    unsigned id, profile;
    struct placement placement;
};

// Since its second version it names the MIG device.
static int describe(nvmlComputeInstance_t instance, bool mig_device, struct compute_instance_info *out) {
    struct part part;
    NEED(out);
    NEED_PART(COMPUTE_INSTANCE, instance, &part);
    struct sim_shape shape = sim_shape(atomic_load(&compute_of(part)->shape));
    *out = (struct compute_instance_info){mig_device ? handle_for(MIG_DEVICE, part)
                                                     : (void *)handle_of(part.index),
                                          handle_for(GPU_INSTANCE, part),
                                          part.ci,
                                          shape.row,
                                          {shape.start, shape.size}};
    return NVML_SUCCESS;
}

API(nvmlComputeInstanceGetInfo_v2, nvmlComputeInstance_t instance, struct compute_instance_info *out) {
    ENTER();
    return describe(instance, true, out);
}

API(nvmlComputeInstanceGetInfo, nvmlComputeInstance_t instance, struct compute_instance_info *out) {
    ENTER();
    return describe(instance, false, out);
}
