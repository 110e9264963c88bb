// SPDX-License-Identifier: Apache-2.0
/* CUDA clients that fight for the edge of a grant, several threads each, told what to do through a shared
 * page. Knows nothing of how the account is kept; of the simulated driver, where its total of the first GPU
 * lies.
 *
 *   cuda_storm SHARED NUMBER THREADS LIMIT STATE TOTAL_AT     until it is killed, or the page says that it is
 * over
 *
 * In a free phase every thread allocates and frees blocks of random size, and after each grant looks whether
 * the GPU has more than LIMIT: only where nobody is killed is that total exact, so 0 says not to look. In the
 * phase of pools, they are all of the one pool that the threads of a process share. In the rounds every
 * thread asks once for `place` bytes, round by round, and they wait for each other asleep, so that hundreds
 * of them on few cores leave these to whoever asks. In a storm the process forks as well: its children hold
 * its descriptors for a while.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "thread_delay.h"

enum { FREE, ROUNDS, STORM, PROBE, OVER, WAIT, POOL };
enum { OUT_OF_MEMORY = 2, HELD = 4, UNIT = 64 << 10, MOST = 512 };

static struct page {
    _Atomic uint32_t phase, phase_high, turn, turn_high; /* waited for by futex, and 64 bits for who writes */
    _Atomic uint64_t seed, ready, arrived, place, rounds, round, winners, wrong;
    _Atomic uint64_t grants, refusals, over, strange, forks, slowest;
    _Atomic uint64_t calls[MOST]; /* of each thread of each process */
} *page;

static struct {
    int (*init)(unsigned);
    int (*retain)(void **, int);
    int (*set)(void *);
    int (*alloc)(uint64_t *, size_t);
    int (*alloc_async)(uint64_t *, size_t, void *);
    int (*drop)(uint64_t);
    int (*synchronize)(void);
} cu;

static const _Atomic uint64_t *total; /* of the driver: units of 64 KiB << 40 | ... */
static uint64_t limit;
static void *context;
static unsigned first_number;

static void raise_to(_Atomic uint64_t *word, uint64_t value) {
    for (uint64_t seen = *word; seen < value && !atomic_compare_exchange_weak(word, &seen, value);)
        ;
}

/* Not for long: who sets the phase wakes nobody. */
static void sleep_while(_Atomic uint32_t *word, uint32_t value) {
    const struct timespec tenth = {0, 100 * 1000 * 1000};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &tenth, NULL, 0);
}

/* 1: all others have come before, and stand until the gate is opened; 0: it was. */
static int last_to_come(void) {
    uint32_t turn = page->turn;
    if (atomic_fetch_add(&page->arrived, 1) + 1 == page->ready)
        return 1;
    while (page->turn == turn && page->phase != OVER)
        sleep_while(&page->turn, turn);
    return 0;
}

