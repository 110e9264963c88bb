// SPDX-License-Identifier: Apache-2.0
/* A driver for what the simulated one does not have: managed pools, memory mapped into arrays, green contexts
 * by the hundred. It keeps no memory; it says what it is told to. One device, one context; for tests of one
 * process. */
#include "abi.h"

#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

static uint64_t next = 0x10000000, pool_reserved;
static int device_of_context;
static CUcontext current = (CUcontext)&device_of_context;

PUBLIC CUresult cuInit(unsigned flags) {
    return (CUresult)flags;
}
PUBLIC CUresult cuDeviceGetCount(int *count) {
    *count = 1;
    return 0;
}
PUBLIC CUresult cuDeviceGetUuid(uint8_t *uuid, CUdevice device) {
    memset(uuid, 0x11, 16);
    return device ? 101 : 0;
}
PUBLIC CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = current;
    return 0;
}
PUBLIC CUresult cuCtxSetCurrent(CUcontext context) {
    current = context ? context : (CUcontext)&device_of_context;
    return 0;
}
PUBLIC CUresult cuCtxFromGreenCtx(CUcontext *context, CUgreenCtx green) {
    *context = (CUcontext)green;
    return green ? 0 : 1;
}
PUBLIC CUresult cuGreenCtxDestroy(CUgreenCtx green) {
    return green ? 0 : 1;
}
PUBLIC CUresult cuCtxGetDevice(CUdevice *device) {
    *device = device_of_context;
    return 0;
}
PUBLIC CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    *free = *total = (size_t)64 << 30;
    return 0;
}

static CUresult make(void *out) {
    next += 0x1000000;
    memcpy(out, &next, sizeof next);
    return 0;
}

PUBLIC CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes) {
    return bytes ? make(out) : 1;
}
/* Some drivers answer a lookup with another address than that of their export. */
static CUresult alloc_by_another_address(CUdeviceptr *out, size_t bytes) {
    return bytes ? make(out) : 1; /* not by the exported name, which is the preloaded library's */
}
PUBLIC CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                                    int *status) {
    int has = !strcmp(name, "cuMemAlloc") && version >= 3020 && !flags;
    *function = has ? (void *)alloc_by_another_address : NULL;
    *status = !has;
    return has ? 0 : 500;
}
PUBLIC CUresult cuMemFree_v2(CUdeviceptr at) {
    return at ? 0 : 1;
}
PUBLIC CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props) {
    return props->type ? make(pool) : 1;
}
PUBLIC CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location, int type) {
    return location && type ? make(pool) : 1;
}
/* All pools are one. */
PUBLIC CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value) {
    memcpy(value, &pool_reserved, sizeof pool_reserved);
    return pool && attribute ? 0 : 1;
}
PUBLIC CUresult cuMemAllocFromPoolAsync(CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream stream) {
    (void)stream;
    pool_reserved += bytes;
    return pool ? make(out) : 1;
}

PUBLIC CUresult cuMemCreate(CUmemHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                            unsigned long long flags) {
    (void)prop, (void)flags;
    return bytes ? make(handle) : 1;
}
PUBLIC CUresult cuMemRelease(CUmemHandle handle) {
    return handle ? 0 : 1;
}
PUBLIC CUresult cuMemMapArrayAsync(CUarrayMapInfo *list, unsigned count, CUstream stream) {
    (void)stream;
    return list && count ? 0 : 1;
}
