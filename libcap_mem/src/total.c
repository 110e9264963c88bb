// SPDX-License-Identifier: Apache-2.0
/* The total of one GPU is changed by one 128-bit compare-and-swap of (bytes, tag). The tag names the change
 * that made it: which lane of which cell, and the how manieth change of that lane. It never comes back, so a
 * swap succeeds only if nothing at all has changed since the look it was decided on.
 *
 * A lane has two buffers. Change n is prepared in buffer n & 1 and counts when the lane's `done` says n.
 * Between the swap and that store its owner may be killed or stopped: so whoever sees a tag first marks the
 * change it names as done ("settles" it), and only then overwrites the tag. At any instant at most one change
 * is unsettled, everybody can see which, and each cell's share is exact, whoever died wherever. Nobody waits
 * for anybody.
 *
 * What a dead process left is taken out in the same way, by one swap whose tag says "cell c, generation g,
 * voided": done by many at once, it succeeds once.
 */
#include "total.h"

#include "os.h"
#include "shared_word.h"

static uint64_t tag_of(uint64_t number, unsigned cell, unsigned lane) {
    return number << 16 | (uint64_t)cell << 8 | lane;
}

void gp_raise(uint64_t *word, uint64_t to) {
    for (int round = 0; round < GP_ROUNDS; round++) {
        uint64_t now = GP_LOAD(*word);
        if (now >= to || GP_CAS(*word, now, to))
            return;
    }
}

/* Compare-and-swap, not a store: who comes late with an old tag must change nothing. */
static void settle(gp_ledger_gpu *gpu, uint64_t tag) {
    unsigned cell = (tag >> 8 & 255) % GP_CELLS, lane = tag & 255;
    uint64_t number = tag >> 16;
    if (lane == GP_VOID) {
        gp_raise(&gpu->share[cell].voided, number);
        return;
    }
    gp_lane *made = &gpu->lane[cell][lane % GP_LANES];
    uint64_t done = GP_LOAD(made->done);
    if (((done + 1) & GP_NUMBERS) == number)
        GP_CAS(made->done, done, number);
}

struct gp_sight gp_look(gp_ledger_gpu *gpu) {
    struct gp_sight seen;
    seen.tag = GP_LOAD(gpu->total.tag);
    seen.used = GP_LOAD(gpu->total.used);
    settle(gpu, seen.tag);
    return seen;
}

uint64_t gp_share_of(const gp_ledger_file *file, const gp_ledger_gpu *gpu, unsigned cell) {
    uint64_t generation = GP_LOAD(file->cell[cell].generation), sum = 0;
    if (generation > GP_NUMBERS || GP_LOAD(gpu->share[cell].voided) >= generation)
        return 0;
    for (unsigned i = 0; i < GP_LANES; i++) {
        const gp_lane *lane = &gpu->lane[cell][i];
        unsigned current = GP_LOAD(lane->done) & 1;
        sum += GP_LOAD(lane->held[current]);
    }
    return sum;
}

static int swap_total(gp_ledger_gpu *gpu, struct gp_sight seen, uint64_t used, uint64_t tag) {
    GP_STEP("swap total");
    return gp_cas128(&gpu->total, (struct gp_pair){seen.used, seen.tag}, (struct gp_pair){used, tag});
}

void gp_take_out(gp_ledger_file *file, gp_ledger_gpu *gpu, unsigned cell, uint64_t generation) {
    uint64_t mark = tag_of(generation, cell, GP_VOID);
    for (int round = 0; round < GP_ROUNDS && generation <= GP_NUMBERS; gp_os_pause(round++)) {
        struct gp_sight seen = gp_look(gpu);
        if (GP_LOAD(file->cell[cell].generation) != generation)
            return; /* a new owner, who has cleaned up */
        uint64_t share = gp_share_of(file, gpu, cell);
        if (!share)
            return;
        if (swap_total(gpu, seen, seen.used - share, mark)) {
            settle(gpu, mark);
            return;
        }
    }
}

int gp_try_change(gp_ledger_gpu *gpu, unsigned cell, unsigned lane, struct gp_lane_state *own,
                  struct gp_sight seen, uint64_t used, uint64_t held) {
    gp_lane *shared = &gpu->lane[cell][lane];
    uint64_t number = (own->done + 1) & GP_NUMBERS;
    GP_STORE(shared->held[number & 1], held);
    if (!swap_total(gpu, seen, used, tag_of(number, cell, lane)))
        return 0;
    own->done = number;
    __atomic_store_n(&own->held, held, __ATOMIC_RELAXED); /* siblings peek at it without the lane */
    GP_STORE(shared->done, number);
    return 1;
}

void gp_mend(gp_ledger_file *file, gp_ledger_gpu *gpu, unsigned cell, unsigned lane,
             struct gp_lane_state *own) {
    struct gp_sight seen = gp_look(gpu);
    uint64_t sum = 0;
    for (unsigned c = 0; c < GP_CELLS; c++)
        sum += gp_share_of(file, gpu, c);
    if (sum != seen.used && gp_try_change(gpu, cell, lane, own, seen, sum, own->held))
        __atomic_add_fetch(&gpu->mended, 1, __ATOMIC_RELAXED);
}
