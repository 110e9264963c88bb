// SPDX-License-Identifier: Apache-2.0
#ifndef GP_BLOCKS_H
#define GP_BLOCKS_H
#include <stdint.h>

#include "abi.h"

/* Names of different kinds may have the same number (a handle, a pointer). */
enum gp_kind {
    GP_POINTER = 1, /* key: device pointer; how it was charged says enum gp_how */
    GP_SLAB,        /* key: address of a 2 MiB piece; refs: small blocks in it */
    GP_ARRAY,       /* key: array or mipmapped array */
    GP_HANDLE,      /* key: VMM handle; refs: how often it must be released; other: the physical memory */
    GP_PHYSICAL,    /* key: a number of ours; refs: the handles, mappings and exports that keep it */
    GP_MAPPING,     /* key: address; bytes: length; other: the physical memory, 0 for an imported one */
    GP_GRAPH,    /* key: graph and GPU; bytes: of its allocation nodes there; other: those charged for it */
    GP_INSTANCE, /* key: instantiated graph and GPU; bytes: charged for it there */
    GP_CONTEXT,  /* key: context; bytes: charged for it; other: 1 if cuCtxCreate made it */
    GP_BOUND,    /* key: multicast object, GPU and offset; bytes: the object's number; other: the memory's */
    GP_LIMIT,    /* key: context and limit; bytes: charged for it; other: the limit as it was before */
    GP_ENDPOINT, /* key: endpoint, GPU, offset; bytes: the offset; refs: the endpoint; other: the memory's */
};

enum gp_how {
    GP_ALONE,     /* bytes: charged for this block */
    GP_SPAN,      /* a small block that lies in two slabs, which are charged; bytes: its size */
    GP_MULTICAST, /* a GP_PHYSICAL that is a multicast object */
    GP_OF_POOL,   /* its pool is charged; bytes: the pool's number */
};

struct gp_block {
    uint64_t key; /* made by gp_key */
    uint64_t bytes;
    uint64_t other; /* the context whose end frees it, 0 for none; or as the kind says */
    uint32_t refs;
    uint8_t gpu;
    uint8_t how; /* of a GP_POINTER or a GP_PHYSICAL */
};

static inline uint64_t gp_key(enum gp_kind kind, uint64_t name) {
    return (uint64_t)kind << 60 | (name & ((1ull << 60) - 1));
}
static inline enum gp_kind gp_kind_of(const struct gp_block *block) {
    return (enum gp_kind)(block->key >> 60);
}
static inline uint64_t gp_name_of(const struct gp_block *block) {
    return block->key & ((1ull << 60) - 1);
}

/* Remembers a block, in the place of one of the same key. 0: there is no memory for it. */
int gp_blocks_put(const struct gp_block *block);

/* Forgets a block and says what it was. 0: unknown. */
int gp_blocks_take(uint64_t key, struct gp_block *was);

/* What a block is. 0: unknown. */
int gp_blocks_see(uint64_t key, struct gp_block *is);

/* One reference more; the block is made, with one, where it is unknown. Its references now; 0: no memory. */
uint32_t gp_blocks_join(const struct gp_block *block);

/* One reference less; the block is forgotten with its last. What it was before, in *was; 0: unknown. */
int gp_blocks_leave(uint64_t key, struct gp_block *was);

/* Forgets all blocks that `pick` picks, and calls `gone` for each, outside of any lock. */
void gp_blocks_sweep(int (*pick)(const struct gp_block *, const void *what), const void *what,
                     void (*gone)(const struct gp_block *, void *with), void *with);

#endif
