// SPDX-License-Identifier: Apache-2.0
/* What NVML says about a granted GPU's memory: the same numbers as cuMemGetInfo. */
#include <string.h>

#include "nvml.h"
#include "policy_path.h"
#include "session.h"

enum { UUID = 16, UUID_TEXT = 96 };

static int digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "GPU-" or "MIG-", then 32 hexadecimal digits in groups. 0: something else (an older driver's name of a MIG
 * device). */
static int parse_uuid(const char *text, uint8_t uuid[UUID]) {
    unsigned digits = 0;
    if (strncmp(text, "GPU-", 4) && strncmp(text, "MIG-", 4))
        return 0;
    for (text += 4; *text; text++) {
        int value = digit(*text);
        if (*text == '-')
            continue;
        if (value < 0 || digits == 2 * UUID)
            return 0;
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | value);
        digits++;
    }
    return digits == 2 * UUID;
}

int gp_gpu_of_handle(nvmlDevice_t device) {
    const gp_policy *policy = gp_policy_here();
    char text[UUID_TEXT];
    uint8_t uuid[UUID] = {0};
    if (!policy || real_nvmlDeviceGetUUID(device, text, sizeof text) || !parse_uuid(text, uuid))
        return GP_NO_GPU;
    for (unsigned i = 0; i < policy->gpus; i++)
        if (!memcmp(policy->gpu[i].uuid, uuid, UUID))
            return (int)i;
    return GP_NO_GPU;
}

static unsigned long long least(unsigned long long a, unsigned long long b) {
    return a < b ? a : b;
}

/* The grant in the place of what is physically there. A GPU that was not granted has nothing to give. */
static void narrow(nvmlDevice_t device, nvmlMemory_t *memory) {
    int gpu = gp_gpu_of_handle(device);
    const struct gp_ledger *ledger = gp_session();
    if (gpu < 0 || !ledger) {
        memory->free = 0;
        memory->used = memory->total;
        return;
    }
    memory->total = least(memory->total, gp_limit(ledger, (unsigned)gpu));
    memory->used = least(gp_used(ledger, (unsigned)gpu), memory->total);
    memory->free = least(memory->free, memory->total - memory->used);
}

GP_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlReturn_t rc = real_nvmlDeviceGetMemoryInfo(device, memory);
    if (!rc)
        narrow(device, memory);
    return rc;
}

/* The driver has checked `version`. What it reserves for itself is not the container's affair. */
GP_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    nvmlReturn_t rc = real_nvmlDeviceGetMemoryInfo_v2(device, memory);
    if (rc)
        return rc;
    nvmlMemory_t plain = {.total = memory->total, .free = memory->free, .used = memory->used};
    narrow(device, &plain);
    memory->total = plain.total;
    memory->free = plain.free;
    memory->used = plain.used;
    memory->reserved = 0;
    return rc;
}

/* As much of the memory as is protected, on a GPU in confidential mode. */
GP_EXPORT nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device,
                                                                    nvmlMemory_t *memory) {
    nvmlReturn_t rc = real_nvmlDeviceGetConfComputeProtectedMemoryUsage(device, memory);
    if (!rc)
        narrow(device, memory);
    return rc;
}

/* The driver's own limits, of a group of processes that the caller names: whichever it is, what holds here is
 * the grant, and what is in use is this container's. */
GP_EXPORT nvmlReturn_t nvmlDeviceGetMemoryLimits_v1(nvmlDevice_t device, nvmlGetMemoryLimits_v1_t *limits) {
    nvmlReturn_t rc = real_nvmlDeviceGetMemoryLimits_v1(device, limits);
    int gpu = rc ? GP_NO_GPU : gp_gpu_of_handle(device);
    const struct gp_ledger *ledger = gp_session();
    if (rc)
        return rc;
    limits->soft = limits->hard = limits->used = 0;
    if (gpu < 0 || !ledger)
        return NVML_ERROR_NO_PERMISSION;
    limits->soft = limits->hard = gp_limit(ledger, (unsigned)gpu);
    limits->used = least(gp_used(ledger, (unsigned)gpu), limits->hard);
    return rc;
}
