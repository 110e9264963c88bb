// SPDX-License-Identifier: Apache-2.0
/* Processes of several threads take, free and fork on one ledger while they are killed, stopped and their
 * limit is moved. A shadow, which the ledger knows nothing of, says what each of them physically holds:
 * raised after a grant, lowered before a release. Now and then everybody is stopped, and shadow and ledger
 * are compared; then the observer makes each call that there is beside them. What that takes is counted, not
 * timed: accesses to shared words, and pauses, of which there must be none. The machine's other work changes
 * neither.
 *
 *   ledger_storm LEDGER POLICY KILLS SEED      prints one line of JSON at the end, and one to stderr now and
 * then; exit status 1 and a sentence on a violation
 *
 * A worker holds the writing end of a pipe, which its forked children inherit as they do the driver's
 * descriptors: the pipe's end is the end of its memory.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ledger.h"

#define WORKERS 8
#define LANES 2    /* threads of a worker */
#define GRANULE 64 /* the limit, in pieces that workers ask for */
/* Of a call: every lane of every cell is looked at a few times, before a refusal. */
#define MOST_STEPS (4 * GP_CELLS * GP_LANES)

static struct gp_ledger ledger;
static gp_policy *policy;

static struct shadow { /* shared with all */
    struct {
        uint64_t held[LANES];
        uint64_t calls, refusals, forks;
        char failure[120];
    } worker[WORKERS];
} *shadow;

static struct {
    pid_t pid;
    int life; /* reading end: its end says that nobody holds the worker's memory any more */
} worker[WORKERS];
static long kills, stops, checks, resizes;
static unsigned long longest; /* steps of a call beside stopped processes */
static unsigned dice;

_Thread_local unsigned long ledger_steps;
static _Thread_local unsigned long pauses;

/* What the linker puts in the place of gp_os_pause: the storm's `--wrap`. */
void __real_gp_os_pause(int round);
void __wrap_gp_os_pause(int round);
void __wrap_gp_os_pause(int round) {
    pauses++;
    __real_gp_os_pause(round);
}

static _Noreturn void violation(const char *what, uint64_t a, uint64_t b) {
    fprintf(stderr, "violation after %ld kills: %s (%lu, %lu)\n", kills, what, (unsigned long)a,
            (unsigned long)b);
    for (int i = 0; i < WORKERS; i++)
        if (worker[i].pid > 0)
            kill(worker[i].pid, SIGKILL);
    exit(1);
}

/* A worker. */
struct task {
    int worker, lane;
    unsigned dice;
};

static void brief_child(void) {
    if (fork())
        return;
    usleep((useconds_t)(dice % 5000));
    _exit(0);
}

static void take_and_free(struct task *task, uint64_t *held) {
    uint64_t piece = policy->gpu[0].limit / GRANULE + 1, bytes = piece * (1 + rand_r(&task->dice) % 12);
    if (rand_r(&task->dice) % 5 < 3) {
        enum gp_verdict verdict = gp_reserve(&ledger, 0, bytes);
        if (verdict == GP_GRANTED)
            __atomic_add_fetch(held, bytes, __ATOMIC_SEQ_CST);
        else if (verdict == GP_FAILED)
            strncpy(shadow->worker[task->worker].failure, gp_ledger_problem(&ledger), 119);
        else
            shadow->worker[task->worker].refusals++;
    } else if (*held) {
        uint64_t part = bytes < *held ? bytes : *held;
        __atomic_sub_fetch(held, part, __ATOMIC_SEQ_CST);
        gp_release(&ledger, 0, part);
    }
}

static void *work(void *given) {
    struct task *task = given;
    struct gp_process seen[WORKERS];
    for (;;) {
        take_and_free(task, &shadow->worker[task->worker].held[task->lane]);
        __atomic_add_fetch(&shadow->worker[task->worker].calls, 1, __ATOMIC_RELAXED);
        unsigned odd = (unsigned)rand_r(&task->dice) % 4000;
        if (odd == 0) {
            shadow->worker[task->worker].forks++;
            dice = task->dice;
            brief_child();
        } else if (odd < 5)
            gp_used(&ledger, 0);
        else if (odd < 9)
            gp_processes(&ledger, 0, seen, WORKERS);
        else if (odd < 20)
            gp_note_refusal(&ledger, 0, 1, "storm");
    }
    return 0;
}

