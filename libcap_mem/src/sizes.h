// SPDX-License-Identifier: Apache-2.0
#ifndef GP_SIZES_H
#define GP_SIZES_H
#include "abi.h"

enum {
    GP_PAGE = 2 << 20,          /* the driver's unit, where it does not name a larger one */
    GP_LARGEST_PAGE = 64 << 20, /* a larger one is no page */
    GP_LARGE = 1 << 20,         /* from here on a block has pages of its own; smaller ones may share */
    GP_POOL_CHUNK = 32 << 20,   /* what a pool takes at a time, until it shows otherwise */
    GP_PITCH = 512,             /* rows are padded to a multiple of it, as a rule */
};

/* Larger than any GPU, and small enough that sums do not overflow. */
#define GP_ENDLESS (1ull << 48)

/* Rounds up to a multiple; GP_ENDLESS for what is beyond it. A division takes as long as a dozen other
 * instructions, and nearly every multiple is a power of two. */
static inline uint64_t gp_round_up(uint64_t bytes, uint64_t multiple) {
    uint64_t up = bytes + multiple - 1;
    if (bytes >= GP_ENDLESS)
        return GP_ENDLESS;
    return multiple & (multiple - 1) ? up / multiple * multiple : up & -multiple;
}

/* a × b, GP_ENDLESS at most. */
uint64_t gp_times(uint64_t a, uint64_t b);

/* Bytes that an array of these extents and levels takes at most. 0 for one that takes none now (sparse,
 * deferred). */
uint64_t gp_array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned levels);

#endif
