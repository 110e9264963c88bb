// SPDX-License-Identifier: Apache-2.0
/* What the owner of a lane does with what it keeps; the caller is in the lane. Why that is right: kept.h. */
#ifndef GP_KEEPING_H
#define GP_KEEPING_H
#include "cell.h"
#include "kept.h"

static inline int gp_fits(uint64_t used, uint64_t bytes, uint64_t limit) {
    return used <= limit && bytes <= limit - used;
}

/* A grant made of what the lane keeps; `obey`: whether the limit is asked. 0: that is not enough, or the long
 * way is to decide. */
int gp_take_kept(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu, uint64_t bytes,
                 int obey);

/* The lane keeps bytes that are in use no more. 0: it must not, or has enough. */
int gp_keep(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu, uint64_t bytes);

/* A closed lane may keep again, from the owner's next change of the total on; not where the limit is near.
 * `used`: the total as it was seen. */
void gp_open_lane(const struct gp_ledger *ledger, gp_lane *at, unsigned gpu, uint64_t used);

#endif
