// SPDX-License-Identifier: Apache-2.0
/* What a lane keeps ready: bytes of it in the total that nobody uses. Its owner takes from them, and puts
 * back what it frees, by a change of this one word, and the total, which everybody writes, stays as it is.
 * Whoever finds no room under the limit closes all lanes and takes out what they keep (total.c), so that
 * nobody is refused for what nobody uses.
 *
 *   63      open: the owner may take and put. Closed, the word changes only with the total
 *   62..30  the lane's change after which it was drained, or the latest when something was put
 *   29..15  what it was drained of then, in units. It counts until the lane's next change
 *   14..0   what it keeps, in units
 *
 * A lane is opened only just before a change of the total that its owner makes, and kept closed if that
 * fails: who has seen all lanes closed and empty, and the tag unchanged, knows that all of the total was in
 * use.
 */
#ifndef GP_KEPT_H
#define GP_KEPT_H
#include "region.h"

#ifndef GP_KEPT_MOST
#define GP_KEPT_MOST (64ull << 20) /* bytes of one lane */
#endif
#ifndef GP_KEPT_ROOM
#define GP_KEPT_ROOM (128ull << 20) /* that there must be under the limit for a lane to be opened */
#endif

#ifndef GP_KEPT_SHUT
#define GP_KEPT_SHUT 4096 /* lanes that stay closed after somebody closed some */
#endif

#define GP_KEPT_OPEN (1ull << 63)
#define GP_KEPT_NUMBERS ((1ull << 33) - 1)
#define GP_KEPT_UNITS ((1ull << 15) - 1)

static inline int gp_is_open(uint64_t word) {
    return word >> 63;
}

static inline uint64_t gp_kept(uint64_t word) {
    return (word & GP_KEPT_UNITS) * GP_KEPT_UNIT;
}

/* Bytes that are not the lane's any more, though its change `done` says that they are held. */
static inline uint64_t gp_drained(uint64_t word, uint64_t done) {
    return (word >> 30 ^ done) & GP_KEPT_NUMBERS ? 0 : (word >> 15 & GP_KEPT_UNITS) * GP_KEPT_UNIT;
}

static inline uint64_t gp_word_closed(uint64_t word) {
    return word & ~GP_KEPT_OPEN;
}

static inline uint64_t gp_word_drained(uint64_t word, uint64_t done) {
    return (done & GP_KEPT_NUMBERS) << 30 | (word & GP_KEPT_UNITS) << 15;
}

/* Of an open lane. */
static inline uint64_t gp_word_keeping(uint64_t bytes, uint64_t done) {
    return GP_KEPT_OPEN | (done & GP_KEPT_NUMBERS) << 30 | bytes / GP_KEPT_UNIT;
}

#endif
