// SPDX-License-Identifier: Apache-2.0
// MIG devices: their handles, and what distinguishes them from whole ones. A handle has what it stands for in
// its bits, with the serial by which one made later under the same ids is another one.
#include "mig.h"
#include <stdio.h>

static uint64_t serial_of(enum handle kind, struct part part) {
    return atomic_load(kind == GPU_INSTANCE ? &instance_of(part)->serial : &compute_of(part)->serial);
}

void *handle_for(enum handle kind, struct part part) {
    uint64_t serial = serial_of(kind, part) & 0xffffffff;
    return (void *)(uintptr_t)((uint64_t)kind << 60 | serial << 16 | (uint64_t)part.index << 8 |
                               part.gi << 4 | part.ci);
}

bool read_handle(enum handle kind, const void *handle, struct part *out) {
    uint64_t bits = (uintptr_t)handle;
    *out = (struct part){.index = bits >> 8 & 255, .gi = bits >> 4 & 15, .ci = bits & 15};
    if (bits >> 60 != (uint64_t)kind || out->index >= nvml.view.visible || out->gi >= SIM_INSTANCES ||
        out->ci >= SIM_COMPUTES)
        return false;
    out->device = nvml.view.device[out->index];
    uint64_t serial = serial_of(kind, *out);
    return serial && (serial & 0xffffffff) == (bits >> 16 & 0xffffffff);
}

bool is_mig_device(nvmlDevice_t device) {
    struct part part;
    return (uintptr_t)device > SIM_DEVICES && read_handle(MIG_DEVICE, device, &part);
}

struct sim_profile profile_of(struct part part) {
    struct sim_profile profile;
    sim_profile(&nvml.view, part.device, sim_shape(atomic_load(&instance_of(part)->shape)).row, &profile);
    return profile;
}

// The one at a place among those of a device that this process sees, by instance and compute instance.
static bool find_nth(struct part *part, unsigned place) {
    for (part->gi = 0; part->gi < SIM_INSTANCES; part->gi++)
        for (part->ci = 0; part->ci < SIM_COMPUTES; part->ci++)
            if (sim_compute_visible(&nvml.view, part->device, part->gi, part->ci) && !place--)
                return true;
    return false;
}

API(nvmlDeviceGetMigDeviceHandleByIndex, nvmlDevice_t device, unsigned index, nvmlDevice_t *out) {
    ENTER();
    NEED(out);
    NEED_MIG(device);
    struct part part = part_of(device);
    if (!find_nth(&part, index))
        return NVML_NOT_FOUND;
    *out = handle_for(MIG_DEVICE, part);
    return NVML_SUCCESS;
}

int mig_index(struct part part, unsigned *index) {
    struct part other = part;
    for (*index = 0; find_nth(&other, *index); ++*index)
        if (other.gi == part.gi && other.ci == part.ci)
            return NVML_SUCCESS;
    return NVML_NOT_FOUND;
}

API(nvmlDeviceIsMigDeviceHandle, nvmlDevice_t device, unsigned *is) {
    ENTER();
    NEED(is && (is_device(device) || is_mig_device(device)));
    *is = is_mig_device(device);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetGpuInstanceId, nvmlDevice_t device, unsigned *id) {
    struct part part;
    ENTER();
    NEED(id);
    NEED_MIG_DEVICE(device, &part);
    *id = part.gi;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetComputeInstanceId, nvmlDevice_t device, unsigned *id) {
    struct part part;
    ENTER();
    NEED(id);
    NEED_MIG_DEVICE(device, &part);
    *id = part.ci;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, nvmlDevice_t device, nvmlDevice_t *out) {
    struct part part;
    ENTER();
    NEED(out);
    NEED_MIG_DEVICE(device, &part);
    *out = handle_of(part.index);
    return NVML_SUCCESS;
}

struct attributes {
    unsigned sms, engine[SIM_ENGINES], slices, compute_slices;
    unsigned long long mib;
};

API(nvmlDeviceGetAttributes_v2, nvmlDevice_t device, struct attributes *out) {
    struct part part;
    ENTER();
    NEED(out);
    NEED_MIG_DEVICE(device, &part);
    struct sim_profile profile = profile_of(part);
    unsigned slices = sim_shape(atomic_load(&compute_of(part)->shape)).size;
    *out = (struct attributes){.sms = sim_compute_sms(&nvml.view, part.device, &profile, slices),
                               .slices = profile.compute,
                               .compute_slices = slices,
                               .mib = profile.mib};
    memcpy(out->engine, profile.engine, sizeof out->engine);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetAttributes, nvmlDevice_t device, struct attributes *out) {
    return nvmlDeviceGetAttributes_v2(device, out);
}

// ------- names

int mig_name(struct part part, char *out, unsigned room) {
    char board[96], name[48], text[160];
    struct sim_profile profile = profile_of(part);
    sim_text(&nvml.view, "board.%u.name", part.device, board, sizeof board);
    sim_compute_name(&profile, sim_shape(atomic_load(&compute_of(part)->shape)).size, name, sizeof name);
    snprintf(text, sizeof text, "%s MIG %s", board, name);
    return nvml_copy(text, out, room);
}

int mig_uuid(struct part part, char *out, unsigned room) {
    char text[48];
    sim_uuid_text(compute_of(part)->uuid, text);
    return nvml_copy(text, out, room);
}

// By its UUID, or by an older driver's name of it: MIG-GPU-<uuid of the device>/<instance>/<compute
// instance>.
static bool is_called(struct part part, const char *name) {
    char ours[48], board[96], old[120];
    sim_uuid_text(compute_of(part)->uuid, ours);
    sim_text(&nvml.view, "board.%u.uuid", part.device, board, sizeof board);
    snprintf(old, sizeof old, "MIG-%s/%u/%u", board, part.gi, part.ci);
    return !strcmp(name, ours) || !strcmp(name, old);
}

nvmlDevice_t mig_called(const char *name) {
    for (unsigned i = 0; i < nvml.view.visible; i++) {
        struct part part = part_of(handle_of(i));
        for (unsigned place = 0; find_nth(&part, place); place++)
            if (is_called(part, name))
                return handle_for(MIG_DEVICE, part);
    }
    return NULL;
}
