// SPDX-License-Identifier: Apache-2.0
/* This process's cell: how it gets one, what it remembers of it, how it notices that it has lost it. */
#ifndef GP_CELL_H
#define GP_CELL_H
#include "ledger.h"
#include "total.h"

enum gp_cell_state { GP_NO_CELL, GP_CELL_BUSY, GP_CELL_READY };

struct gp_own_lane {                         /* lines of its own: its thread writes them at every call */
    uint32_t busy;                           /* a thread of this process is in it */
    struct gp_lane_state state[GP_MAX_GPUS]; /* written by who is in the lane */
} __attribute__((aligned(64)));

/* All zero means: no cell yet. That is what a forked child finds, since the kernel wipes the page. */
struct gp_own {
    uint32_t state;
    uint32_t cell;
    uint32_t losses;
    int fd; /* our open file description, which holds the locks */
    long pid;
    uint64_t generation;
    uint32_t heeding;              /* a thread does what the policy says of unseen memory */
    uint64_t heeded[GP_MAX_GPUS];  /* the last word of the policy that was done */
    uint64_t unseen[GP_MAX_GPUS];  /* of what we hold, what it told us to charge */
    uint64_t carried[GP_MAX_GPUS]; /* held in a cell that was lost, to be charged to the next one */
    struct gp_own_lane lane[GP_LANES];
};

/* Has a pointer computed once. Compilers see that its parts are common to several, and add them up anew at
 * every use. */
#define GP_WHOLE(pointer) __asm__("" : "+r"(pointer))

/* A lane of ours on one GPU: where its parts lie, here and in the file. Found once a call, before the first
 * look at anything shared. */
struct gp_seat {
    gp_ledger_gpu *block;
    gp_lane *at;
    struct gp_lane_state *state;
    const uint64_t *generation, *voided; /* of the cell */
};

static inline struct gp_seat gp_seat_of(const struct gp_ledger *ledger, struct gp_own *own, unsigned lane,
                                        unsigned gpu) {
    gp_ledger_file *file = ledger->file;
    gp_ledger_gpu *block = &file->gpu[gpu];
    unsigned cell = own->cell;
    gp_lane *at = &block->lane[cell][lane];
    struct gp_lane_state *state = &own->lane[lane].state[gpu];
    GP_WHOLE(at);
    GP_WHOLE(state);
    GP_WHOLE(block);
    return (struct gp_seat){.block = block,
                            .at = at,
                            .state = state,
                            .generation = &file->cell[cell].generation,
                            .voided = &block->share[cell].voided};
}

/* What this process has, made if need be. NULL: none to be had, ledger->problem says why. */
struct gp_own *gp_cell_claim(struct gp_ledger *ledger);

/* What this process has, or NULL if it has accounted nothing so far. No system call, unless fork is noticed
 * by one. */
struct gp_own *gp_cell_peek(const struct gp_ledger *ledger);

/* Whether the cell is still ours, and the lane on this GPU as we left it. */
int gp_cell_intact(const struct gp_ledger *ledger, struct gp_own *own, unsigned lane, unsigned gpu);

/* The same for who is in the lane. `generation`: of our cell. */
int gp_seat_intact(struct gp_seat seat, uint64_t generation);

/* It was not: what we hold is carried to another cell by the next claim. */
void gp_cell_lose(struct gp_ledger *ledger, struct gp_own *own);

/* Takes out what dead processes left on this GPU. `fd`: an open file description of the ledger; `except`: the
 * cell that is its own, whose locks it does not see, or GP_CELLS. */
void gp_cell_sweep(gp_ledger_file *file, gp_ledger_gpu *gpu, int fd, unsigned except);

/* A free lane, now ours; preferably always the same one for the same thread. -1: none for a long time. */
int gp_lane_enter(struct gp_own *own);
int gp_lane_try(struct gp_own *own, unsigned lane);
void gp_lane_leave(struct gp_own *own, unsigned lane);
unsigned gp_lane_of_thread(void);

#endif
