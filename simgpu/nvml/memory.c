// SPDX-License-Identifier: Apache-2.0
// Memory of a device, as the library before and since driver 510 reports it: in the first structure what the
// driver keeps for itself counts as used.
#include "nvml.h"

struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

static struct memory_v2 measure(nvmlDevice_t device) {
    unsigned number = number_of(device);
    struct memory_v2 memory = {
        .total = sim_number(&nvml.view, "board.%u.total", number),
        .reserved = sim_number(&nvml.view, "board.%u.reserved", number),
        .used = sim_used(&nvml.view, number),
    };
    memory.free = memory.total - memory.reserved - memory.used;
    return memory;
}

API(nvmlDeviceGetMemoryInfo, nvmlDevice_t device, struct memory *out) {
    ENTER_DEVICE(device, out);
    struct memory_v2 memory = measure(device);
    *out = (struct memory){memory.total, memory.free, memory.used + memory.reserved};
    return NVML_SUCCESS;
}

API(nvmlDeviceGetMemoryInfo_v2, nvmlDevice_t device, struct memory_v2 *out) {
    ENTER_DEVICE(device, out);
    unsigned version = (unsigned)sizeof *out | 2u << 24;
    if (out->version != version)
        return NVML_VERSION_MISMATCH;
    *out = measure(device);
    out->version = version;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetBAR1MemoryInfo, nvmlDevice_t device, struct memory *out) {
    ENTER_DEVICE(device, out);
    unsigned long long total = 1ull << 37, used = 1ull << 20;
    *out = (struct memory){total, total - used, used};
    return NVML_SUCCESS;
}
