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

/* The entry goes before the driver frees, since another thread may be given the same address at once; the
 * charge goes after, since until then the memory is taken. A small block has no entry of its own: its address
 * names its slab. Pointers that we do not know (of an IPC import, say) are the driver's business. */
static inline void gp_free_begins(struct gp_freed *freed, uint64_t address) {
    freed->address = address;
    freed->known = gp_blocks_take(gp_key(GP_POINTER, address), &freed->block);
}

void gp_free_ends(const struct gp_freed *freed, CUresult rc, int stream_ordered);

/* Whether it is cuMemAlloc's, not a pool's. */
int gp_free_is_plain(const struct gp_freed *freed);

/* Gives back what is charged for small blocks in advance. */
void gp_linear_trim(int gpu);

#endif
