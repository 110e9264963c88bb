// SPDX-License-Identifier: Apache-2.0
#ifndef GP_POOLS_H
#define GP_POOLS_H
#include "abi.h"
#include "blocks.h"
#include "lock.h"

enum standing {
    CHARGED,
    FOREIGN, /* host memory, or imported: its exporter pays */
    ORPHAN,  /* destroyed while blocks of it live */
};

struct gp_pool {
    uint64_t handle; /* 0: the record is free */
    uint64_t charged;
    uint64_t chunk;   /* what it seems to grow by */
    uint64_t largest; /* beyond which it does not; 0: no such bound */
    struct gp_lock lock;
    uint32_t made;   /* blocks; by who has the lock */
    uint32_t freed;  /* of them; by anybody, at any time */
    uint16_t number; /* of the record */
    int8_t gpu;
    uint8_t standing;
};

/* Whether this process ever allocated from a pool: nothing below is worth a call before. */
int gp_pools_in_use(void);

/* Gives back what pools have returned to the driver since the last look. */
void gp_pools_refresh(void);

/* Has the pools of this GPU return what they keep unused. */
void gp_pools_trim(int gpu);

/* A block of a pool has been freed; by whichever call. In the order of a stream: then the pool keeps its
 * memory until something is waited for, and the driver need not be asked. */
void gp_pools_freed(const struct gp_block *block, int stream_ordered);

/* A pool's record, made where there is none: a pool that nobody made is a device's own, the current device's
 * unless another's says otherwise. NULL: there are too many. */
struct gp_pool *gp_pool_of(CUmemoryPool handle, int gpu);

/* For who holds the pool's lock. */
int gp_pool_attribute(const struct gp_pool *pool, int which,
                      uint64_t *value);     /* 0: the driver does not say */
void gp_pool_refresh(struct gp_pool *pool); /* makes the charge what the pool has reserved now */
void gp_pool_trim(struct gp_pool *pool);

#endif