static _Noreturn void be_worker(int i, unsigned seed) {
    static struct task task[LANES];
    pthread_t id;
    signal(SIGCHLD, SIG_IGN);
    for (int lane = LANES - 1; lane >= 0; lane--) {
        task[lane] = (struct task){i, lane, seed * 31 + (unsigned)lane};
        if (lane && pthread_create(&id, 0, work, &task[lane]))
            _exit(3);
    }
    work(&task[0]);
    _exit(0);
}

/* The observer. */
static void start(int i) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        violation("pipe", 0, 0);
    unsigned seed = (unsigned)rand_r(&dice);
    worker[i].life = ends[0];
    worker[i].pid = fork();
    if (!worker[i].pid) {
        for (int other = 0; other < WORKERS; other++)
            close(worker[other].life);
        be_worker(i, seed);
    }
    close(ends[1]);
}

static int memory_lives(int i) {
    struct pollfd end = {worker[i].life, POLLIN, 0};
    return worker[i].life >= 0 && !(poll(&end, 1, 0) > 0 && end.revents & POLLHUP);
}

/* What is left of a killed worker, if all of it is gone: its place is free. */
static void bury(int i) {
    if (worker[i].pid || memory_lives(i))
        return;
    memset(shadow->worker[i].held, 0, sizeof shadow->worker[i].held);
    if (worker[i].life >= 0)
        close(worker[i].life);
    start(i);
}

static void wait_until_stopped(int i) {
    int status;
    if (waitpid(worker[i].pid, &status, WUNTRACED) != worker[i].pid || !WIFSTOPPED(status))
        violation("a worker ended by itself (which, status)", (uint64_t)i, (uint64_t)status);
}

static void stop_all(void) {
    for (int i = 0; i < WORKERS; i++)
        if (worker[i].pid)
            kill(worker[i].pid, SIGSTOP);
    for (int i = 0; i < WORKERS; i++)
        if (worker[i].pid)
            wait_until_stopped(i);
}

static void go_on(void) {
    for (int i = 0; i < WORKERS; i++)
        if (worker[i].pid)
            kill(worker[i].pid, SIGCONT);
}

static uint64_t held_in_truth(void) {
    uint64_t sum = 0;
    for (int i = 0; i < WORKERS; i++)
        for (int lane = 0; lane < LANES && memory_lives(i); lane++)
            sum += shadow->worker[i].held[lane];
    return sum;
}

/* Everybody stands still. What a resize found in use may stay, but not grow. */
static void compare(uint64_t *allowed) {
    uint64_t held = held_in_truth(), used = ledger.file->gpu[0].total.used, shares = 0;
    for (uint32_t cell = 0; cell < GP_CELLS; cell++)
        shares += gp_ledger_share(ledger.file, 0, cell);
    if (used != shares)
        violation("the total is not the sum of the shares", used, shares);
    if (ledger.file->gpu[0].mended)
        violation("the total had to be mended", ledger.file->gpu[0].mended, 0);
    if (held > used)
        violation("more is held than is accounted", held, used);
    if (used > *allowed)
        violation("more is in use than the limit", used, *allowed);
    for (int i = 0; i < WORKERS; i++)
        if (shadow->worker[i].failure[0])
            violation(shadow->worker[i].failure, 0, 0);
    uint64_t limit = policy->gpu[0].limit;
    *allowed = used > limit ? used : limit;
    checks++;
}

static void ask(int what) {
    struct gp_process seen[WORKERS];
    uint64_t piece = policy->gpu[0].limit / GRANULE;
    if (what == 0 && gp_reserve(&ledger, 0, piece) == GP_GRANTED)
        gp_release(&ledger, 0, piece);
    else if (what == 1 && gp_reserve(&ledger, 0, policy->gpu[0].limit + 1) != GP_REFUSED)
        violation("more than there is was not refused", 0, 0);
    else if (what == 2)
        gp_used(&ledger, 0);
    else if (what == 3)
        gp_processes(&ledger, 0, seen, WORKERS);
    else if (what == 4)
        gp_note_refusal(&ledger, 0, 1, "observer");
}

/* Stopped at any instruction, they delay nobody: the observer's calls end in few steps, and wait for nothing.
 */
static void ask_beside_them(void) {
    for (int what = 0; what < 5; what++) {
        unsigned long steps = ledger_steps, waited = pauses;
        ask(what);
        steps = ledger_steps - steps;
        longest = steps > longest ? steps : longest;
        if (pauses != waited)
            violation("a call waited for a stopped process (which call, pauses)", (uint64_t)what,
                      pauses - waited);
        if (steps > MOST_STEPS)
            violation("a call beside stopped processes took too long (which call, steps)", (uint64_t)what,
                      steps);
    }
}

