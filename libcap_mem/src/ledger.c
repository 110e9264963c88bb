// SPDX-License-Identifier: Apache-2.0
/* The hooks' calls. A grant is one change of the total (total.c) made through a lane of this process's cell
 * (cell.c); a refusal first takes out what the dead left, then is decided on a total and a limit that were
 * true together.
 *
 * What is freed stays with the lane where there is room enough, and the next grant is made of it (kept.h):
 * then the total is looked at, but not changed.
 *
 * Lanes never go below zero: who frees what a sibling thread took, takes it from the sibling's lane. So a
 * cell's share cannot be negative, and a process cannot give back what it does not hold.
 */
#include "ledger.h"

#include <errno.h>
#include <time.h>

#include "cell.h"
#include "keeping.h"
#include "os.h"
#include "shared_word.h"
#include "unseen.h"

enum outcome { REFUSED, DONE, STUCK, LOST, MOVED };

#define MOST_MOVES 4 /* how often a call follows its cell to a new one */
#define DRY_ROUNDS 8 /* looks over all lanes that find nothing, before bytes are taken for not ours */

static const char *const STARVED = "its accounting changes faster than it can be followed";
static const char *const NO_SUCH_GPU = "its accounting has no such GPU";

uint64_t gp_limit(const struct gp_ledger *ledger, unsigned gpu) {
    return gpu < ledger->gpus ? GP_LOAD(ledger->policy->gpu[gpu].limit) : 0;
}

static uint64_t own_bytes(const struct gp_own *own, unsigned gpu) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < GP_LANES; i++)
        sum += __atomic_load_n(&own->lane[i].state[gpu].held, __ATOMIC_RELAXED);
    return sum;
}

/* Our own bytes are part of the total: while that is not above our peak, they need not be summed up. What our
 * lanes keep is part of the peak, so that a grant made of it need not be noted. */
static void note_peak(struct gp_ledger *ledger, const struct gp_own *own, unsigned gpu, uint64_t used) {
    gp_ledger_gpu *block = &ledger->file->gpu[gpu];
    gp_raise(&block->peak, used);
    if (used > GP_LOAD(block->share[own->cell].peak))
        gp_raise(&block->share[own->cell].peak, gp_charged_to(ledger->file, block, own->cell));
}

/* 0: the descriptor is not ours any more, so nothing can be asked by it. */
static int sweep(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu) {
    gp_ledger_gpu *block = &ledger->file->gpu[gpu];
    int kept = errno, ours = gp_os_is(own->fd, ledger->id);
    if (ours) {
        gp_cell_sweep(ledger->file, block, own->fd, own->cell);
        gp_mend(ledger->file, block, own->cell, lane, &own->lane[lane].state[gpu]);
    }
    errno = kept;
    return ours;
}

/* `obey`: whether the limit is asked. It is read after the total was seen; if the tag then still stands, both
 * were true at one moment. Before a refusal nothing is kept anywhere, and the dead hold nothing. */
static enum outcome grow(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu,
                         uint64_t bytes, int obey) {
    gp_ledger_gpu *block = &ledger->file->gpu[gpu];
    struct gp_lane_state *state = &own->lane[lane].state[gpu];
    for (int round = 0, swept = 0; round < GP_ROUNDS; round++) {
        struct gp_sight seen = gp_look(block);
        if (!gp_cell_intact(ledger, own, lane, gpu))
            return LOST;
        if (!obey || gp_fits(seen.used, bytes, gp_limit(ledger, gpu))) {
            if (gp_try_change(block, own->cell, lane, state, seen, seen.used + bytes, state->held + bytes)) {
                note_peak(ledger, own, gpu, seen.used + bytes);
                return DONE;
            }
            gp_os_pause(round);
        } else if (gp_drain_all(ledger->file, block)) {
            continue;
        } else if (!swept) {
            if (!sweep(ledger, own, lane, gpu))
                return LOST;
            swept = 1;
        } else if (!gp_fits(seen.used, bytes, gp_limit(ledger, gpu)) &&
                   GP_LOAD(block->total.tag) == seen.tag) {
            return REFUSED;
        }
    }
    return STUCK;
}

/* What the lane keeps and is not enough goes back first: peaks are of totals. */
static enum outcome grow_lane(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu,
                              uint64_t bytes, int obey) {
    gp_ledger_gpu *block = &ledger->file->gpu[gpu];
    if (gp_take_kept(ledger, own, lane, gpu, bytes, obey))
        return DONE;
    if (gp_kept(GP_LOAD(block->lane[own->cell][lane].kept)))
        gp_drain(ledger->file, block, own->cell, lane);
    return grow(ledger, own, lane, gpu, bytes, obey);
}

static enum outcome grow_somewhere(struct gp_ledger *ledger, struct gp_own *own, unsigned gpu, uint64_t bytes,
                                   int obey) {
    int lane = gp_lane_enter(own);
    if (lane < 0)
        return STUCK;
    enum outcome outcome = MOVED;
    if (GP_LOAD(own->state) == GP_CELL_READY)
        outcome = grow_lane(ledger, own, (unsigned)lane, gpu, bytes, obey);
    gp_lane_leave(own, (unsigned)lane);
    return outcome;
}

