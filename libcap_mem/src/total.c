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
 * voided": done by many at once, it succeeds once. So is what a lane keeps (kept.h), by a tag that says "the
 * lane, drained after its change n".
 */
#include "total.h"

#include "kept.h"
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

/* While the tag stands, a closed lane that keeps something is one that has not been told yet. */
static void settle_drained(gp_total *total, gp_lane *lane, uint64_t tag) {
    uint64_t word = GP_LOAD(lane->kept);
    if (GP_LOAD(total->tag) == tag && !gp_is_open(word) && gp_kept(word))
        GP_CAS(lane->kept, word, gp_word_drained(word, tag >> 16));
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
    if (lane & GP_DRAINED) {
        settle_drained(&gpu->total, made, tag);
        return;
    }
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

/* Whether there is an owner whose lanes count. */
static int counts(const gp_ledger_file *file, const gp_ledger_gpu *gpu, unsigned cell) {
    uint64_t generation = GP_LOAD(file->cell[cell].generation);
    return generation && generation <= GP_NUMBERS && GP_LOAD(gpu->share[cell].voided) < generation;
}

static uint64_t sum_lanes(const gp_ledger_file *file, const gp_ledger_gpu *gpu, unsigned cell,
                          int with_kept) {
    uint64_t sum = 0;
    if (!counts(file, gpu, cell))
        return 0;
    for (unsigned i = 0; i < GP_LANES; i++) {
        const gp_lane *lane = &gpu->lane[cell][i];
        uint64_t done = GP_LOAD(lane->done), word = GP_LOAD(lane->kept), held = GP_LOAD(lane->held[done & 1]);
        uint64_t unused = gp_drained(word, done) + (with_kept ? 0 : gp_kept(word));
        sum += held > unused ? held - unused : 0;
    }
    return sum;
}

uint64_t gp_charged_to(const gp_ledger_file *file, const gp_ledger_gpu *gpu, unsigned cell) {
    return sum_lanes(file, gpu, cell, 1);
}

uint64_t gp_share_of(const gp_ledger_file *file, const gp_ledger_gpu *gpu, unsigned cell) {
    return sum_lanes(file, gpu, cell, 0);
}

static uint64_t sum_kept(const gp_ledger_file *file, const gp_ledger_gpu *gpu) {
    uint64_t sum = 0;
    for (unsigned cell = 0; cell < GP_CELLS; cell++)
        for (unsigned i = 0; i < GP_LANES && counts(file, gpu, cell); i++)
            sum += gp_kept(GP_LOAD(gpu->lane[cell][i].kept));
    return sum;
}

uint64_t gp_in_use(const gp_ledger_file *file, gp_ledger_gpu *gpu) {
    uint64_t used = 0;
    for (int looks = 0; looks < 4; looks++) {
        struct gp_sight seen = gp_look(gpu);
        uint64_t kept = sum_kept(file, gpu);
        used = seen.used > kept ? seen.used - kept : 0;
        if (GP_LOAD(gpu->total.tag) == seen.tag)
            break;
    }
    return used;
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
        uint64_t share = gp_charged_to(file, gpu, cell);
        if (!share)
            return;
        if (swap_total(gpu, seen, seen.used - share, mark)) {
            settle(gpu, mark);
            return;
        }
    }
}

uint64_t gp_close_lane(gp_lane *lane) {
    uint64_t word = GP_LOAD(lane->kept);
    for (int round = 0; gp_is_open(word) && round < GP_ROUNDS; round++)
        word = GP_CAS(lane->kept, word, gp_word_closed(word)) ? gp_word_closed(word) : GP_LOAD(lane->kept);
    return word;
}

/* What a closed lane keeps changes only with the total: it is what was seen, if the swap succeeds. */
void gp_drain(gp_ledger_file *file, gp_ledger_gpu *gpu, unsigned cell, unsigned lane) {
    gp_lane *at = &gpu->lane[cell][lane];
    for (int round = 0; round < GP_ROUNDS; gp_os_pause(round++)) {
        struct gp_sight seen = gp_look(gpu);
        uint64_t word = gp_close_lane(at), mark = tag_of(GP_LOAD(at->done), cell, GP_DRAINED | lane);
        if (!gp_kept(word) || !counts(file, gpu, cell))
            return;
        if (swap_total(gpu, seen, seen.used - gp_kept(word), mark)) {
            settle(gpu, mark);
            return;
        }
    }
}

int gp_drain_all(gp_ledger_file *file, gp_ledger_gpu *gpu) {
    int found = 0;
    for (unsigned cell = 0; cell < GP_CELLS; cell++) {
        if (!counts(file, gpu, cell))
            continue;
        for (unsigned lane = 0; lane < GP_LANES; lane++) {
            uint64_t word = GP_LOAD(gpu->lane[cell][lane].kept);
            if (!gp_is_open(word) && !gp_kept(word))
                continue;
            if (!found++)
                GP_STORE(gpu->shut, GP_KEPT_SHUT); /* or they open faster than one can close them */
            gp_drain(file, gpu, cell, lane);
        }
    }
    return found;
}

int gp_try_change(gp_ledger_gpu *gpu, unsigned cell, unsigned lane, struct gp_lane_state *own,
                  struct gp_sight seen, uint64_t used, uint64_t held) {
    gp_lane *shared = &gpu->lane[cell][lane];
    uint64_t number = (own->done + 1) & GP_NUMBERS;
    GP_STORE(shared->held[number & 1], held + gp_kept(GP_LOAD(shared->kept)));
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
        sum += gp_charged_to(file, gpu, c);
    if (sum != seen.used && gp_try_change(gpu, cell, lane, own, seen, sum, own->held))
        __atomic_add_fetch(&gpu->mended, 1, __ATOMIC_RELAXED);
}
