// SPDX-License-Identifier: Apache-2.0
/* The pools of stream-ordered memory. A pool takes memory in chunks and keeps what is freed, so not blocks
 * are charged but what their pool has reserved, as the driver tells. It shrinks when the driver gets around
 * to it (at a synchronisation, above its release threshold); that is noticed at the next call that passes
 * here, and before anything is refused. Allocating is async.c's.
 */
#include "pools.h"

#include "admit.h"
#include "contexts.h"
#include "devices.h"
#include "hooks.h"
#include "raw.h"
#include "sizes.h"

enum { POOLS = 1024 };

/* In place of a handle: the pool is destroyed, blocks of it live on. No address. */
#define GONE UINT64_MAX

struct own {
    struct gp_lock lock; /* over the assignment of records */
    uint32_t count;
    struct gp_pool pool[POOLS];
};

static void *memory;

static struct own *own(void) {
    return gp_own_memory(&memory, sizeof(struct own));
}

int gp_pools_in_use(void) {
    struct own *mine = __atomic_load_n(&memory, __ATOMIC_ACQUIRE);
    return mine && __atomic_load_n(&mine->count, __ATOMIC_RELAXED);
}

static struct gp_pool *known(struct own *mine, uint64_t handle) {
    uint32_t count = __atomic_load_n(&mine->count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++)
        if (__atomic_load_n(&mine->pool[i].handle, __ATOMIC_ACQUIRE) == handle)
            return &mine->pool[i];
    return NULL;
}

static struct gp_pool *register_pool(CUmemoryPool handle, int gpu, enum standing standing) {
    struct own *mine = own();
    if (!mine)
        return NULL;
    gp_lock(&mine->lock);
    struct gp_pool *pool = known(mine, (uint64_t)handle);
    if (!pool && !(pool = known(mine, 0)) && mine->count < POOLS)
        pool = &mine->pool[mine->count];
    if (pool && !pool->handle) {
        pool->number = (uint16_t)(pool - mine->pool);
        pool->gpu = (int8_t)gpu;
        __atomic_store_n(&pool->standing, standing, __ATOMIC_RELAXED); /* gp_pools_freed may be reading it */
        pool->chunk = GP_POOL_CHUNK;
        pool->largest = 0;
        __atomic_store_n(&pool->handle, (uint64_t)handle, __ATOMIC_RELEASE);
        if (pool == &mine->pool[mine->count])
            __atomic_store_n(&mine->count, mine->count + 1, __ATOMIC_RELEASE);
    }
    gp_unlock(&mine->lock);
    return pool;
}

/* A pool that nobody made is a device's own; the current device's, unless another's says otherwise. */
static __attribute__((noinline)) struct gp_pool *meet(CUmemoryPool handle, int gpu) {
    int count = 0;
    real_cuDeviceGetCount(&count);
    for (CUdevice device = 0; device < count && count > 1; device++) {
        CUmemoryPool theirs;
        if (real_cuDeviceGetDefaultMemPool(&theirs, device) == CUDA_SUCCESS && theirs == handle)
            gpu = gp_gpu_of(device);
    }
    return register_pool(handle, gpu, CHARGED);
}

struct gp_pool *gp_pool_of(CUmemoryPool handle, int gpu) {
    struct own *mine = own();
    struct gp_pool *pool = mine ? known(mine, (uint64_t)handle) : NULL;
    return pool ? pool : meet(handle, gpu);
}

int gp_pool_attribute(const struct gp_pool *pool, int which, uint64_t *value) {
    return real_cuMemPoolGetAttribute((CUmemoryPool)pool->handle, which, value) == CUDA_SUCCESS;
}

/* Makes the charge what the pool has reserved now. The pool is locked. */
void gp_pool_refresh(struct gp_pool *pool) {
    uint64_t reserved;
    if (pool->standing != CHARGED || pool->handle == GONE ||
        !gp_pool_attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved))
        return;
    if (reserved > pool->charged)
        gp_count(pool->gpu, reserved - pool->charged);
    else
        gp_give_back(pool->gpu, pool->charged - reserved);
    pool->charged = reserved;
}

/* Visits the pools that nobody is busy with: who is busy with one refreshes it. */
static void visit(int gpu, void (*what)(struct gp_pool *)) {
    if (!gp_pools_in_use())
        return;
    struct own *mine = own();
    uint32_t count = __atomic_load_n(&mine->count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        struct gp_pool *pool = &mine->pool[i];
        if ((gpu >= 0 && pool->gpu != gpu) || !__atomic_load_n(&pool->handle, __ATOMIC_ACQUIRE) ||
            !gp_trylock(&pool->lock))
            continue;
        if (pool->handle)
            what(pool);
        gp_unlock(&pool->lock);
    }
}

void gp_pool_trim(struct gp_pool *pool) {
    if (pool->standing == CHARGED)
        real_cuMemPoolTrimTo((CUmemoryPool)pool->handle, 0);
    gp_pool_refresh(pool);
}

void gp_pools_refresh(void) {
    visit(-1, gp_pool_refresh);
}

/* Trimming must not end a capture that some thread of the process has under way: the relaxed mode says so. */
void gp_pools_trim(int gpu) {
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    if (!gp_pools_in_use())
        return;
    int relaxed = real_cuThreadExchangeStreamCaptureMode(&mode) == CUDA_SUCCESS;
    visit(gpu, gp_pool_trim);
    if (relaxed)
        real_cuThreadExchangeStreamCaptureMode(&mode);
}

