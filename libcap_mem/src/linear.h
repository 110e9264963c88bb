// SPDX-License-Identifier: Apache-2.0
#ifndef GP_LINEAR_H
#define GP_LINEAR_H
#include "blocks.h"

/* What a block of a context that has ended was charged, and is to be given back: linear memory and its slabs.
 */
uint64_t gp_linear_charge(const struct gp_block *block);

/* A device pointer on its way back to the driver, by whichever call. */
struct gp_freed {
    uint64_t address;
    struct gp_block block;
    int known; /* 0: a small block, or none of ours */
};

void gp_free_begins(struct gp_freed *freed, uint64_t address);
void gp_free_ends(const struct gp_freed *freed, CUresult rc, int stream_ordered);

/* Whether it is cuMemAlloc's, not a pool's. */
int gp_free_is_plain(const struct gp_freed *freed);

/* Gives back what is charged for small blocks in advance. */
void gp_linear_trim(int gpu);

#endif
