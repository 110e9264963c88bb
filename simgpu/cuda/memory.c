// SPDX-License-Identifier: Apache-2.0
// Linear, pitched and host memory. A block larger than the small ones costs whole granules; the
// small ones lie together in slabs (slabs.c); a pool's cost its pool (pools.c).
#include "graphs.h"
#include <string.h>
#include <sys/mman.h>

enum { HOST_FLAGS_ALL = 7, PITCH_ALIGNMENT = 512 };

static inline __attribute__((always_inline)) CUresult make(struct block **out, struct request request) {
    struct context *ctx = request.context;
    if (request.size > (uint64_t)1 << 48 || (request.cost && !charge(ctx->device, request.cost)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct block *block = arena_get(request.size, request.reach);
    if (!block) {
        uncharge(ctx->device, request.cost);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    block->size = request.size;
    block->charged = request.cost;
    block->kind = request.kind;
    block->device = ctx->device;
    block->context = ctx;
    block->pool = request.pool;
    block->id = new_id();
    block->dirty = request.kind == KIND_HOST || request.kind == KIND_MANAGED; // written to behind our back
    block->flags = 0;
    block->physical = NULL;
    block->offset = 0;
    block_attach(&ctx->blocks, block);
    *out = block;
    return CUDA_SUCCESS;
}

CUresult memory_make(struct block **out, struct request request) {
    return make(out, request);
}

CUresult memory_new(CUdeviceptr *out, size_t size, enum kind kind, struct context *ctx, struct pool *pool) {
    if (size > (uint64_t)1 << 48)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct block *block;
    uint64_t cost = kind == KIND_DEVICE ? round_up(size, driver.costs.granularity) : 0;
    CUresult result = make(&block, (struct request){size, cost, kind, REACH_ALL, ctx, pool});
    if (!result)
        *out = block->base;
    return result;
}

CUresult memory_drop(struct block *block) {
    if (block->kind == KIND_MANAGED)
        managed_gone(block);
    else if (block->physical)
        ipc_end(block);
    else
        uncharge(block->device, block->charged);
    block_detach(block);
    arena_put(block);
    return CUDA_SUCCESS;
}

void memory_drop_all(struct context *ctx) {
    while (ctx->blocks) {
        if (ctx->blocks->kind == KIND_SLAB)
            slab_forget(ctx->blocks->slab);
        memory_drop(ctx->blocks);
    }
    while (ctx->managed)
        memory_drop(ctx->managed);
    ctx->slabs = NULL;
}

static CUresult device_memory(CUdeviceptr *out, size_t size, struct context *ctx) {
    NEED(out && size);
    lock_acquire(&driver.lock);
    CUresult result =
        size <= driver.costs.small ? slab_get(out, size, ctx) : memory_new(out, size, KIND_DEVICE, ctx, NULL);
    lock_release(&driver.lock);
    return result;
}

API(cuMemAlloc_v2, CUdeviceptr *out, size_t size) {
    ENTER_CONTEXT();
    return device_memory(out, size, ctx);
}

API(cuMemAllocPitch_v2, CUdeviceptr *out, size_t *pitch, size_t width, size_t height, unsigned element) {
    ENTER_CONTEXT();
    NEED(out && pitch && width && height && (element == 4 || element == 8 || element == 16));
    *pitch = round_up(width, PITCH_ALIGNMENT);
    if (width > (uint64_t)1 << 40 || height > ((uint64_t)1 << 48) / *pitch)
        return CUDA_ERROR_OUT_OF_MEMORY;
    return device_memory(out, *pitch * height, ctx);
}

static CUresult free_kinds(uintptr_t address, unsigned kinds) {
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    lock_acquire(&driver.lock);
    struct block *block = arena_find(address);
    if (block && block->kind == KIND_SLAB && kinds & 1u << KIND_DEVICE)
        result = slab_put(block->slab, address);
    else if (block && block->base == address && kinds & 1u << block->kind)
        result = block->kind == KIND_POOL    ? pool_free(block)
                 : block->kind == KIND_GRAPH ? graph_memory_free(block)
                                             : memory_drop(block);
    lock_release(&driver.lock);
    return result;
}

#define DEVICE_KINDS (1u << KIND_DEVICE | 1u << KIND_MANAGED | 1u << KIND_POOL | 1u << KIND_GRAPH)

CUresult memory_free(uintptr_t address) {
    return address ? free_kinds(address, DEVICE_KINDS) : CUDA_SUCCESS;
}

API(cuMemFree_v2, CUdeviceptr address) {
    ENTER_CONTEXT();
    return memory_free(address);
}

API(cuMemFreeAsync, CUdeviceptr address, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    if (captured_free(stream, address, &result))
        return result;
    return free_kinds(address, DEVICE_KINDS);
}

static CUresult host_memory(void **out, size_t size, unsigned flags, struct context *ctx) {
    NEED(out && size && !(flags & ~(unsigned)HOST_FLAGS_ALL));
    CUdeviceptr at = 0;
    lock_acquire(&driver.lock);
    CUresult result = memory_new(&at, size, KIND_HOST, ctx, NULL);
    if (!result)
        arena_find(at)->flags = flags;
    lock_release(&driver.lock);
    if (!result)
        *out = (void *)at;
    return result;
}

API(cuMemAllocHost_v2, void **out, size_t size) {
    ENTER_CONTEXT();
    return host_memory(out, size, 0, ctx);
}

API(cuMemHostAlloc, void **out, size_t size, unsigned flags) {
    ENTER_CONTEXT();
    return host_memory(out, size, flags, ctx);
}

API(cuMemFreeHost, void *address) {
    ENTER_CONTEXT();
    return free_kinds((uintptr_t)address, 1u << KIND_HOST);
}

API(cuMemHostGetFlags, unsigned *flags, void *address) {
    ENTER_CONTEXT();
    NEED(flags);
    lock_acquire(&driver.lock);
    struct block *block = arena_find((uintptr_t)address);
    bool found = block && block->kind == KIND_HOST;
    if (found)
        *flags = block->flags | 2; // all host memory is mapped: addresses are unified
    lock_release(&driver.lock);
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static void measure(struct context *ctx, uint64_t *free, uint64_t *total) {
    struct device *device = &driver.device[ctx->device];
    lock_acquire(&driver.lock);
    uint64_t used = sim_used(&driver.view, device->number);
    lock_release(&driver.lock);
    *free = used < device->total ? device->total - used : 0;
    *total = device->total;
}

API(cuMemGetInfo_v2, size_t *free, size_t *total) {
    ENTER_CONTEXT();
    uint64_t now_free, all;
    measure(ctx, &now_free, &all);
    if (free)
        *free = now_free;
    if (total)
        *total = all;
    return CUDA_SUCCESS;
}

// Its results have 32 bits: as much as fits.
API(cuMemGetInfo, unsigned *free, unsigned *total) {
    ENTER_CONTEXT();
    uint64_t now_free, all;
    measure(ctx, &now_free, &all);
    if (free)
        *free = now_free > UINT32_MAX ? UINT32_MAX : (unsigned)now_free;
    if (total)
        *total = all > UINT32_MAX ? UINT32_MAX : (unsigned)all;
    return CUDA_SUCCESS;
}
