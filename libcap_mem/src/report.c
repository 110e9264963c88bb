// SPDX-License-Identifier: Apache-2.0
/* What the application is told about its GPU's memory: the grant is the GPU. */
#include "contexts.h"
#include "devices.h"
#include "hooks.h"
#include "pools.h"
#include "session.h"

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* In: what is physically free and there. Out: what of it is this container's. */
static void narrow(int gpu, uint64_t *free, uint64_t *total) {
    struct gp_ledger *ledger = gp_session();
    if (!ledger || gpu < 0) {
        *free = 0; /* whatever is asked for will be refused */
        return;
    }
    gp_heed(ledger, (unsigned)gpu);
    *total = least(*total, gp_limit(ledger, (unsigned)gpu));
    *free = least(*free, *total - least(*total, gp_used(ledger, (unsigned)gpu)));
}

GP_EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    struct gp_place at;
    uint64_t physically_free, physically_there;
    CUresult rc = gp_whereabouts(&at);
    if (rc)
        return rc;
    size_t f = 0, t = 0;
    gp_pools_refresh();
    rc = real_cuMemGetInfo_v2(&f, &t);
    if (rc)
        return rc;
    physically_free = f;
    physically_there = t;
    narrow(at.gpu, &physically_free, &physically_there);
    if (free)
        *free = physically_free;
    if (total)
        *total = physically_there;
    return rc;
}

GP_EXPORT CUresult cuMemGetInfo(unsigned *free, unsigned *total) {
    size_t f, t;
    CUresult rc = cuMemGetInfo_v2(&f, &t);
    if (!rc && free)
        *free = (unsigned)least(f, UINT32_MAX);
    if (!rc && total)
        *total = (unsigned)least(t, UINT32_MAX);
    return rc;
}

GP_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    uint64_t nothing = 0, total;
    CUresult rc = real_cuDeviceTotalMem_v2(bytes, device);
    if (rc)
        return rc;
    total = *bytes;
    narrow(gp_gpu_of(device), &nothing, &total);
    *bytes = total;
    return rc;
}

GP_EXPORT CUresult cuDeviceTotalMem(unsigned *bytes, CUdevice device) {
    size_t total;
    CUresult rc = cuDeviceTotalMem_v2(&total, device);
    if (!rc && bytes)
        *bytes = (unsigned)least(total, UINT32_MAX);
    return rc;
}
