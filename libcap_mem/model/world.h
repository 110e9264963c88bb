// SPDX-License-Identifier: Apache-2.0
/* The world that the explored ledger lives in: processes with threads, descriptors, locks, deaths; and the
 * truth, kept apart from the ledger, against which every change is judged. */
#ifndef GP_WORLD_H
#define GP_WORLD_H
#include <stdint.h>

#include "cell.h"

#define PROCESSES 4
#define THREADS 8

struct process {
    struct gp_ledger ledger;
    struct gp_own own;
    int alive;
};

struct thread {
    int process, live;
    int64_t want;      /* bytes of the call in flight; 0: none */
    int obeys;         /* it asks for room under the limit */
    int granted;       /* its change is made */
    int could_grant;   /* there was room at a moment since it last looked at the total */
    int could_refuse;  /* there was none at a moment since it began, what was dead by then taken out */
    unsigned dead;     /* cells, by bit, whose share was a dead one's when it began */
    unsigned taken;    /* cells, by bit, that somebody else owned at a moment since */
    int64_t given;     /* bytes given back so far */
    long steps, calls; /* of the call in flight; calls begun */
};

extern struct process process[PROCESSES];
extern struct thread thread[THREADS];
extern int threads, current;
extern uint64_t limit_now(void);

_Noreturn void violation(const char *what);

void world_reset(uint64_t limit, int processes);
void world_start(int p);                /* a new program */
void world_fork(int parent, int child); /* the child inherits every descriptor */
void world_kill(int p);
void world_resize(uint64_t limit);
uint64_t world_holds(int p); /* bytes of device memory that it has */

/* Judges what the last access did. To be called between any two accesses. */
void world_observe(void);
/* The thread is about to look at the total. */
void world_look(void);

enum gp_verdict call_reserve(uint64_t bytes);
enum gp_verdict call_charge(uint64_t bytes);
void call_release(uint64_t bytes);
void call_used(void);

struct tally {
    long grants, refusals, full, taken_out, drained, kept, kills, forks, resizes, longest_call;
};
extern struct tally tally;

/* Of the scheduler: one access is about to be made; the thread waits for another. */
void explore_step(const char *access);
void explore_pause(void);

#endif
