// SPDX-License-Identifier: Apache-2.0
/* Runs the ledger's own sources under a scheduler that decides, before each access to shared memory and each
 * lock call, who makes it, who dies, and when the limit moves.
 *
 *   ledger_explore all LIMIT PREEMPTIONS KILLS RESIZES SCRIPT...   every schedule within these bounds
 *   ledger_explore random SEED RUNS STEPS                          long ones: kills, stops, forks, resizes,
 * threads; `resizing`: two in need of the last byte, and a limit that moves; `keeping`: some at the limit,
 * who give back and take again
 *
 * SCRIPT, one a process: rN reserve, fN free if so much is held, cN charge, u ask for the use; before '|'
 * nobody interferes; X dies; A+B: two threads. Exit status 1 and the last steps on a violation.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "world.h"

#define STACK 65536
#define DEEPEST 200000
#define TRACE 400

static struct routine {
    ucontext_t context;
    const char *script;
    int prelude;
    int fresh; /* started and not yet entered: whatever ran on its stack is dead */
    long stopped_until;
} routine[THREADS];
static ucontext_t outside;
static char *stacks; /* at a fixed address: a thread's lane follows from its stack's, and runs must repeat */
static int (*choose)(int spinning); /* the next thread, or -1: none is left */
static long runs, steps;
static struct {
    int thread;
    const char *access;
} trace[TRACE];

_Noreturn void violation(const char *what) {
    printf("VIOLATION: %s (run %ld, thread %d)\n", what, runs, current);
    for (long i = steps > TRACE ? steps - TRACE : 0; i < steps; i++)
        printf("  thread %d: %s\n", trace[i % TRACE].thread, trace[i % TRACE].access);
    exit(1);
}

static void go_to(int next) {
    int from = current, restarted = routine[from].fresh;
    if (next == from && !restarted)
        return;
    ucontext_t *to = next < 0 ? &outside : &routine[next].context;
    current = next;
    if (next >= 0)
        routine[next].fresh = 0;
    if (restarted)
        setcontext(to); /* what went on here died: it must not be kept over what was just prepared */
    swapcontext(&routine[from].context, to);
}

/* After a load there is nothing new to judge. */
void explore_step(const char *access) {
    static int changed;
    if (changed)
        world_observe();
    if (!routine[current].prelude)
        go_to(choose(0));
    changed = strncmp(access, "load", 4) != 0;
    trace[steps % TRACE].thread = current;
    trace[steps++ % TRACE].access = access;
    thread[current].steps++;
    if (!strcmp(access, "load gpu->total.tag"))
        world_look();
}

void explore_pause(void) {
    world_observe();
    if (!routine[current].prelude)
        go_to(choose(1));
}

static void obey(const char **at) {
    char verb = *(*at)++;
    uint64_t bytes = strchr("rfc", verb) ? (uint64_t)(*(*at)++ - '0') : 0;
    switch (verb) {
    case 'r':
        call_reserve(bytes);
        break;
    case 'c':
        call_charge(bytes);
        break;
    case 'f':
        if (world_holds(thread[current].process) >= bytes)
            call_release(bytes);
        break;
    case 'u':
        call_used();
        break;
    case 'X':
        world_kill(thread[current].process);
        break;
    default:
        fprintf(stderr, "ledger_explore: no such step: %c\n", verb);
        exit(2);
    }
}

static void follow_script(void) {
    struct routine *self = &routine[current];
    while (*self->script && *self->script != '+' && thread[current].live) {
        if (*self->script == '|') {
            self->script++;
            self->prelude = 0;
            swapcontext(&self->context, &outside);
        } else
            obey(&self->script);
    }
    thread[current].live = 0;
    if (self->prelude)
        setcontext(&outside);
    go_to(choose(0));
}

static void start(int i, int p, const char *script, void (*body)(void)) {
    struct routine *r = &routine[i];
    char *stack = stacks + (size_t)i * STACK;
    *r = (struct routine){.script = script, .fresh = 1};
    r->prelude = script && strchr(script, '|');
    thread[i] = (struct thread){.process = p, .live = 1};
    getcontext(&r->context);
    r->context.uc_stack.ss_sp = stack;
    r->context.uc_stack.ss_size = STACK;
    makecontext(&r->context, body, 0);
}

static void run_until_back(int first) {
    current = first;
    routine[first].fresh = 0;
    swapcontext(&outside, &routine[first].context);
}

