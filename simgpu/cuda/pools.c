// SPDX-License-Identifier: Apache-2.0
// Stream-ordered memory. A pool takes device memory in chunks and keeps up to its threshold of what is unused
// when work is waited for. Streams run nothing here, so an allocation is ready and a free done at once. Where
// in a pool's chunks a block would lie is not simulated: only how much the pool has taken.
#include "pools.h"
#include "graphs.h"
#include <stdlib.h>

enum { MAGIC = 0x504f4f4c, ALIGNMENT = 512 };
enum attribute {
    REUSE_FIRST = 1,
    REUSE_LAST = 3,
    RELEASE_THRESHOLD = 4,
    RESERVED_CURRENT,
    RESERVED_HIGH,
    USED_CURRENT,
    USED_HIGH,
    ALLOCATION_TYPE,
    EXPORT_HANDLE_TYPES,
    LOCATION_ID,
    LOCATION_TYPE,
    MAX_POOL_SIZE,
};

static struct pool *all;

bool is_pool(const struct pool *pool) {
    return pool && pool->magic == MAGIC && !pool->destroyed;
}

int pool_device(const struct pool *pool) {
    return is_pool(pool) ? pool->device : -1;
}

static bool resize(struct pool *pool, uint64_t to) {
    int slot = pool->slot >= 0 ? pool->slot : driver.view.self;
    if (to > pool->reserved && pool->device >= 0 && !charge_slot(slot, pool->device, to - pool->reserved))
        return false;
    if (to < pool->reserved && pool->device >= 0)
        sim_give(&driver.view, slot, driver.device[pool->device].number, pool->reserved - to);
    pool->reserved = to;
    if (to > pool->reserved_high)
        pool->reserved_high = to;
    return true;
}

static void trim(struct pool *pool, uint64_t keep) {
    uint64_t needed = round_up(pool->used, driver.costs.pool_chunk);
    if (needed < keep)
        needed = keep < pool->reserved ? round_up(keep, driver.costs.pool_chunk) : pool->reserved;
    if (needed < pool->reserved)
        resize(pool, needed);
}

void pools_settle(int device) {
    lock_acquire(&driver.lock);
    for (struct pool *pool = all; pool; pool = pool->next)
        if (pool->device == device && pool->reserved > pool->used)
            trim(pool, pool->threshold);
    lock_release(&driver.lock);
}

struct pool *pool_make(const CUmemPoolProps *properties, int device) {
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    *pool = (struct pool){.magic = MAGIC,
                          .device = device,
                          .slot = -1,
                          .file = -1,
                          .properties = *properties,
                          .reuse = {0, 1, 1, 1}};
    pool->next = all;
    all = pool;
    return pool;
}

