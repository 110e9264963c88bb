// SPDX-License-Identifier: Apache-2.0
#ifndef GP_SIZES_H
#define GP_SIZES_H
#include "abi.h"

enum {
    GP_SLAB_BYTES = 2 << 20,  /* the driver's physical page, and what small blocks share */
    GP_LARGE = 1 << 20,       /* from here on a block has pages of its own */
    GP_POOL_CHUNK = 32 << 20, /* what a pool takes at a time */
    GP_PITCH = 4096,          /* no row is padded by more */
};

/* Larger than any GPU, and small enough that sums do not overflow. */
#define GP_ENDLESS (1ull << 48)

/* Rounds up to a multiple; GP_ENDLESS for what is beyond it. */
uint64_t gp_round_up(uint64_t bytes, uint64_t multiple);

/* a × b, GP_ENDLESS at most. */
uint64_t gp_times(uint64_t a, uint64_t b);

/* Bytes that an array of these extents and levels takes at most. 0 for one that takes none now (sparse,
 * deferred). */
uint64_t gp_array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned levels);

#endif