static void forget(struct gp_pool *pool) {
    pool->charged = 0;
    pool->made = 0;
    __atomic_store_n(&pool->freed, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->handle, 0, __ATOMIC_RELEASE);
}

/* The memory of a destroyed pool goes with its last block. The pool is locked. Of several who freed the last
 * ones only the first finds an orphan: then the record is free, and may be the next pool's at once. */
static void end_if_empty(struct gp_pool *pool) {
    if (__atomic_load_n(&pool->handle, __ATOMIC_ACQUIRE) != GONE || pool->standing != ORPHAN ||
        pool->made != __atomic_load_n(&pool->freed, __ATOMIC_SEQ_CST))
        return;
    gp_give_back(pool->gpu, pool->charged);
    forget(pool);
}

/* No lock as a rule: another thread has the pool's while the driver makes a block. Who destroys a pool makes
 * it an orphan before it counts the blocks, who frees a block counts it before it looks for orphans: so one
 * of the two sees that nothing is left. */
void gp_pools_freed(const struct gp_block *block, int stream_ordered) {
    struct own *mine = own();
    if (!mine || block->bytes >= POOLS)
        return;
    struct gp_pool *pool = &mine->pool[block->bytes];
    __atomic_fetch_add(&pool->freed, 1, __ATOMIC_SEQ_CST);
    if (stream_ordered && __atomic_load_n(&pool->standing, __ATOMIC_SEQ_CST) != ORPHAN)
        return;
    gp_lock(&pool->lock);
    if (!stream_ordered)
        gp_pool_refresh(pool);
    end_if_empty(pool);
    gp_unlock(&pool->lock);
}

/* Managed memory is counted wherever it is said to live at first: it goes to the GPU that touches it. */
static int is_host_memory(int location, int type) {
    return location != CU_MEM_LOCATION_TYPE_DEVICE && type != CU_MEM_ALLOCATION_TYPE_MANAGED;
}

static int gpu_of(const CUmemLocation *location) {
    struct gp_place at;
    if (location->type == CU_MEM_LOCATION_TYPE_DEVICE)
        return gp_gpu_of(location->id);
    return gp_whereabouts(&at) ? gp_gpu_of(0) : at.gpu;
}

GP_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props) {
    CUresult rc = real_cuMemPoolCreate(pool, props);
    if (rc)
        return rc;
    int foreign = is_host_memory(props->location.type, props->type);
    struct gp_pool *made =
        register_pool(*pool, foreign ? GP_NO_GPU : gpu_of(&props->location), foreign ? FOREIGN : CHARGED);
    if (made) {
        made->largest = props->max_bytes;
        return rc;
    }
    real_cuMemPoolDestroy(*pool);
    *pool = NULL;
    return gp_refuse(GP_NO_GPU, 0, "cuMemPoolCreate");
}

/* The host has pools of its own, that nobody made either. */
static CUresult got(CUresult rc, const CUmemoryPool *pool, const CUmemLocation *location, int type) {
    if (!rc && is_host_memory(location->type, type))
        register_pool(*pool, GP_NO_GPU, FOREIGN);
    return rc;
}

GP_EXPORT CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location, int type) {
    return got(real_cuMemGetDefaultMemPool(pool, location, type), pool, location, type);
}
GP_EXPORT CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, int type) {
    return got(real_cuMemGetMemPool(pool, location, type), pool, location, type);
}

GP_EXPORT CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool, void *handle, int type,
                                                      uint64_t flags) {
    CUresult rc = real_cuMemPoolImportFromShareableHandle(pool, handle, type, flags);
    if (!rc)
        register_pool(*pool, GP_NO_GPU, FOREIGN);
    return rc;
}

/* Its handle can be another pool's at once, so the record lets go of it first. */
GP_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool handle) {
    struct own *mine = own();
    struct gp_pool *pool = mine ? known(mine, (uint64_t)handle) : NULL;
    if (!pool)
        return real_cuMemPoolDestroy(handle);
    gp_lock(&pool->lock);
    gp_pool_refresh(pool);
    __atomic_store_n(&pool->handle, GONE, __ATOMIC_RELEASE);
    CUresult rc = real_cuMemPoolDestroy(handle);
    if (rc) {
        __atomic_store_n(&pool->handle, (uint64_t)handle, __ATOMIC_RELEASE);
    } else if (pool->standing == CHARGED) {
        __atomic_store_n(&pool->standing, ORPHAN, __ATOMIC_SEQ_CST);
        end_if_empty(pool);
    } else {
        forget(pool);
    }
    gp_unlock(&pool->lock);
    return rc;
}

GP_EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep) {
    CUresult rc = real_cuMemPoolTrimTo(pool, keep);
    gp_pools_refresh();
    return rc;
}

/* Where pools shrink. */
GP_EXPORT CUresult cuStreamSynchronize(CUstream stream) {
    CUresult rc = real_cuStreamSynchronize(stream);
    gp_pools_refresh();
    return rc;
}

GP_EXPORT CUresult cuStreamSynchronize_ptsz(CUstream stream) {
    CUresult rc = real_cuStreamSynchronize_ptsz(stream);
    gp_pools_refresh();
    return rc;
}

GP_EXPORT CUresult cuCtxSynchronize(void) {
    CUresult rc = real_cuCtxSynchronize();
    gp_pools_refresh();
    return rc;
}

GP_EXPORT CUresult cuCtxSynchronize_v2(CUcontext context) {
    CUresult rc = real_cuCtxSynchronize_v2(context);
    gp_pools_refresh();
    return rc;
}