CUresult pools_start(struct device *device, int ordinal) {
    CUmemPoolProps properties = {.allocType = CU_MEM_ALLOCATION_PINNED,
                                 .location = {CU_MEM_LOCATION_DEVICE, ordinal}};
    device->pool = device->default_pool = pool_make(&properties, ordinal);
    if (!device->pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    device->pool->is_default = true;
    return CUDA_SUCCESS;
}

static bool make_room(struct pool *pool, uint64_t size) {
    uint64_t needed = pool->used + size, max = pool->properties.maxSize;
    if (max && needed > max)
        return false;
    if (needed <= pool->reserved)
        return true;
    return resize(pool, round_up(needed, driver.costs.pool_chunk)) ||
           resize(pool, round_up(needed, driver.costs.granularity)); // nearly full: no whole chunk is left
}

CUresult pool_block(CUdeviceptr *out, size_t size, struct pool *pool, struct context *ctx) {
    CUresult result = memory_new(out, size, pool->device < 0 ? KIND_HOST : KIND_POOL, ctx, pool);
    if (result)
        return result;
    struct block *block = arena_find(*out);
    block->kind = KIND_POOL;
    block->device = pool->device < 0 ? 0 : pool->device;
    block_detach(block); // pools outlive contexts
    block_attach(&pool->blocks, block);
    return CUDA_SUCCESS;
}

static CUresult get(CUdeviceptr *out, size_t size, struct pool *pool, struct context *ctx) {
    if (size > (uint64_t)1 << 48 || !make_room(pool, round_up(size, ALIGNMENT)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = pool_block(out, size, pool, ctx);
    if (result)
        return result;
    if (pool->file >= 0 && !pool_show(pool, arena_find(*out))) {
        memory_drop(arena_find(*out));
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pool->used += round_up(size, ALIGNMENT);
    if (pool->used > pool->used_high)
        pool->used_high = pool->used;
    return CUDA_SUCCESS;
}

static CUresult allocate(CUdeviceptr *out, size_t size, struct pool *pool, struct context *ctx) {
    NEED(out && size && is_pool(pool) && !pool->imported);
    lock_acquire(&driver.lock);
    CUresult result = get(out, size, pool, ctx);
    lock_release(&driver.lock);
    return result;
}

static void end(struct pool *pool) {
    if (!pool->imported)
        resize(pool, 0);
    pool_unshare(pool);
    struct pool **at = &all;
    while (*at != pool)
        at = &(*at)->next;
    *at = pool->next; // the object stays: a stale handle is told, not followed
}

CUresult pool_free(struct block *block) {
    struct pool *pool = block->pool;
    if (!pool->imported)
        pool->used -= round_up(block->size, ALIGNMENT);
    if (pool->file >= 0)
        pool_hide(pool, block);
    memory_drop(block);
    if (pool->destroyed && !pool->blocks)
        end(pool);
    return CUDA_SUCCESS;
}

API(cuMemAllocAsync, CUdeviceptr *out, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    if (captured_alloc(stream, out, size, NULL, &result))
        return result;
    return allocate(out, size, driver.device[ctx->device].pool, ctx);
}

API(cuMemAllocFromPoolAsync, CUdeviceptr *out, size_t size, CUmemoryPool pool, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    if (captured_alloc(stream, out, size, pool, &result))
        return result;
    return allocate(out, size, pool, ctx);
}

API(cuMemPoolCreate, CUmemoryPool *out, const CUmemPoolProps *properties) {
    ENTER();
    NEED(out && properties);
    bool on_device = properties->location.type == CU_MEM_LOCATION_DEVICE;
    if (on_device)
        NEED_DEVICE(properties->location.id);
    NEED(on_device || properties->location.type == CU_MEM_LOCATION_HOST ||
         properties->location.type == CU_MEM_LOCATION_HOST_NUMA);
    if (properties->handleTypes & ~CU_MEM_HANDLE_FD || (properties->handleTypes && !on_device))
        return CUDA_ERROR_NOT_SUPPORTED;
    lock_acquire(&driver.lock);
    *out = pool_make(properties, on_device ? properties->location.id : -1);
    bool made = *out && (!properties->handleTypes || pool_share(*out));
    if (*out && !made)
        end(*out);
    lock_release(&driver.lock);
    return made ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

API(cuMemPoolDestroy, CUmemoryPool pool) {
    ENTER();
    NEED(is_pool(pool) && !pool->is_default);
    lock_acquire(&driver.lock);
    for (unsigned i = 0; i < driver.count; i++)
        if (driver.device[i].pool == pool)
            driver.device[i].pool = driver.device[i].default_pool;
    pool->destroyed = true;
    if (!pool->blocks)
        end(pool);
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

API(cuMemPoolTrimTo, CUmemoryPool pool, size_t keep) {
    ENTER();
    NEED(is_pool(pool));
    lock_acquire(&driver.lock);
    trim(pool, keep);
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

API(cuMemPoolSetAccess, CUmemoryPool pool, UNUSED const CUmemAccessDesc *access, UNUSED size_t n) {
    ENTER();
    NEED(is_pool(pool));
    return CUDA_SUCCESS;
}

API(cuMemPoolGetAccess, int *flags, CUmemoryPool pool, UNUSED CUmemLocation *location) {
    ENTER();
    NEED(flags && is_pool(pool));
    *flags = CU_MEM_ACCESS_READWRITE;
    return CUDA_SUCCESS;
}

API(cuMemPoolSetAttribute, CUmemoryPool pool, int attribute, void *value) {
    ENTER();
    NEED(value && is_pool(pool) && attribute >= REUSE_FIRST);
    if (attribute <= REUSE_LAST)
        pool->reuse[attribute] = *(int *)value;
    else if (attribute == RELEASE_THRESHOLD)
        pool->threshold = *(uint64_t *)value;
    else if (attribute == RESERVED_HIGH && !*(uint64_t *)value)
        pool->reserved_high = pool->reserved;
    else if (attribute == USED_HIGH && !*(uint64_t *)value)
        pool->used_high = pool->used;
    else
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static bool read_size(const struct pool *pool, int attribute, uint64_t *value) {
    const uint64_t sizes[] = {
        [RELEASE_THRESHOLD] = pool->threshold, [RESERVED_CURRENT] = pool->reserved,
        [RESERVED_HIGH] = pool->reserved_high, [USED_CURRENT] = pool->used,
        [USED_HIGH] = pool->used_high,         [MAX_POOL_SIZE] = pool->properties.maxSize,
    };
    bool known = (attribute >= RELEASE_THRESHOLD && attribute <= USED_HIGH) || attribute == MAX_POOL_SIZE;
    if (known)
        *value = sizes[attribute];
    return known;
}

API(cuMemPoolGetAttribute, CUmemoryPool pool, int attribute, void *value) {
    ENTER();
    NEED(value && is_pool(pool) && attribute >= REUSE_FIRST);
    const CUmemPoolProps *properties = &pool->properties;
    if (read_size(pool, attribute, value))
        return CUDA_SUCCESS;
    if (attribute <= REUSE_LAST)
        *(int *)value = pool->reuse[attribute];
    else if (attribute == ALLOCATION_TYPE)
        *(int *)value = properties->allocType;
    else if (attribute == EXPORT_HANDLE_TYPES)
        *(int *)value = properties->handleTypes;
    else if (attribute == LOCATION_ID)
        *(int *)value = properties->location.id;
    else if (attribute == LOCATION_TYPE)
        *(int *)value = properties->location.type;
    else
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

API(cuDeviceGetDefaultMemPool, CUmemoryPool *out, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(out);
    *out = driver.device[device].default_pool;
    return CUDA_SUCCESS;
}

API(cuDeviceGetMemPool, CUmemoryPool *out, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(out);
    *out = driver.device[device].pool;
    return CUDA_SUCCESS;
}

API(cuDeviceSetMemPool, CUdevice device, CUmemoryPool pool) {
    ENTER();
    NEED_DEVICE(device);
    NEED(is_pool(pool) && pool->device == device);
    driver.device[device].pool = pool;
    return CUDA_SUCCESS;
}

API(cuMemGetDefaultMemPool, CUmemoryPool *out, CUmemLocation *location, int type) {
    ENTER();
    NEED(out && location && type == CU_MEM_ALLOCATION_PINNED);
    return location->type == CU_MEM_LOCATION_DEVICE ? cuDeviceGetDefaultMemPool(out, location->id)
                                                    : CUDA_ERROR_NOT_SUPPORTED;
}

API(cuMemGetMemPool, CUmemoryPool *out, CUmemLocation *location, int type) {
    ENTER();
    NEED(out && location && type == CU_MEM_ALLOCATION_PINNED);
    return location->type == CU_MEM_LOCATION_DEVICE ? cuDeviceGetMemPool(out, location->id)
                                                    : CUDA_ERROR_NOT_SUPPORTED;
}

API(cuMemSetMemPool, CUmemLocation *location, int type, CUmemoryPool pool) {
    ENTER();
    NEED(location && type == CU_MEM_ALLOCATION_PINNED);
    return location->type == CU_MEM_LOCATION_DEVICE ? cuDeviceSetMemPool(location->id, pool)
                                                    : CUDA_ERROR_NOT_SUPPORTED;
}