static enum gp_verdict failed(struct gp_ledger *ledger, const char *problem) {
    ledger->problem = problem;
    return GP_FAILED;
}

static __attribute__((noinline)) enum gp_verdict take(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes,
                                                      int obey) {
    if (gpu >= ledger->gpus)
        return failed(ledger, NO_SUCH_GPU);
    if (bytes >> 62) /* more than any machine has; keeps sums from wrapping */
        return GP_REFUSED;
    for (int move = 0; move < MOST_MOVES; move++) {
        struct gp_own *own = gp_cell_claim(ledger);
        if (!own)
            return GP_FAILED;
        gp_unseen_heed(ledger, own, gpu);
        enum outcome outcome = grow_somewhere(ledger, own, gpu, bytes, obey);
        if (outcome <= DONE)
            return outcome == DONE ? GP_GRANTED : GP_REFUSED;
        if (outcome == STUCK)
            break;
        if (outcome == LOST)
            gp_cell_lose(ledger, own);
    }
    return failed(ledger, STARVED);
}

/* As a rule the thread's own lane keeps enough. 0: the long way is to decide. */
static inline int take_at_once(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes) {
    struct gp_own *own = ledger->own;
    if (gpu >= ledger->gpus || ledger->ask_pid || GP_LOAD(own->state) != GP_CELL_READY ||
        gp_unseen_news(ledger, own, gpu))
        return 0;
    unsigned lane = gp_lane_of_thread();
    if (!gp_lane_try(own, lane))
        return 0;
    int granted = GP_LOAD(own->state) == GP_CELL_READY && gp_take_kept(ledger, own, lane, gpu, bytes, 1);
    gp_lane_leave(own, lane);
    return granted;
}

enum gp_verdict gp_reserve(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes) {
    return __builtin_expect(take_at_once(ledger, gpu, bytes), 1) ? GP_GRANTED : take(ledger, gpu, bytes, 1);
}

enum gp_verdict gp_charge(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes) {
    return take(ledger, gpu, bytes, 0);
}

void gp_heed(struct gp_ledger *ledger, unsigned gpu) {
    struct gp_own *own = gpu < ledger->gpus ? gp_cell_peek(ledger) : 0;
    if (own)
        gp_unseen_heed(ledger, own, gpu);
}

static enum outcome shrink(struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu,
                           uint64_t *bytes) {
    gp_ledger_gpu *block = &ledger->file->gpu[gpu];
    struct gp_lane_state *state = &own->lane[lane].state[gpu];
    uint64_t part = *bytes < state->held ? *bytes : state->held;
    gp_lane *at = &block->lane[own->cell][lane];
    if (part && gp_keep(ledger, own, lane, gpu, part)) {
        *bytes -= part;
        return DONE;
    }
    for (int round = 0; part && round < GP_ROUNDS; gp_os_pause(round++)) {
        struct gp_sight seen = gp_look(block);
        if (!gp_cell_intact(ledger, own, lane, gpu))
            return LOST;
        gp_open_lane(ledger, at, gpu, seen.used);
        if (gp_try_change(block, own->cell, lane, state, seen, seen.used - part, state->held - part)) {
            *bytes -= part;
            return DONE;
        }
    }
    gp_close_lane(at);
    return part ? STUCK : REFUSED;
}

/* From the lane of this thread on, once around. DONE: some of it was given back. MOVED: nothing, but not all
 * lanes could be looked into. REFUSED: nothing is held. */
static enum outcome shrink_around(struct gp_ledger *ledger, struct gp_own *own, unsigned gpu,
                                  uint64_t *bytes) {
    unsigned first = gp_lane_of_thread();
    enum outcome found = REFUSED;
    for (unsigned i = 0; i < GP_LANES && *bytes; i++) {
        unsigned lane = (first + i) % GP_LANES;
        if (!__atomic_load_n(&own->lane[lane].state[gpu].held, __ATOMIC_RELAXED))
            continue;
        enum outcome outcome = MOVED;
        if (gp_lane_try(own, lane)) {
            if (GP_LOAD(own->state) == GP_CELL_READY)
                outcome = shrink(ledger, own, lane, gpu, bytes);
            gp_lane_leave(own, lane);
        }
        if (outcome == LOST)
            return LOST;
        if (outcome == DONE || found == REFUSED)
            found = outcome;
    }
    return found;
}

static __attribute__((noinline)) void release(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes) {
    struct gp_own *own = gpu < ledger->gpus ? gp_cell_peek(ledger) : 0;
    for (int round = 0, dry = 0; own && bytes && dry < DRY_ROUNDS && round < GP_ROUNDS; round++) {
        enum outcome outcome = shrink_around(ledger, own, gpu, &bytes);
        if (!bytes)
            return;
        dry += outcome == REFUSED;
        gp_os_pause(round);
        if (outcome == LOST)
            gp_cell_lose(ledger, own);
        own = gp_cell_claim(ledger);
    }
}

