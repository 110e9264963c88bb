// SPDX-License-Identifier: Apache-2.0
// GPU instances: made, found, removed. Their ids come from a tree of halves: the whole board is 0, its halves
// are 1 and 2 in the order in which they are made, quarters are 3 to 6 and eighths 7 to 14 by where they lie.
#include "mig.h"
#include <unistd.h>

static unsigned new_id(unsigned device, unsigned start, unsigned size) {
    enum { HALVES = 2 };
    unsigned parts = sim_slots(&nvml.view, device) / size;
    if (parts != HALVES)
        return parts - 1 + start / size;
    return atomic_load(&sim_instance(&nvml.view, device, 1)->serial) ? 2 : 1;
}

static void make(struct part *part, const struct sim_profile *profile, unsigned start) {
    struct sim_mig *mig = &nvml.view.at->mig[part->device];
    part->gi = new_id(part->device, start, profile->slots);
    struct sim_instance *instance = instance_of(*part);
    for (unsigned ci = 0; ci < SIM_COMPUTES; ci++)
        atomic_store(&instance->compute[ci].serial, 0);
    atomic_store(&instance->shape, sim_shape_word((struct sim_shape){profile->row, start, profile->slots}));
    capability_add(*part, false);
    atomic_store(&instance->serial, atomic_fetch_add(&mig->serial, 1) + 1);
}

// With the lock held.
static int create_at(struct part *part, const struct sim_profile *profile, unsigned start) {
    if (!mig_enabled(part->device))
        return NVML_NOT_SUPPORTED;
    if (!fits(part->device, profile, start))
        return NVML_INSUFFICIENT_RESOURCES;
    make(part, profile, start);
    return NVML_SUCCESS;
}

// The driver takes the last place that is free.
static int create_anywhere(struct part *part, const struct sim_profile *profile) {
    int result = NVML_INSUFFICIENT_RESOURCES;
    for (unsigned i = profile->starts; i-- && result == NVML_INSUFFICIENT_RESOURCES;)
        result = create_at(part, profile, profile->start[i]);
    return result;
}

static int create(nvmlDevice_t device, unsigned id, const struct placement *where, nvmlGpuInstance_t *out) {
    struct sim_profile profile;
    NEED(out);
    NEED_MIG(device);
    NEED_PERMISSION(may_change());
    NEED(profile_by_id(number_of(device), id, &profile));
    struct part part = part_of(device);
    int lock = sim_mig_lock(&nvml.view);
    if (lock < 0)
        return NVML_UNKNOWN;
    int result = where ? create_at(&part, &profile, where->start) : create_anywhere(&part, &profile);
    close(lock);
    if (!result)
        *out = handle_for(GPU_INSTANCE, part);
    return result;
}

API(nvmlDeviceCreateGpuInstance, nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *out) {
    ENTER();
    return create(device, id, NULL, out);
}

static bool is_possible(const struct sim_profile *profile, const struct placement *where) {
    for (unsigned i = 0; i < profile->starts; i++)
        if (profile->start[i] == where->start && profile->slots == where->size)
            return true;
    return false;
}

API(nvmlDeviceCreateGpuInstanceWithPlacement, nvmlDevice_t device, unsigned id, const struct placement *where,
    nvmlGpuInstance_t *out) {
    struct sim_profile profile;
    ENTER();
    NEED(where);
    NEED_MIG(device);
    NEED(profile_by_id(number_of(device), id, &profile) && is_possible(&profile, where));
    return create(device, id, where, out);
}

static bool has_compute_instances(struct part part) {
    for (part.ci = 0; part.ci < SIM_COMPUTES; part.ci++)
        if (atomic_load(&compute_of(part)->serial))
            return true;
    return false;
}

static int remove_part(struct part part) {
    if (has_compute_instances(part))
        return NVML_IN_USE;
    atomic_store(&instance_of(part)->serial, 0);
    capability_remove(part, false);
    return NVML_SUCCESS;
}

API(nvmlGpuInstanceDestroy, nvmlGpuInstance_t instance) {
    ENTER();
    return remove_alone(GPU_INSTANCE, instance, remove_part);
}

// ------- looked up

API(nvmlDeviceGetGpuInstances, nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *out, unsigned *count) {
    struct sim_profile profile;
    ENTER();
    NEED(out && count);
    NEED_MIG(device);
    NEED_PERMISSION(may_look());
    if (!profile_by_id(number_of(device), id, &profile))
        return NVML_NOT_SUPPORTED;
    struct part part = part_of(device);
    *count = 0;
    for (; part.gi < SIM_INSTANCES; part.gi++)
        if (atomic_load(&instance_of(part)->serial) &&
            sim_shape(atomic_load(&instance_of(part)->shape)).row == profile.row)
            out[(*count)++] = handle_for(GPU_INSTANCE, part);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetGpuInstanceById, nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *out) {
    ENTER();
    NEED(out);
    NEED_MIG(device);
    NEED_PERMISSION(may_look());
    struct part part = part_of(device);
    part.gi = id;
    if (id >= SIM_INSTANCES || !atomic_load(&instance_of(part)->serial))
        return NVML_NOT_FOUND;
    *out = handle_for(GPU_INSTANCE, part);
    return NVML_SUCCESS;
}

struct gpu_instance_info {
    nvmlDevice_t device;
    unsigned id, profile;
    struct placement placement;
};

API(nvmlGpuInstanceGetInfo, nvmlGpuInstance_t instance, struct gpu_instance_info *out) {
    struct part part;
    ENTER();
    NEED(out);
    NEED_PART(GPU_INSTANCE, instance, &part);
    struct sim_shape shape = sim_shape(atomic_load(&instance_of(part)->shape));
    *out = (struct gpu_instance_info){
        handle_of(part.index), part.gi, profile_of(part).id, {shape.start, shape.size}};
    return NVML_SUCCESS;
}
