// SPDX-License-Identifier: Apache-2.0
// Memory of a device, as the library before and since driver 510 reports it: in the first structure what the
// driver keeps for itself counts as used.
#include "mig.h"

struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

static uint64_t used_in_instances(unsigned device) {
    uint64_t used = 0;
    for (unsigned gi = 0; gi < SIM_INSTANCES; gi++)
        used += sim_used(&nvml.view, sim_account(device, gi));
    return used;
}

static struct memory_v2 measure_device(unsigned number) {
    return (struct memory_v2){
        .total = sim_number(&nvml.view, "board.%u.total", number),
        .reserved = sim_number(&nvml.view, "board.%u.reserved", number),
        .used = sim_used(&nvml.view, number) + used_in_instances(number),
    };
}

// Compute instances of one GPU instance share its memory.
static struct memory_v2 measure_instance(struct part part) {
    return (struct memory_v2){
        .total = (unsigned long long)profile_of(part).mib << 20,
        .used = sim_used(&nvml.view, sim_account(part.device, part.gi)),
    };
}

static int measure(nvmlDevice_t device, struct memory_v2 *out) {
    struct part part;
    ENTER();
    if (read_handle(MIG_DEVICE, device, &part))
        *out = measure_instance(part);
    else if (!is_device(device))
        return NVML_INVALID_ARGUMENT;
    else if (nvml_board(device))
        return nvml_board(device);
    else if (!may_see_all(number_of(device)))
        return NVML_NO_PERMISSION;
    else
        *out = measure_device(number_of(device));
    out->free = out->total - out->reserved - out->used;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetMemoryInfo, nvmlDevice_t device, struct memory *out) {
    struct memory_v2 memory;
    ENTER();
    NEED(out);
    int result = measure(device, &memory);
    if (!result)
        *out = (struct memory){memory.total, memory.free, memory.used + memory.reserved};
    return result;
}

API(nvmlDeviceGetMemoryInfo_v2, nvmlDevice_t device, struct memory_v2 *out) {
    ENTER();
    NEED(out);
    unsigned version = (unsigned)sizeof *out | 2u << 24;
    if (out->version != version)
        return NVML_VERSION_MISMATCH;
    int result = measure(device, out);
    out->version = version;
    return result;
}

// An instance has its slots' share.
API(nvmlDeviceGetBAR1MemoryInfo, nvmlDevice_t device, struct memory *out) {
    struct part part;
    unsigned long long total = 1ull << 37, used = 1ull << 20;
    ENTER();
    NEED(out);
    if (read_handle(MIG_DEVICE, device, &part)) {
        total = total / sim_slots(&nvml.view, part.device) * profile_of(part).slots;
        used = 0;
    } else if (!is_device(device))
        return NVML_INVALID_ARGUMENT;
    *out = (struct memory){total, total - used, used};
    return NVML_SUCCESS;
}
