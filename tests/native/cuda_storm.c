// SPDX-License-Identifier: Apache-2.0
/* CUDA clients that fight for the edge of a grant, several threads each, told what to do through a shared
 * page. Knows nothing of how the account is kept; of the simulated driver, where its total of the first GPU
 * lies.
 *
 *   cuda_storm SHARED THREADS LIMIT STATE TOTAL_AT     until it is killed, or the page says that it is over
 *
 * In a free phase every thread allocates and frees blocks of random size, and after each grant looks whether
 * the GPU has more than LIMIT: only where nobody is killed is that total exact, so 0 says not to look. In a
 * round every thread asks once for `place` bytes. In a storm the process forks as well: its children hold its
 * descriptors for a while.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { FREE, ROUNDS, STORM, PROBE, OVER };
enum { OUT_OF_MEMORY = 2, HELD = 4, UNIT = 64 << 10 };

static struct page {
    _Atomic uint64_t phase, round, ready, arrived, winners, finished;
    _Atomic uint64_t place, grants, refusals, over, strange, forks, slowest;
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

static void nap(long ns) {
    nanosleep(&(struct timespec){0, ns}, NULL);
}

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

static void raise_to(_Atomic uint64_t *word, uint64_t value) {
    for (uint64_t seen = *word; seen < value && !atomic_compare_exchange_weak(word, &seen, value);)
        ;
}

static void judge(int result) {
    if (result == OUT_OF_MEMORY)
        page->refusals++;
    else if (result)
        page->strange = (uint64_t)result;
    else
        page->grants++;
    uint64_t taken = limit ? (*total >> 40) * UNIT : 0;
    if (taken > limit)
        raise_to(&page->over, taken - limit);
}

static void fork_for_a_while(void) {
    pid_t child = fork();
    if (!child) {
        nap(20 * 1000 * 1000);
        _exit(0);
    }
    page->forks += child > 0;
}

static void fight(uint64_t held[HELD], unsigned *dice, int storm) {
    static const size_t sizes[] = {256, 100000, 1 << 20, 3 << 20, 16 << 20, 40 << 20};
    uint64_t *at = &held[rand_r(dice) % HELD];
    if (*at && cu.drop(*at))
        page->strange = 1;
    *at = 0;
    size_t size = sizes[(unsigned)rand_r(dice) % (sizeof sizes / sizeof *sizes)];
    judge(rand_r(dice) % 5 ? cu.alloc(at, size) : cu.alloc_async(at, size, NULL));
    if (storm && rand_r(dice) % 64 == 0)
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
static void ask_once(uint64_t *round) {
    uint64_t at = 0;
    if (page->round == *round) {
        nap(2 * 1000 * 1000);
        return;
    }
    *round = page->round;
    int result = cu.alloc(&at, page->place);
    page->winners += !result;
    judge(result);
    page->arrived++;
    while (page->arrived < page->ready && page->phase == ROUNDS)
        nap(2 * 1000 * 1000);
    if (!result && cu.drop(at))
        page->strange = 1;
    page->finished++;
}

/* Nanoseconds that this thread was ready to run and had no processor: other programs' doing. */
static uint64_t out_of_turn(void) {
    unsigned long ran = 0, waited = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "re");
    if (file && fscanf(file, "%lu %lu", &ran, &waited) != 2)
        waited = 0;
    if (file)
        fclose(file);
    return waited;
}

/* How long a call takes while others are stopped wherever they were. */
static void probe(void) {
    for (int i = 0; i < 50 && page->phase == PROBE; i++) {
        uint64_t at = 0, waited = out_of_turn(), begun = now();
        if (!cu.alloc(&at, 3 << 20))
            cu.drop(at);
        uint64_t took = now() - begun, lost = out_of_turn() - waited;
        raise_to(&page->slowest, took > lost ? took - lost : 0);
        page->grants++;
    }
}

static void *thread(void *context) {
    uint64_t held[HELD] = {0}, round = page->round;
    unsigned dice = (unsigned)now() ^ (unsigned)(uintptr_t)&held;
    cu.set(context);
    page->ready++;
    for (uint64_t phase; (phase = page->phase) != OVER;) {
        if (phase == ROUNDS || phase == PROBE)
            let_go(held);
        if (phase == ROUNDS)
            ask_once(&round);
        else if (phase == PROBE)
            probe();
        else
            fight(held, &dice, phase == STORM);
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

int main(int argc, char **argv) {
    static const char *const names[] = {"cuInit",          "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent",
                                        "cuMemAlloc_v2",   "cuMemAllocAsync",          "cuMemFree_v2",
                                        "cuCtxSynchronize"};
    pthread_t threads[64];
    void *context;
    if (argc != 6)
        return 2;
    page = map(argv[1], 0, 4096, PROT_READ | PROT_WRITE);
    total = map(argv[4], strtoul(argv[5], NULL, 0), 8, PROT_READ);
    limit = strtoul(argv[3], NULL, 0);
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ((void **)&cu)[i] = library ? dlsym(library, names[i]) : NULL;
    if (!library || cu.init(0) || cu.retain(&context, 0))
        return 4;
    int count = atoi(argv[2]) % 65;
    for (int i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, thread, context);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