/* One worker of several threads goes on alone. */
static void let_one_go_on(void) {
    int lucky = rand_r(&dice) % WORKERS;
    if (!worker[lucky].pid)
        return;
    uint64_t began = __atomic_load_n(&shadow->worker[lucky].calls, __ATOMIC_RELAXED);
    kill(worker[lucky].pid, SIGCONT);
    while (__atomic_load_n(&shadow->worker[lucky].calls, __ATOMIC_RELAXED) < began + 200)
        usleep(100);
    stops++;
    kill(worker[lucky].pid, SIGSTOP);
    wait_until_stopped(lucky);
}

/* Several at one moment; each dies when it next gets a processor, and that is waited for once. */
static void kill_some(void) {
    int dying[WORKERS], count = 0;
    for (int i = 0; i < WORKERS; i++)
        if (worker[i].pid && rand_r(&dice) % 2) {
            kill(worker[i].pid, SIGKILL);
            dying[count++] = i;
        }
    kills += count;
    while (count--) {
        waitpid(worker[dying[count]].pid, &(int){0}, 0);
        worker[dying[count]].pid = 0;
    }
}

static void tell(FILE *to) {
    uint64_t calls = 0, refusals = 0, forks = 0;
    for (int i = 0; i < WORKERS; i++) {
        calls += shadow->worker[i].calls;
        refusals += shadow->worker[i].refusals;
        forks += shadow->worker[i].forks;
    }
    fprintf(to,
            "{\"kills\": %ld, \"calls\": %lu, \"refusals\": %lu, \"forks\": %lu, \"checks\": %ld, "
            "\"alone\": %ld, \"resizes\": %ld, \"longest_steps\": %lu}\n",
            kills, (unsigned long)calls, (unsigned long)refusals, (unsigned long)forks, checks, stops,
            resizes, longest);
}

static void storm(long wanted) {
    uint64_t full = policy->gpu[0].limit, allowed = full;
    for (int i = 0; i < WORKERS; i++)
        start(i);
    while (kills < wanted) {
        usleep((useconds_t)(rand_r(&dice) % 4000));
        stop_all();
        compare(&allowed);
        ask_beside_them();
        if (checks % 50 == 0)
            tell(stderr);
        if (rand_r(&dice) % 4 == 0)
            let_one_go_on();
        if (rand_r(&dice) % 8 == 0) {
            gp_policy_set_limit(policy, 0, full - full / 4 * (uint64_t)(rand_r(&dice) % 3));
            allowed = allowed > policy->gpu[0].limit ? allowed : policy->gpu[0].limit;
            resizes++;
        }
        if (rand_r(&dice) % 2) { /* some die running, some standing still */
            go_on();
            usleep((useconds_t)(rand_r(&dice) % 2000));
        }
        kill_some();
        go_on();
        for (int i = 0; i < WORKERS; i++)
            bury(i);
    }
    gp_policy_set_limit(policy, 0, full);
}

static void end_all(void) {
    for (int i = 0; i < WORKERS; i++) {
        if (worker[i].pid > 0) {
            kill(worker[i].pid, SIGKILL);
            waitpid(worker[i].pid, &(int){0}, 0);
        }
        while (memory_lives(i))
            usleep(1000);
        worker[i].pid = 0;
    }
}

static gp_policy *map_policy(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *page = mmap(0, gp_policy_size(GP_LAYOUT_VERSION, 1), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return page == MAP_FAILED ? 0 : page;
}

int main(int argc, char **argv) {
    shadow = mmap(0, sizeof *shadow, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc != 5 || shadow == MAP_FAILED || !(policy = map_policy(argv[2])) ||
        gp_ledger_attach(&ledger, argv[1], policy->gpus, policy))
        return perror("ledger_storm"), 2;
    dice = (unsigned)atoi(argv[4]);
    for (int i = 0; i < WORKERS; i++)
        worker[i].life = -1;
    storm(atol(argv[3]));
    end_all();
    if (gp_reserve(&ledger, 0, policy->gpu[0].limit) != GP_GRANTED)
        violation("not all is free when all are dead", gp_used(&ledger, 0), 0);
    tell(stdout);
    return 0;
}
