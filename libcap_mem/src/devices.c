// SPDX-License-Identifier: Apache-2.0
/* Which of the policy's GPUs a CUDA ordinal is. Ordinals are this process's own (CUDA_VISIBLE_DEVICES
 * reorders them), UUIDs are not. */
#include "devices.h"

#include <string.h>

#include "hooks.h"
#include "policy_path.h"
#include "raw.h"
#include "sizes.h"

void *gp_ordinals;

static struct gp_ordinals *ordinals(void) {
    return gp_own_memory(&gp_ordinals, sizeof(struct gp_ordinals));
}

static uint64_t granularity(CUdevice device) {
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}};
    size_t bytes = 0;
    CUresult rc = real_cuMemGetAllocationGranularity(&bytes, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    return rc || bytes < GP_PAGE || bytes > GP_LARGEST_PAGE ? GP_PAGE : bytes;
}

static int look_up(CUdevice device) {
    const gp_policy *policy = gp_policy_here();
    uint8_t uuid[16];
    /* _v2 tells MIG instances apart; drivers before 11.4 do not have it. */
    if (!policy || (real_cuDeviceGetUuid_v2(uuid, device) && real_cuDeviceGetUuid(uuid, device)))
        return GP_NO_GPU;
    for (unsigned i = 0; i < policy->gpus; i++)
        if (!memcmp(policy->gpu[i].uuid, uuid, sizeof uuid))
            return (int)i;
    return GP_NO_GPU;
}

int gp_gpu_of(CUdevice device) {
    struct gp_ordinals *own = ordinals();
    if (!own || device < 0 || device >= GP_ORDINALS)
        return look_up(device);
    uint8_t known = __atomic_load_n(&own->known[device], __ATOMIC_RELAXED);
    if (!known) {
        int unready = 0;
        int gpu = look_up(device);
        if (real_cuDeviceGetCount(&unready)) /* before cuInit nothing is known, and nothing is kept */
            return gpu;
        known = (uint8_t)(gpu + 2);
        if (gpu >= 0)
            __atomic_store_n(&own->page[gpu], granularity(device), __ATOMIC_RELAXED);
        __atomic_store_n(&own->known[device], known, __ATOMIC_RELAXED);
    }
    return (int)known - 2;
}

CUdevice gp_device_of(int gpu) {
    struct gp_ordinals *own = ordinals();
    for (CUdevice device = 0; own && device < GP_ORDINALS; device++)
        if (__atomic_load_n(&own->known[device], __ATOMIC_RELAXED) == gpu + 2)
            return device;
    return 0;
}