static void open_gate(void) {
    page->arrived = 0;
    page->turn++;
    syscall(SYS_futex, &page->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static uint64_t taken(void) {
    return (*total >> 40) * UNIT;
}

static void judge(int result) {
    if (result == OUT_OF_MEMORY)
        page->refusals++;
    else if (result)
        page->strange = (uint64_t)result;
    else
        page->grants++;
    uint64_t now = limit ? taken() : 0;
    if (now > limit)
        raise_to(&page->over, now - limit);
}

static void fork_for_a_while(void) {
    pid_t child = fork();
    if (!child) {
        nanosleep(&(struct timespec){0, 20 * 1000 * 1000}, NULL);
        _exit(0);
    }
    page->forks += child > 0;
}

static void fight(uint64_t held[HELD], unsigned *dice, uint32_t phase) {
    static const size_t sizes[] = {256, 100000, 1 << 20, 3 << 20, 16 << 20, 40 << 20};
    uint64_t *at = &held[rand_r(dice) % HELD];
    if (*at && cu.drop(*at))
        page->strange = 1;
    *at = 0;
    size_t size = sizes[(unsigned)rand_r(dice) % (sizeof sizes / sizeof *sizes)];
    int ordered = phase == POOL || rand_r(dice) % 5 == 0;
    judge(ordered ? cu.alloc_async(at, size, NULL) : cu.alloc(at, size));
    if (phase == STORM && rand_r(dice) % 256 == 0)
        fork_for_a_while();
}

static void let_go(uint64_t held[HELD]) {
    for (int i = 0; i < HELD; i++) {
        if (held[i])
            cu.drop(held[i]);
        held[i] = 0;
    }
    cu.synchronize();
}

/* One place, and everybody asks for it at once. Nobody gives it back before all have asked. */
static void ask_once(void) {
    uint64_t at = 0;
    int result = cu.alloc(&at, page->place);
    page->winners += !result;
    judge(result);
    if (last_to_come()) {
        page->wrong += page->winners != 1;
        page->winners = 0;
        open_gate();
    }
    if (!result && cu.drop(at))
        page->strange = 1;
    if (last_to_come()) {
        if (++page->round == page->rounds)
            page->phase = WAIT;
        open_gate();
    }
}

/* Who comes last finds that all have let go. */
static void ask_in_rounds(void) {
    if (last_to_come()) {
        if (taken())
            page->strange = 1;
        open_gate();
    }
    while (page->phase == ROUNDS)
        ask_once();
}

/* How long calls take while others are stopped wherever they were. */
static void probe(void) {
    for (int i = 0; i < 50 && page->phase == PROBE; i++) {
        uint64_t at = 0;
        struct moment before = moment_now(0);
        if (!cu.alloc(&at, 3 << 20))
            cu.drop(at);
        struct moment after = moment_now(1);
        raise_to(&page->slowest, delay_between(&before, &after));
        page->grants++;
    }
}

static void *thread(void *which) {
    uint64_t held[HELD] = {0}, number = first_number + (uint64_t)(uintptr_t)which;
    _Atomic uint64_t *calls = &page->calls[number % MOST];
    unsigned dice = (unsigned)(page->seed * 0x9e3779b1u + number);
    cu.set(context);
    *calls = 0;
    page->ready++;
    for (uint32_t phase; (phase = page->phase) != OVER;) {
        if (phase == ROUNDS || phase == PROBE)
            let_go(held);
        if (phase == WAIT)
            sleep_while(&page->phase, WAIT);
        else if (phase == ROUNDS)
            ask_in_rounds();
        else if (phase == PROBE)
            probe();
        else {
            fight(held, &dice, phase);
            ++*calls;
        }
    }
    let_go(held);
    return NULL;
}

static void *map(const char *path, size_t at, size_t bytes, int access) {
    int fd = open(path, access & PROT_WRITE ? O_RDWR | O_CLOEXEC : O_RDONLY | O_CLOEXEC);
    char *mapped = mmap(NULL, bytes + at % 4096, access, MAP_SHARED, fd, (off_t)(at - at % 4096));
    if (fd < 0 || mapped == MAP_FAILED) {
        perror(path);
        exit(3);
    }
    close(fd);
    return mapped + at % 4096;
}

static int load(void) {
    static const char *const names[] = {"cuInit",          "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent",
                                        "cuMemAlloc_v2",   "cuMemAllocAsync",          "cuMemFree_v2",
                                        "cuCtxSynchronize"};
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ((void **)&cu)[i] = library ? dlsym(library, names[i]) : NULL;
    return library && !cu.init(0) && !cu.retain(&context, 0);
}

int main(int argc, char **argv) {
    pthread_t threads[64];
    if (argc != 7)
        return 2;
    signal(SIGCHLD, SIG_IGN); /* thousands of them, whom nobody waits for */
    page = map(argv[1], 0, sizeof *page, PROT_READ | PROT_WRITE);
    total = map(argv[5], strtoul(argv[6], NULL, 0), 8, PROT_READ);
    limit = strtoul(argv[4], NULL, 0);
    if (!load())
        return 4;
    unsigned count = (unsigned)atoi(argv[3]) % 65;
    first_number = (unsigned)atoi(argv[2]) * count;
    for (unsigned i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, thread, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