/* As a rule the thread's own lane keeps all of it. */
static inline int keep_at_once(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes) {
    struct gp_own *own = ledger->own;
    if (gpu >= ledger->gpus || ledger->ask_pid)
        return 0;
    unsigned lane = gp_lane_of_thread();
    if (!gp_lane_try(own, lane))
        return 0;
    int kept = GP_LOAD(own->state) == GP_CELL_READY && own->lane[lane].state[gpu].held >= bytes &&
               gp_keep(ledger, own, lane, gpu, bytes);
    gp_lane_leave(own, lane);
    return kept;
}

void gp_release(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes) {
    if (!__builtin_expect(keep_at_once(ledger, gpu, bytes), 1))
        release(ledger, gpu, bytes);
}

uint64_t gp_own(const struct gp_ledger *ledger, unsigned gpu) {
    const struct gp_own *own = gp_cell_peek(ledger);
    return own && gpu < ledger->gpus ? own_bytes(own, gpu) : 0;
}

/* A description of its own, so that a process which has accounted nothing can ask who lives, and needs no
 * cell. */
static int probe(const struct gp_ledger *ledger) {
    return gp_os_open(ledger->path, ledger->spare, ledger->id);
}

uint64_t gp_used(const struct gp_ledger *ledger, unsigned gpu) {
    if (gpu >= ledger->gpus)
        return 0;
    gp_ledger_gpu *block = &ledger->file->gpu[gpu];
    const struct gp_own *own =
        gp_cell_peek(ledger); /* alive, even if its descriptor was closed behind our back */
    int kept = errno, fd = probe(ledger);
    if (fd >= 0) {
        gp_cell_sweep(ledger->file, block, fd, own ? own->cell : GP_CELLS);
        gp_os_close(fd);
    }
    errno = kept;
    return gp_in_use(ledger->file, block);
}

static int insert(struct gp_process *out, int count, int room, struct gp_process next) {
    int at = count < room ? count : room - 1;
    if (count == room && out[at].bytes >= next.bytes)
        return count;
    for (; at > 0 && out[at - 1].bytes < next.bytes; at--)
        out[at] = out[at - 1];
    out[at] = next;
    return count < room ? count + 1 : count;
}

int gp_processes(const struct gp_ledger *ledger, unsigned gpu, struct gp_process *out, int room) {
    if (gpu >= ledger->gpus || room <= 0)
        return 0;
    int kept = errno, count = 0, fd = probe(ledger);
    gp_look(&ledger->file->gpu[gpu]);
    for (unsigned cell = 0; fd >= 0 && cell < GP_CELLS; cell++) {
        uint64_t share = gp_share_of(ledger->file, &ledger->file->gpu[gpu], cell);
        struct gp_process next = {(int32_t)GP_LOAD(ledger->file->cell[cell].pid), share};
        if (share && !gp_os_unlocked(fd, GP_CELLS + cell))
            count = insert(out, count, room, next);
    }
    if (fd >= 0)
        gp_os_close(fd);
    errno = kept;
    return count;
}

static void copy_name(char to[GP_API], const char *from) {
    int i = 0;
    for (; from && from[i] && i < GP_API - 1; i++)
        to[i] = from[i];
    for (; i < GP_API; i++)
        to[i] = 0;
}

/* Two writers of one place of the ring, 16 refusals apart, may mix their words: it is a trace, no account. */
void gp_note_refusal(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes, const char *api) {
    if (gpu >= ledger->gpus)
        return;
    gp_ledger_gpu *block = &ledger->file->gpu[gpu];
    const struct gp_own *own = gp_cell_peek(ledger);
    struct timespec now = {0, 0};
    int kept = errno;
    clock_gettime(CLOCK_REALTIME, &now);
    __atomic_add_fetch(&block->refusals, 1, __ATOMIC_RELAXED);
    if (own)
        __atomic_add_fetch(&block->share[own->cell].refusals, 1, __ATOMIC_RELAXED);
    uint64_t number = __atomic_add_fetch(&ledger->file->refusals, 1, __ATOMIC_RELAXED);
    gp_refusal *place = &ledger->file->refusal[(number - 1) % GP_REFUSALS];
    GP_STORE(place->number, 0);
    place->time = (uint64_t)now.tv_sec;
    place->bytes = bytes;
    place->used = gp_in_use(ledger->file, block);
    place->limit = gp_limit(ledger, gpu);
    place->pid = (uint32_t)gp_os_pid();
    place->gpu = gpu;
    copy_name(place->api, api);
    GP_STORE(place->number, number);
    errno = kept;
}

const char *gp_ledger_problem(const struct gp_ledger *ledger) {
    return ledger->problem ? ledger->problem : "its accounting is not set up";
}
