// SPDX-License-Identifier: Apache-2.0
/* The total of one GPU and the shares that it is the sum of: the algorithm itself. Knows neither limits nor
 * who lives; makes no system call but a pause under contention. */
#ifndef GP_TOTAL_H
#define GP_TOTAL_H
#include "region.h"

#define GP_NUMBERS 0xffffffffffffull /* of changes and of generations: 48 bits */
#define GP_ROUNDS (1 << 18) /* every loop ends, whatever a hostile neighbour writes: within some 15 s */

struct gp_sight { /* a total as it was seen; `used` belongs to `tag` only as long as the tag stands */
    uint64_t used, tag;
};

struct gp_lane_state {   /* what a lane's owner knows of it without looking */
    uint64_t done, held; /* `held`: in use, without what the lane keeps */
};

/* Looks, and settles the change that it sees. */
struct gp_sight gp_look(gp_ledger_gpu *gpu);

/* Bytes of the total that are a cell's: exact as long as the total's tag stands. */
uint64_t gp_charged_to(const gp_ledger_file *file, const gp_ledger_gpu *gpu, unsigned cell);

/* The same without what its lanes keep: what its processes hold. */
uint64_t gp_share_of(const gp_ledger_file *file, const gp_ledger_gpu *gpu, unsigned cell);

/* Bytes that the processes hold: the total without what is kept. Exact, if nothing changes meanwhile. */
uint64_t gp_in_use(const gp_ledger_file *file, gp_ledger_gpu *gpu);

/* Takes out what generation `generation` left in a cell whose owner is dead. By anybody, by many, at any
 * time. */
void gp_take_out(gp_ledger_file *file, gp_ledger_gpu *gpu, unsigned cell, uint64_t generation);

/* Takes out what a lane keeps, and closes it: it keeps nothing until its owner opens it. By anybody, by many,
 * at any time. */
void gp_drain(gp_ledger_file *file, gp_ledger_gpu *gpu, unsigned cell, unsigned lane);

/* From now on it keeps no more than it does; its word. */
uint64_t gp_close_lane(gp_lane *lane);

/* gp_drain for all lanes. 0: there was nothing to do, all are closed and empty. */
int gp_drain_all(gp_ledger_file *file, gp_ledger_gpu *gpu);

/* One try to make the total `used`, as the next change of a lane that the caller holds and of which `held`
 * bytes are then in use. */
int gp_try_change(gp_ledger_gpu *gpu, unsigned cell, unsigned lane, struct gp_lane_state *own,
                  struct gp_sight seen, uint64_t used, uint64_t held);

/* Sets the total to the sum of the shares, which it is unless somebody scribbled. */
void gp_mend(gp_ledger_file *file, gp_ledger_gpu *gpu, unsigned cell, unsigned lane,
             struct gp_lane_state *own);

/* Raises a word that only grows. */
void gp_raise(uint64_t *word, uint64_t to);

#endif