/* All schedules: the choices of one run are a path; the next run takes the path's last choice that has an
 * untried alternative, and tries it. */
static struct {
    unsigned char taken, width;
} path[DEEPEST];
static int known, at, preemptions, kills, resizes;

static int take_choice(int width) {
    if (at == DEEPEST)
        violation("does not end");
    if (at == known)
        path[known++].taken = 0;
    path[at].width = (unsigned char)width;
    return path[at++].taken;
}

enum { KILL = 100, RESIZE = 200 };
enum { BEGINNING = 2 }; /* for `spinning`: nobody runs yet, any may be the first */

static int list_options(int option[], int spinning) {
    int can = thread[current].live, others = 0, n = 0;
    for (int i = 0; i < threads; i++)
        others += i != current && thread[i].live;
    int stays = can && spinning != BEGINNING && !(spinning && others);
    if (stays)
        option[n++] = current;
    if (!stays || preemptions > 0)
        for (int k = spinning == BEGINNING ? 0 : 1; k < threads; k++)
            if (thread[(current + k) % threads].live)
                option[n++] = (current + k) % threads;
    for (int p = 0; p < PROCESSES && kills > 0 && n; p++)
        if (process[p].alive)
            option[n++] = KILL + p;
    if (resizes > 0 && n)
        option[n++] = RESIZE;
    return n;
}

static uint64_t full_limit;
unsigned long explore_shut; /* how many lanes stay closed after one was closed: GP_KEPT_SHUT */

static int choose_all(int spinning) {
    int option[THREADS + PROCESSES + 1], n;
    while ((n = list_options(option, spinning)) > 0) {
        int chosen = option[take_choice(n)];
        if (chosen == RESIZE) {
            resizes--;
            world_resize(limit_now() == full_limit ? full_limit - 1 : full_limit);
        } else if (chosen >= KILL) {
            kills--;
            world_kill(chosen - KILL);
        } else {
            if (chosen != current && thread[current].live && !spinning)
                preemptions--;
            return chosen;
        }
    }
    return -1;
}

static void start_scripts(char **script, int n) {
    for (int p = 0; p < n; p++) {
        start(threads++, p, script[p], follow_script);
        const char *second = strchr(script[p], '+');
        if (second)
            start(threads++, p, second + 1, follow_script);
    }
    for (int i = 0; i < threads; i++)
        if (routine[i].prelude)
            run_until_back(i);
}

static void explore_all(char **bound, char **script, int n) {
    full_limit = strtoull(bound[0], 0, 10);
    choose = choose_all;
    do {
        runs++;
        world_reset(full_limit, n);
        tally.kills = tally.forks = 0;
        at = steps = preemptions = kills = resizes = 0;
        start_scripts(script, n);
        preemptions = atoi(bound[1]), kills = atoi(bound[2]), resizes = atoi(bound[3]);
        current = 0;
        int first = choose_all(BEGINNING);
        if (first >= 0)
            run_until_back(first);
        while (known && path[known - 1].taken + 1 >= path[known - 1].width)
            known--;
        if (known)
            path[known - 1].taken++;
    } while (known);
}

/* Random ones. */
static uint64_t seed;
static long step_limit, alone_since;
static int switch_odds, kill_odds, resize_odds, longest_stop, most_bytes, two_threads, alone, resizing,
    keeping;

static unsigned rnd(unsigned n) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (unsigned)(seed >> 20) % n;
}

static void do_anything(void) {
    for (;;) {
        unsigned what = rnd(16);
        uint64_t held = world_holds(thread[current].process), bytes = 1 + rnd((unsigned)most_bytes);
        if (keeping)
            held && (held > 2 || rnd(2)) ? call_release(1)
                                         : (void)(rnd(8) ? call_reserve(1) : call_charge(1));
        else if (resizing)
            held ? call_release(held) : (void)call_reserve(1);
        else if (what < 8)
            call_reserve(bytes);
        else if (what == 8)
            call_charge(1);
        else if (what == 9)
            call_used();
        else if (held >= bytes ||
                 !two_threads) /* giving back too much is tried where nobody else's is taken */
            call_release(bytes);
    }
}

static void start_threads_of(int p) {
    for (int i = 0; i < threads; i++)
        if (thread[i].process == p)
            start(i, p, 0, do_anything);
}

