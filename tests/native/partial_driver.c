// SPDX-License-Identifier: Apache-2.0
/* A driver of the few functions that the simulated one does not have: graphs that allocate, arrays. It keeps
 * no memory; it says what it is told to. One device, one context; for tests of one process. */
#include "abi.h"

#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

static uint64_t next = 0x10000000, graph_reserved, pool_reserved;
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
PUBLIC CUresult cuMemFree_v2(CUdeviceptr at) {
    return at ? 0 : 1;
}
PUBLIC CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *desc) {
    return desc->width ? make(array) : 1;
}
PUBLIC CUresult cuArrayDestroy(CUarray array) {
    return array ? 0 : 1;
}
PUBLIC CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const CUDA_ARRAY3D_DESCRIPTOR *desc,
                                       unsigned levels) {
    return desc->width && levels ? make(array) : 1;
}
PUBLIC CUresult cuMipmappedArrayDestroy(CUmipmappedArray array) {
    return array ? 0 : 1;
}

PUBLIC CUresult cuGraphCreate(CUgraph *graph, unsigned flags) {
    return flags ? 1 : make(graph);
}
PUBLIC CUresult cuGraphDestroy(CUgraph graph) {
    return graph ? 0 : 1;
}
PUBLIC CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after,
                                       size_t count, CUDA_MEM_ALLOC_NODE_PARAMS *params) {
    (void)after, (void)count;
    return graph && params->bytes ? make(node) : 1;
}
PUBLIC CUresult cuGraphAddNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *after,
                                  const void *edges, size_t count, CUgraphNodeParams *params) {
    (void)after, (void)edges, (void)count, (void)params;
    return graph ? make(node) : 1;
}
PUBLIC CUresult cuGraphInstantiateWithFlags(CUgraphExec *instance, CUgraph graph, unsigned long long flags) {
    return graph && !flags ? make(instance) : 1;
}
PUBLIC CUresult cuGraphExecDestroy(CUgraphExec instance) {
    return instance ? 0 : 1;
}
/* Not the real one's meaning: what the device is to say that it keeps for graphs. */
PUBLIC CUresult cuDeviceSetGraphMemAttribute(CUdevice device, int attribute, void *value) {
    (void)device, (void)attribute;
    memcpy(&graph_reserved, value, sizeof graph_reserved);
    return 0;
}
PUBLIC CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value) {
    (void)device, (void)attribute;
    memcpy(value, &graph_reserved, sizeof graph_reserved);
    return 0;
}
PUBLIC CUresult cuDeviceGraphMemTrim(CUdevice device) {
    graph_reserved = 0;
    return device;
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
