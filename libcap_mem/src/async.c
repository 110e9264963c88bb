// SPDX-License-Identifier: Apache-2.0
/* Stream-ordered allocation. How much a pool will grow is not known before: it is bounded by the request,
 * rounded up to a chunk, charged, and corrected at once by what the driver says the pool has reserved then;
 * the pool is locked meanwhile. While a stream is captured a call makes a node of a graph instead (graphs.c).
 */
#include "admit.h"
#include "contexts.h"
#include "devices.h"
#include "graphs.h"
#include "hooks.h"
#include "linear.h"
#include "pools.h"
#include "raw.h"
#include "sizes.h"

/* One allocation, of any of the four functions. */
struct request {
    CUdeviceptr *dptr;
    size_t bytes;
    CUmemoryPool pool; /* NULL: the device's current one */
    CUstream stream;
    int per_thread;
};

static inline CUresult ask_driver(struct request ask, int from_pool) {
    if (from_pool)
        return (ask.per_thread ? real_cuMemAllocFromPoolAsync_ptsz
                               : real_cuMemAllocFromPoolAsync)(ask.dptr, ask.bytes, ask.pool, ask.stream);
    return (ask.per_thread ? real_cuMemAllocAsync_ptsz : real_cuMemAllocAsync)(ask.dptr, ask.bytes,
                                                                               ask.stream);
}

static void synchronize(struct request ask) {
    (ask.per_thread ? real_cuStreamSynchronize_ptsz : real_cuStreamSynchronize)(ask.stream);
}

/* CUDA_SUCCESS too where the driver is too old to capture. */
static CUresult ask_capturing(struct request ask, int *capturing) {
    *capturing = 0;
    CUresult rc =
        (ask.per_thread ? real_cuStreamIsCapturing_ptsz : real_cuStreamIsCapturing)(ask.stream, capturing);
    return rc == CUDA_ERROR_NOT_SUPPORTED ? CUDA_SUCCESS : rc;
}

/* The legacy stream cannot be captured. It may have to wait for another's capture: then the driver refuses,
 * and nothing may be waited for. */
static inline int is_legacy(struct request ask) {
    return ask.stream == (CUstream)1 || (!ask.stream && !ask.per_thread);
}

/* What a request may make a pool grow by: whole chunks, and not beyond its own bound. */
static inline uint64_t growth(const struct gp_pool *pool, uint64_t bytes) {
    uint64_t chunks = gp_round_up(bytes, pool->chunk), most = gp_round_up(pool->largest, pool->chunk);
    if (!pool->largest || chunks >= GP_ENDLESS)
        return chunks;
    uint64_t left = most > pool->charged ? most - pool->charged : 0;
    return chunks < left ? chunks : left;
}

/* Where there is none: what is free by now, and what pools keep. The pool is locked, and again when this
 * returns. */
static __attribute__((noinline)) int make_room(struct gp_pool *pool, struct request ask, uint64_t *hold) {
    uint64_t used = 0;
    int capturing;
    if (is_legacy(ask) && ask_capturing(ask, &capturing)) {
        *hold = 0; /* the driver will say no */
        return 1;
    }
    gp_unlock(&pool->lock);
    synchronize(ask); /* what was freed on this stream is free only then */
    gp_pools_trim(pool->gpu);
    gp_lock(&pool->lock);
    gp_pool_refresh(pool);
    if (gp_try(pool->gpu, *hold))
        return 1;
    /* No room to grow, but perhaps no need to. */
    *hold = 0;
    return gp_pool_attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) && used < pool->charged &&
           pool->charged - used >= ask.bytes;
}

/* Room for the growth that a request may cause, in *hold. */
static inline int find_room(struct gp_pool *pool, struct request ask, uint64_t *hold) {
    if (pool->largest)
        gp_pool_refresh(pool); /* how much it may still grow, what it holds now decides */
    *hold = growth(pool, ask.bytes);
    return gp_try(pool->gpu, *hold) || make_room(pool, ask, hold);
}

static __attribute__((noinline)) void undo(struct gp_pool *pool, struct request ask) {
    (ask.per_thread ? real_cuMemFreeAsync_ptsz : real_cuMemFreeAsync)(*ask.dptr, ask.stream);
    synchronize(ask);
    gp_pool_trim(pool);
    *ask.dptr = 0; /* it may be another's by now */
}

/* What a pool has reserved is a multiple of its chunk. */
static inline void learn(struct gp_pool *pool, uint64_t reserved, int short_of_it) {
    uint64_t chunk = reserved & -reserved;
    if (chunk >= GP_PAGE && chunk < GP_ENDLESS && (short_of_it || chunk < pool->chunk))
        pool->chunk = chunk;
}

/* Turns the room that was held into what the pool has grown by, or shrunk since it was last asked. 0: it grew
 * beyond, and there is no room for that. */
static inline int settle(struct gp_pool *pool, uint64_t hold) {
    uint64_t covered = pool->charged + hold, reserved = covered;
    gp_pool_attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved);
    learn(pool, reserved, reserved > covered);
    pool->charged = covered;
    if (reserved > covered && !gp_try(pool->gpu, reserved - covered))
        return 0;
    if (reserved < covered)
        gp_give_back(pool->gpu, covered - reserved);
    pool->charged = reserved;
    return 1;
}

