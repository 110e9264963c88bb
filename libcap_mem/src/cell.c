// SPDX-License-Identifier: Apache-2.0
/* A process owns its cell by two byte locks of one open file description. Byte c: the right to clean cell c
 * and to own it. Byte GP_CELLS + c: taken after the cleaning, it lives as long as what the cell holds; until
 * then whoever asks is told that what the last owner left may be taken out. Forked children inherit the
 * description, as they inherit the driver's, which keeps device memory alive: so the share stands until the
 * last of them is gone. exec closes both. An application that closes descriptors which are not its own takes
 * our sign of life away: then the share may be taken out, until our next call on that GPU notices and carries
 * it to another cell.
 *
 * Threads share the cell by its lanes: a lane serves one thread at a time, and only threads of this process
 * ever wait for one.
 */
#include "cell.h"

#include <errno.h>

#include "os.h"
#include "shared_word.h"

#define MOST_LOSSES 16 /* beyond, somebody is at war with this ledger: refuse */

static const char *const NOT_OPEN = "its accounting file cannot be opened";
static const char *const TABLE_FULL = "all 256 places for processes are taken";
static const char *const LOST_OFTEN = "its accounting file is being damaged again and again";
static const char *const TOO_BUSY = "another thread did not finish in time";

static int forked_away(const struct gp_ledger *ledger) {
    long pid = ledger->ask_pid ? GP_LOAD(ledger->own->pid) : 0;
    return pid && pid != gp_os_pid();
}

struct gp_own *gp_cell_peek(const struct gp_ledger *ledger) {
    struct gp_own *own = ledger->own;
    return own && GP_LOAD(own->state) == GP_CELL_READY && !forked_away(ledger) ? own : 0;
}

/* Lanes go on counting where their last owner stopped: a number that came back would make a tag come back. */
static uint64_t clean(struct gp_own *own, gp_ledger_file *file, unsigned gpu, unsigned cell,
                      uint64_t generation) {
    gp_ledger_gpu *block = &file->gpu[gpu];
    gp_take_out(file, block, cell, generation);
    for (unsigned i = 0; i < GP_LANES; i++) {
        gp_lane *lane = &block->lane[cell][i];
        GP_STORE(lane->held[0], 0);
        GP_STORE(lane->held[1], 0);
        if (GP_LOAD(lane->done) > GP_NUMBERS) /* scribbled */
            GP_STORE(lane->done, 0);
        GP_STORE(lane->kept, 0);
        own->lane[i].state[gpu] = (struct gp_lane_state){GP_LOAD(lane->done), 0};
    }
    GP_STORE(block->share[cell].peak, 0);
    GP_STORE(block->share[cell].refusals, 0);
    __atomic_store_n(&block->share[cell].unseen, own->unseen[gpu], __ATOMIC_RELAXED); /* from a lost cell */
    uint64_t voided = GP_LOAD(block->share[cell].voided);
    return voided > generation ? voided : generation; /* scribbled, if it is greater */
}

static int move_in(struct gp_ledger *ledger, struct gp_own *own, unsigned cell) {
    gp_cell *home = &ledger->file->cell[cell];
    if (GP_LOAD(home->generation) >= GP_NUMBERS || !gp_os_lock(own->fd, cell))
        return 0;
    uint64_t left = GP_LOAD(home->generation), generation = left;
    for (unsigned gpu = 0; gpu < ledger->gpus; gpu++) {
        uint64_t least = clean(own, ledger->file, gpu, cell, left);
        generation = least > generation ? least : generation;
    }
    if (generation >= GP_NUMBERS || !gp_os_lock(own->fd, GP_CELLS + cell))
        return 0;
    GP_STORE(home->pid, (uint64_t)GP_LOAD(own->pid));
    GP_STORE(home->generation, generation + 1);
    own->cell = cell;
    own->generation = generation + 1;
    return 1;
}

/* The number that was kept for this process, once. */
static int take_place(struct gp_ledger *ledger, const struct gp_own *own) {
    return ledger->place_of == GP_LOAD(own->pid) ? __atomic_exchange_n(&ledger->place, -1, __ATOMIC_RELAXED)
                                                 : -1;
}

static const char *find_home(struct gp_ledger *ledger, struct gp_own *own) {
    if (own->losses >= MOST_LOSSES)
        return LOST_OFTEN;
    int fd = gp_os_open(ledger->path, ledger->spare, ledger->id);
    if (fd < 0)
        return NOT_OPEN;
    own->fd = gp_os_settle(fd, take_place(ledger, own), ledger->id);
    for (unsigned cell = 0; cell < GP_CELLS; cell++)
        if (move_in(ledger, own, cell))
            return 0;
    gp_os_close(own->fd);
    own->fd = -1;
    return TABLE_FULL;
}

