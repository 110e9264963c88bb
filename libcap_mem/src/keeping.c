// SPDX-License-Identifier: Apache-2.0
/* Grants and releases that leave the total as it is: one compare-and-swap of a word that only who is refused
 * elsewhere writes too. */
#include "keeping.h"

#include "shared_word.h"

/* 1: the total, which all that is kept is part of, was within the limit at one moment. */
static inline int within_limit(const gp_ledger_gpu *block, const gp_policy_gpu *policy) {
    uint64_t tag = GP_LOAD(block->total.tag), used = GP_LOAD(block->total.used);
    return gp_fits(used, 0, GP_LOAD(policy->limit)) && GP_LOAD(block->total.tag) == tag;
}

/* Siblings peek at it without the lane. */
static inline void note_held(struct gp_lane_state *state, uint64_t held) {
    __atomic_store_n(&state->held, held, __ATOMIC_RELAXED);
}

inline int gp_take_kept(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu,
                        uint64_t bytes, int obey) {
    const gp_policy_gpu *policy = &ledger->policy->gpu[gpu];
    struct gp_seat seat = gp_seat_of(ledger, own, lane, gpu);
    uint64_t generation = own->generation, word = GP_LOAD(seat.at->kept);
    if (!gp_is_open(word) || bytes % GP_KEPT_UNIT || gp_kept(word) < bytes ||
        !gp_seat_intact(seat, generation) || (obey && !within_limit(seat.block, policy)) ||
        !GP_CAS(seat.at->kept, word, word - bytes / GP_KEPT_UNIT))
        return 0;
    note_held(seat.state, seat.state->held + bytes);
    return 1;
}

/* What the lane was drained of counts until its next change, and open means that there was one since. */
inline int gp_keep(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu,
                   uint64_t bytes) {
    struct gp_seat seat = gp_seat_of(ledger, own, lane, gpu);
    uint64_t generation = own->generation, word = GP_LOAD(seat.at->kept), kept = gp_kept(word) + bytes;
    if (!gp_is_open(word) || bytes % GP_KEPT_UNIT || kept > GP_KEPT_MOST ||
        !gp_seat_intact(seat, generation) ||
        !GP_CAS(seat.at->kept, word, gp_word_keeping(kept, seat.state->done)))
        return 0;
    note_held(seat.state, seat.state->held - bytes);
    return 1;
}

/* 1: somebody needs them closed, and has perhaps not been refused yet. */
static int stays_shut(gp_ledger_gpu *block) {
    uint64_t shut = GP_LOAD(block->shut);
    if (shut)
        GP_CAS(block->shut, shut, shut > GP_KEPT_SHUT ? GP_KEPT_SHUT : shut - 1);
    return shut != 0;
}

void gp_open_lane(const struct gp_ledger *ledger, gp_lane *at, unsigned gpu, uint64_t used) {
    uint64_t word = GP_LOAD(at->kept);
    if (ledger->keeps && !gp_is_open(word) && !gp_kept(word) &&
        gp_fits(used, GP_KEPT_ROOM, gp_limit(ledger, gpu)) && !stays_shut(&ledger->file->gpu[gpu]))
        GP_CAS(at->kept, word, word | GP_KEPT_OPEN);
}
