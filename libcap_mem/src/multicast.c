// SPDX-License-Identifier: Apache-2.0
/* What is bound to a multicast object keeps its memory as a mapping does, until it is unbound or the object
 * is gone: so does the charge. An object that another process made is not followed to its end: what is bound
 * to it and never unbound stays charged until this process ends. Memory of a pool is the pool's, bound or
 * not. */
#include "blocks.h"
#include "devices.h"
#include "hooks.h"
#include "vmm.h"

/* One place in one object, as the name of a block. Two that fell together would leave a charge behind, not
 * lose one. */
static uint64_t place(CUmemHandle object, int gpu, size_t at) {
    uint64_t x = object ^ (uint64_t)at * 0x9e3779b97f4a7c15u ^ (uint64_t)(unsigned)gpu << 48;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* A binding of memory that is about to be made; 0 if its memory is none of ours. */
static uint64_t held(uint64_t physical) {
    return gp_physical_join(physical) ? physical : 0;
}

static CUresult bound(CUresult rc, CUmemHandle object, size_t at, uint64_t physical) {
    struct gp_block memory;
    if (!physical)
        return rc;
    if (rc || !gp_blocks_see(gp_key(GP_PHYSICAL, physical), &memory)) {
        gp_physical_leave(physical);
        return rc;
    }
    struct gp_block block = {.key = gp_key(GP_BOUND, place(object, memory.gpu, at)),
                             .bytes = gp_physical_of(object),
                             .other = physical,
                             .gpu = memory.gpu};
    gp_blocks_put(&block);
    return rc;
}

GP_EXPORT CUresult cuMulticastCreate(CUmemHandle *object, const void *prop) {
    CUresult rc = real_cuMulticastCreate(object, prop);
    if (!rc)
        gp_physical_of_multicast(*object);
    return rc;
}

GP_EXPORT CUresult cuMulticastBindMem(CUmemHandle object, size_t at, CUmemHandle memory, size_t offset,
                                      size_t bytes, unsigned long long flags) {
    uint64_t physical = held(gp_physical_of(memory));
    return bound(real_cuMulticastBindMem(object, at, memory, offset, bytes, flags), object, at, physical);
}

GP_EXPORT CUresult cuMulticastBindMem_v2(CUmemHandle object, CUdevice device, size_t at, CUmemHandle memory,
                                         size_t offset, size_t bytes, unsigned long long flags) {
    uint64_t physical = held(gp_physical_of(memory));
    return bound(real_cuMulticastBindMem_v2(object, device, at, memory, offset, bytes, flags), object, at,
                 physical);
}

GP_EXPORT CUresult cuMulticastBindAddr(CUmemHandle object, size_t at, CUdeviceptr dptr, size_t bytes,
                                       unsigned long long flags) {
    uint64_t physical = held(gp_physical_at(dptr));
    return bound(real_cuMulticastBindAddr(object, at, dptr, bytes, flags), object, at, physical);
}

GP_EXPORT CUresult cuMulticastBindAddr_v2(CUmemHandle object, CUdevice device, size_t at, CUdeviceptr dptr,
                                          size_t bytes, unsigned long long flags) {
    uint64_t physical = held(gp_physical_at(dptr));
    return bound(real_cuMulticastBindAddr_v2(object, device, at, dptr, bytes, flags), object, at, physical);
}

GP_EXPORT CUresult cuMulticastUnbind(CUmemHandle object, CUdevice device, size_t at, size_t bytes) {
    struct gp_block was;
    CUresult rc = real_cuMulticastUnbind(object, device, at, bytes);
    if (!rc && gp_blocks_take(gp_key(GP_BOUND, place(object, gp_gpu_of(device), at)), &was))
        gp_physical_leave(was.other);
    return rc;
}

static int is_of(const struct gp_block *block, const void *object) {
    return gp_kind_of(block) == GP_BOUND && block->bytes == *(const uint64_t *)object;
}

static void unbound(const struct gp_block *block, void *with) {
    (void)with;
    gp_physical_leave(block->other);
}

void gp_multicast_gone(uint64_t object) {
    gp_blocks_sweep(is_of, &object, unbound, NULL);
}