static void charge_carried(struct gp_ledger *ledger, struct gp_own *own) {
    for (unsigned gpu = 0; gpu < ledger->gpus; gpu++) {
        uint64_t bytes = GP_SWAP(own->carried[gpu], 0);
        if (bytes)
            gp_charge(ledger, gpu, bytes);
    }
}

static struct gp_own *claim(struct gp_ledger *ledger) {
    struct gp_own *own = ledger->own;
    GP_STORE(own->pid, gp_os_pid()); /* before anybody is busy: a child that inherits the page must tell */
    for (int round = 0; !(GP_STEP("cas state"), gp_cas32(&own->state, GP_NO_CELL, GP_CELL_BUSY)); round++) {
        if (GP_LOAD(own->state) == GP_CELL_READY)
            return own; /* a sibling thread was at it */
        if (round == GP_ROUNDS) {
            ledger->problem = TOO_BUSY;
            return 0;
        }
        gp_os_pause(round);
    }
    const char *problem = find_home(ledger, own);
    GP_STORE(own->state, problem ? GP_NO_CELL : GP_CELL_READY);
    if (problem) {
        ledger->problem = problem;
        return 0;
    }
    charge_carried(ledger, own);
    return own;
}

struct gp_own *gp_cell_claim(struct gp_ledger *ledger) {
    struct gp_own *own = gp_cell_peek(ledger);
    if (own)
        return own;
    if (forked_away(ledger))
        __builtin_memset(ledger->own, 0, sizeof *ledger->own);
    int kept = errno;
    own = claim(ledger);
    errno = kept;
    return own;
}

inline int gp_seat_intact(struct gp_seat seat, uint64_t generation) {
    return GP_LOAD(*seat.generation) == generation && GP_LOAD(*seat.voided) < generation &&
           GP_LOAD(seat.at->done) == seat.state->done;
}

int gp_cell_intact(const struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu) {
    return gp_seat_intact(gp_seat_of(ledger, own, lane, gpu), own->generation);
}

/* The old descriptor stays open: by now its number may belong to another file. */
void gp_cell_lose(struct gp_ledger *ledger, struct gp_own *own) {
    if (!(GP_STEP("cas state"), gp_cas32(&own->state, GP_CELL_READY, GP_CELL_BUSY)))
        return;
    for (unsigned i = 0; i < GP_LANES; i++)
        for (int round = 0; !gp_lane_try(own, i); round++)
            gp_os_pause(round);
    for (unsigned gpu = 0; gpu < ledger->gpus; gpu++) {
        for (unsigned i = 0; i < GP_LANES; i++)
            own->carried[gpu] += own->lane[i].state[gpu].held;
        gp_take_out(ledger->file, &ledger->file->gpu[gpu], own->cell, own->generation);
    }
    own->losses++;
    for (unsigned i = 0; i < GP_LANES; i++)
        gp_lane_leave(own, i);
    GP_STORE(own->state, GP_NO_CELL);
}

/* The generation is read before the question whether its owner lives: what is taken out is what was asked
 * about. */
void gp_cell_sweep(gp_ledger_file *file, gp_ledger_gpu *gpu, int fd, unsigned except) {
    for (unsigned cell = 0; cell < GP_CELLS; cell++) {
        uint64_t generation = GP_LOAD(file->cell[cell].generation);
        if (cell != except && gp_charged_to(file, gpu, cell) && gp_os_unlocked(fd, GP_CELLS + cell))
            gp_take_out(file, gpu, cell, generation);
    }
}

inline unsigned gp_lane_of_thread(void) {
    uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
    return ((uint32_t)(stack >> 16) * 0x9E3779B1u >> 24) % GP_LANES;
}

inline int gp_lane_try(struct gp_own *own, unsigned lane) {
    return !GP_LOAD(own->lane[lane].busy) && !GP_SWAP(own->lane[lane].busy, 1);
}

int gp_lane_enter(struct gp_own *own) {
    unsigned lane = gp_lane_of_thread();
    for (int round = 0; round < GP_ROUNDS; gp_os_pause(round++), lane = (lane + 1) % GP_LANES)
        if (gp_lane_try(own, lane))
            return (int)lane;
    return -1;
}

inline void gp_lane_leave(struct gp_own *own, unsigned lane) {
    GP_STORE(own->lane[lane].busy, 0);
}
