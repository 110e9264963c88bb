// SPDX-License-Identifier: Apache-2.0
/* What is bound to a logical endpoint keeps its memory as a mapping does, until it is unbound or this process
 * lets go of the endpoint: so does the charge. Who imports an endpoint holds what it binds itself, no more.
 * Memory of a pool is the pool's, bound or not. */
#include "blocks.h"
#include "devices.h"
#include "hooks.h"
#include "vmm.h"

/* One place at one endpoint, as the name of a block. Two that fell together would leave a charge behind, not
 * lose one. */
static uint64_t place(uint32_t endpoint, int gpu, uint64_t at) {
    uint64_t x = at ^ (uint64_t)endpoint << 8 ^ (uint64_t)(unsigned)gpu;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* A binding of memory that is about to be made; 0 if its memory is none of ours. */
static uint64_t held(uint64_t physical) {
    return gp_physical_join(physical) ? physical : 0;
}

static CUresult bound(CUresult rc, uint32_t endpoint, CUdevice device, uint64_t at, uint64_t physical) {
    int gpu = gp_gpu_of(device);
    struct gp_block block = {.key = gp_key(GP_ENDPOINT, place(endpoint, gpu, at)),
                             .bytes = at,
                             .other = physical,
                             .refs = endpoint,
                             .gpu = (uint8_t)gpu};
    if (rc)
        gp_physical_leave(physical);
    else if (physical)
        gp_blocks_put(&block);
    return rc;
}

GP_EXPORT CUresult cuLogicalEndpointBindMem(uint32_t endpoint, CUdevice device, uint64_t at,
                                            CUmemHandle memory, uint64_t offset, uint64_t bytes,
                                            unsigned long long flags) {
    uint64_t physical = held(gp_physical_of(memory));
    return bound(real_cuLogicalEndpointBindMem(endpoint, device, at, memory, offset, bytes, flags), endpoint,
                 device, at, physical);
}

GP_EXPORT CUresult cuLogicalEndpointBindAddr(uint32_t endpoint, CUdevice device, uint64_t at, void *address,
                                             uint64_t bytes, unsigned long long flags) {
    uint64_t physical = held(gp_physical_at((uint64_t)address));
    return bound(real_cuLogicalEndpointBindAddr(endpoint, device, at, address, bytes, flags), endpoint,
                 device, at, physical);
}

/* Of an endpoint, on one GPU, or on all for -1. */
struct range {
    uint32_t endpoint;
    int gpu;
    uint64_t at, bytes;
};

static int lies_in(const struct gp_block *block, const void *what) {
    const struct range *range = what;
    return gp_kind_of(block) == GP_ENDPOINT && block->refs == range->endpoint &&
           (range->gpu < 0 || block->gpu == (uint8_t)range->gpu) && block->bytes >= range->at &&
           block->bytes - range->at < range->bytes;
}

static void unbound(const struct gp_block *block, void *with) {
    (void)with;
    gp_physical_leave(block->other);
}

GP_EXPORT CUresult cuLogicalEndpointUnbind(uint32_t endpoint, CUdevice device, uint64_t at, uint64_t bytes) {
    struct range range = {endpoint, gp_gpu_of(device), at, bytes};
    CUresult rc = real_cuLogicalEndpointUnbind(endpoint, device, at, bytes);
    if (!rc && range.gpu >= 0)
        gp_blocks_sweep(lies_in, &range, unbound, NULL);
    return rc;
}

GP_EXPORT CUresult cuLogicalEndpointDestroy(uint32_t endpoint) {
    struct range range = {endpoint, -1, 0, UINT64_MAX};
    CUresult rc = real_cuLogicalEndpointDestroy(endpoint);
    if (!rc)
        gp_blocks_sweep(lies_in, &range, unbound, NULL);
    return rc;
}