static void disturb(void) {
    int n = threads >> two_threads, p = (int)rnd((unsigned)n), q = (int)rnd((unsigned)n);
    if (!resizing && !keeping && rnd((unsigned)kill_odds) == 0 && process[p].alive)
        world_kill(p);
    if (rnd((unsigned)kill_odds / 2) == 0 && !process[q].alive) {
        if (process[p].alive && rnd(2))
            world_fork(p, q);
        else
            world_start(q);
        start_threads_of(q);
    }
    if (rnd((unsigned)resize_odds) == 0)
        world_resize(resizing || keeping || rnd(4) ? full_limit - rnd(2) : rnd(7));
    if (rnd(100) == 0)
        routine[rnd((unsigned)threads)].stopped_until = steps + rnd((unsigned)longest_stop);
}

/* Now and then everybody else stops where he is: the call in flight must end all the same, and soon. */
static int stay_alone(void) {
    static long calls;
    if (!alone && rnd(300) == 0 && thread[current].live && thread[current].want && !two_threads) {
        alone = 1, alone_since = steps, calls = thread[current].calls;
    }
    if (alone && (thread[current].calls != calls || !thread[current].want))
        alone = 0;
    if (alone && steps - alone_since > 2000)
        violation("a call does not end, though nobody interferes");
    return alone;
}

static int choose_random(int spinning) {
    if (steps >= step_limit)
        return -1;
    if (stay_alone())
        return current;
    disturb();
    int stopped = routine[current].stopped_until > steps;
    if (thread[current].live && !spinning && !stopped && rnd((unsigned)switch_odds))
        return current;
    for (int tries = 0; tries < 50; tries++) {
        int next = (int)rnd((unsigned)threads);
        if (thread[next].live && routine[next].stopped_until <= steps)
            return next;
        steps++;
    }
    return thread[current].live ? current : -1;
}

static int draw_settings(void) {
    explore_shut = rnd(4) == 0;
    if (keeping) {
        switch_odds = 1 + (int)rnd(16);
        kill_odds = 1000;
        resize_odds = rnd(2) ? 10 + (int)rnd(40) : 100000;
        longest_stop = rnd(3) ? 100 : 1000;
        full_limit = 2 + rnd(4);
        return 2 + (int)rnd(PROCESSES - 1);
    }
    two_threads = !resizing && rnd(3) == 0;
    switch_odds = 1 + (int)rnd(resizing ? 16 : 8);
    kill_odds = 30 + (int)rnd(300);
    resize_odds = resizing ? 15 + (int)rnd(45) : rnd(4) ? 40 + (int)rnd(400) : 3 + (int)rnd(8);
    longest_stop = rnd(3) ? 300 : 3000;
    most_bytes = 1 + (int)rnd(3);
    full_limit = resizing ? 2 : 2 + rnd(5);
    return resizing ? 2 : 2 + (int)rnd(PROCESSES - 1);
}

static void explore_random(uint64_t first_seed, long count, long length) {
    choose = choose_random;
    step_limit = length;
    for (runs = 0; runs < count; runs++) {
        seed = (first_seed + (uint64_t)runs) * 0x9E3779B97F4A7C15ull | 1;
        rnd(2), rnd(2);
        int n = draw_settings();
        world_reset(full_limit, n);
        steps = alone = 0;
        for (int p = 0; p < n; p++)
            for (int i = 0; i <= two_threads; i++)
                start(threads++, p, 0, do_anything);
        run_until_back(0);
    }
}

int main(int argc, char **argv) {
    stacks = mmap((void *)0x200000000000, THREADS * STACK, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (stacks == MAP_FAILED)
        return perror("mmap"), 2;
    if (argc > 6 && argc - 6 <= PROCESSES && !strcmp(argv[1], "all"))
        explore_all(argv + 2, argv + 6, argc - 6);
    else if (argc == 5 && (!strcmp(argv[1], "random") || (resizing = !strcmp(argv[1], "resizing")) ||
                           (keeping = !strcmp(argv[1], "keeping"))))
        explore_random(strtoull(argv[2], 0, 10), atol(argv[3]), atol(argv[4]));
    else
        return fprintf(stderr, "usage: see the first lines of explore.c\n"), 2;
    printf("no violation: %ld runs, %ld grants, %ld refusals, %ld without a cell, %ld dead shares taken out, "
           "%ld times something kept, %ld times drained, longest call %ld steps\n",
           runs, tally.grants, tally.refusals, tally.full, tally.taken_out, tally.kept, tally.drained,
           tally.longest_call);
    return 0;
}