static inline CUresult alloc_charged(struct gp_pool *pool, struct request ask, int from_pool) {
    uint64_t hold;
    if (!find_room(pool, ask, &hold))
        return gp_refuse(pool->gpu, ask.bytes, "cuMemAllocAsync");
    CUresult rc = ask_driver(ask, from_pool);
    int fits = settle(pool, hold);
    if (rc) {
        gp_pool_refresh(pool);
        return rc;
    }
    struct gp_block block = {.key = gp_key(GP_POINTER, *ask.dptr), .bytes = pool->number, .how = GP_OF_POOL};
    if (fits && gp_blocks_put(&block)) {
        pool->made++;
        return rc;
    }
    undo(pool, ask);
    return gp_refuse(pool->gpu, ask.bytes, "cuMemAllocAsync");
}

/* Nothing is trimmed or waited for in the middle of a capture: what has no room now is refused. The node's
 * memory is of the pool's GPU. */
static __attribute__((noinline)) CUresult capture(struct request ask, int from_pool, int gpu) {
    const struct gp_pool *pool = from_pool ? gp_pool_of(ask.pool, gpu) : NULL;
    if (pool && pool->standing == FOREIGN)
        return ask_driver(ask, from_pool);
    if (pool)
        gpu = pool->gpu;
    if (!gp_try(gpu, gp_graph_charge(gpu, ask.bytes)))
        return gp_refuse(gpu, ask.bytes, "cuMemAllocAsync");
    CUresult rc = ask_driver(ask, from_pool);
    gp_graph_captured(rc, gpu, ask.bytes, ask.stream, ask.per_thread);
    return rc;
}

/* Four functions, each of one piece. */
static inline __attribute__((always_inline)) CUresult alloc(struct request ask) {
    struct gp_place at;
    int from_pool = ask.pool != NULL, capturing = 0;
    CUresult rc = gp_here(&at);
    if (rc || (!is_legacy(ask) && (rc = ask_capturing(ask, &capturing))))
        return rc; /* no stream, or one that waits for another's capture */
    if (capturing)
        return capture(ask, from_pool, at.gpu);
    CUmemoryPool handle = ask.pool;
    if (!from_pool && (rc = real_cuDeviceGetMemPool(&handle, at.device)))
        return rc;
    struct gp_pool *pool = gp_pool_of(handle, at.gpu);
    if (!pool)
        return gp_refuse(GP_NO_GPU, ask.bytes, "cuMemAllocAsync");
    if (pool->standing == FOREIGN)
        return ask_driver(ask, from_pool);
    gp_lock(&pool->lock);
    rc = alloc_charged(pool, ask, from_pool);
    gp_unlock(&pool->lock);
    return rc;
}

GP_EXPORT CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytes, CUstream stream) {
    return alloc((struct request){dptr, bytes, NULL, stream, 0});
}
GP_EXPORT CUresult cuMemAllocAsync_ptsz(CUdeviceptr *dptr, size_t bytes, CUstream stream) {
    return alloc((struct request){dptr, bytes, NULL, stream, 1});
}
GP_EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytes, CUmemoryPool pool,
                                           CUstream stream) {
    return alloc((struct request){dptr, bytes, pool, stream, 0});
}
GP_EXPORT CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *dptr, size_t bytes, CUmemoryPool pool,
                                                CUstream stream) {
    return alloc((struct request){dptr, bytes, pool, stream, 1});
}

/* A block of cuMemAlloc's may be freed so too; it is the driver's again only when the stream gets there,
 * where pools shrink. */
static __attribute__((noinline)) CUresult end_other(const struct gp_freed *freed, CUresult rc,
                                                    CUstream stream,
                                                    CUresult (*driver_synchronizes)(CUstream)) {
    if (!rc && gp_free_is_plain(freed)) {
        driver_synchronizes(stream);
        gp_pools_refresh();
    }
    gp_free_ends(freed, rc, 1);
    return rc;
}

static inline CUresult free_async(CUdeviceptr dptr, CUstream stream,
                                  CUresult (*driver_frees)(CUdeviceptr, CUstream),
                                  CUresult (*driver_synchronizes)(CUstream)) {
    struct gp_freed freed;
    gp_free_begins(&freed, dptr);
    CUresult rc = driver_frees(dptr, stream);
    if (rc || !freed.known || freed.block.how != GP_OF_POOL)
        return end_other(&freed, rc, stream, driver_synchronizes);
    gp_pools_freed(&freed.block, 1);
    return rc;
}

GP_EXPORT CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream stream) {
    return free_async(dptr, stream, real_cuMemFreeAsync, real_cuStreamSynchronize);
}
GP_EXPORT CUresult cuMemFreeAsync_ptsz(CUdeviceptr dptr, CUstream stream) {
    return free_async(dptr, stream, real_cuMemFreeAsync_ptsz, real_cuStreamSynchronize_ptsz);
}
