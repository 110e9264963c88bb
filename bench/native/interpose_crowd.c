// SPDX-License-Identifier: Apache-2.0
/* What the library adds where much is going on: in turns with the driver itself, batch by batch, medians of
 * the differences of computed time (both_ways.h). What is compared with a quiet case is measured in rounds of
 * both, so that a machine that is slow for a while is so for both. Nanoseconds, one number a line.
 *
 *   interpose_crowd DRIVER LIBRARY async | launch     -> the driver's own, what is added
 *   interpose_crowd DRIVER LIBRARY live COUNT         -> added to a pair of 4 KiB, and of 2 MiB, with so many
 *                                                        live blocks
 *   interpose_crowd DRIVER LIBRARY threads COUNT      -> added in one thread, in so many at once
 *   interpose_crowd DRIVER LIBRARY processes COUNT    -> added alone; more of it beside so many that hold
 * memory interpose_crowd DRIVER LIBRARY count WHAT N       -> nothing; N calls of WHAT (small, large, async,
 * launch; before it native-), to be counted from outside */
#define _GNU_SOURCE
#include "both_ways.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCHES = 301, CALLS = 300, MOST = 128, ROUNDS = 9, PER_ROUND = 41 };
enum { SMALL = 4096, LARGE = 2 << 20, KEPT = 64 << 10 };

typedef void call_f(const struct way *, size_t);

struct found {
    double native, added;
};

static struct way native, ours;

static double batch(call_f *call, const struct way *way, size_t bytes) {
    double begin = computed();
    for (int i = 0; i < CALLS; i++)
        call(way, bytes);
    return (computed() - begin) / CALLS;
}

/* With a barrier all threads are at the driver itself, or all at the library. */
static struct found compare(call_f *call, size_t bytes, int batches, pthread_barrier_t *together) {
    static _Thread_local double alone[BATCHES], added[BATCHES];
    for (int i = 0; i < batches; i++) {
        double took[2];
        for (int turn = 0; turn < 2; turn++) {
            if (together)
                pthread_barrier_wait(together);
            took[(i + turn) % 2] = batch(call, (i + turn) % 2 ? &ours : &native, bytes);
        }
        alone[i] = took[0];
        added[i] = took[1] - took[0];
    }
    return (struct found){median(alone, batches), median(added, batches)};
}

static void say(double number) {
    printf("%.2f\n", number);
}

/* A series takes some 20 ms, for which the machine may be slow: the medians are of several. */
static void both(call_f *call, size_t bytes) {
    double alone[ROUNDS], added[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        struct found found = compare(call, bytes, BATCHES, NULL);
        alone[i] = found.native;
        added[i] = found.added;
    }
    say(median(alone, ROUNDS));
    say(median(added, ROUNDS));
}

static void with_live(long count) {
    CUdeviceptr *kept = calloc((size_t)count, sizeof *kept);
    double small[ROUNDS], large[ROUNDS];
    for (long i = 0; i < count; i++)
        must(ours.alloc(&kept[i], i % 1024 ? KEPT / 16 : LARGE), "a live block");
    for (int i = 0; i < ROUNDS; i++) {
        small[i] = compare(pair, SMALL, BATCHES, NULL).added;
        large[i] = compare(pair, LARGE, BATCHES, NULL).added;
    }
    say(median(small, ROUNDS));
    say(median(large, ROUNDS));
    free(kept);
}

static double quiet(void) {
    return compare(pair, LARGE, PER_ROUND, NULL).added;
}

static CUcontext context;
static pthread_barrier_t barrier;

static void *one_of_many(void *added) {
    must(ours.set_current(context), "context");
    *(double *)added = compare(pair, LARGE, PER_ROUND, &barrier).added;
    return NULL;
}

static double all_at_once(long count) {
    pthread_t thread[MOST];
    double added[MOST];
    for (long i = 0; i < count; i++)
        if (pthread_create(&thread[i], NULL, one_of_many, &added[i]))
            exit(1);
    for (long i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
    return median(added, (int)count);
}

static void in_threads(long count) {
    double one[ROUNDS], many[ROUNDS];
    pthread_barrier_init(&barrier, NULL, (unsigned)count);
    for (int i = 0; i < ROUNDS; i++) {
        one[i] = quiet();
        many[i] = all_at_once(count);
    }
    say(median(one, ROUNDS));
    say(median(many, ROUNDS));
}

/* Says that it holds a block, and goes when the other end does. */
static void neighbour(int end, int ready, const char *driver, const char *library) {
    char byte;
    native = way_by(driver), ours = way_by(library);
    CUdeviceptr at;
    begun(&ours);
    must(ours.alloc(&at, LARGE), "a neighbour's block");
    _exit(write(ready, "", 1) != 1 || read(end, &byte, 1) != 0);
}

static void tell(int fd) {
    if (write(fd, "", 1) != 1)
        _exit(1);
}

static int hear(int fd) {
    char byte;
    return read(fd, &byte, 1) == 1;
}

/* Brings neighbours, and has them go again, each time it is told. It has no driver: what it forks begins. */
static void bring_neighbours(long count, int told, int done, const char *driver, const char *library) {
    while (hear(told)) {
        int end[2], ready[2];
        if (pipe(end) || pipe(ready))
            _exit(1);
        for (long i = 0; i < count; i++)
            if (!fork()) {
                close(end[1]);
                neighbour(end[0], ready[1], driver, library);
            }
        for (long i = 0; i < count; i++)
            hear(ready[0]);
        tell(done);
        hear(told);
        close(end[1]);
        while (wait(NULL) > 0)
            ;
        close(end[0]), close(ready[0]), close(ready[1]);
        tell(done);
    }
    _exit(0);
}

static void beside(long count, const char *driver, const char *library) {
    int order[2], done[2];
    double alone[ROUNDS], more[ROUNDS];
    if (pipe(order) || pipe(done))
        exit(1);
    if (!fork()) {
        close(order[1]);
        bring_neighbours(count, order[0], done[1], driver, library);
    }
    native = way_by(driver), ours = way_by(library);
    context = begun(&ours);
    for (int i = 0; i < ROUNDS; i++) {
        double before = quiet();
        tell(order[1]), hear(done[0]);
        double among = quiet();
        tell(order[1]), hear(done[0]);
        alone[i] = (before + quiet()) / 2;
        more[i] = among - alone[i];
    }
    close(order[1]);
    wait(NULL);
    say(median(alone, ROUNDS));
    say(median(more, ROUNDS));
}

/* valgrind hands out addresses from below 4 GiB on, where the simulated driver keeps those of 32 bits alone.
 */
static void use_up_low_addresses(void) {
    uintptr_t at = 0;
    while (at >> 32 == 0)
        at = (uintptr_t)mmap(NULL, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void count_calls(const char *what, long n) {
    const struct way *way = &ours;
    if (!strncmp(what, "native-", 7))
        way = &native, what += 7;
    for (long i = 0; i < n; i++) {
        if (!strcmp(what, "async"))
            async_pair(way, SMALL);
        else if (!strcmp(what, "launch"))
            launch(way, 0);
        else
            pair(way, strcmp(what, "small") ? LARGE : SMALL);
    }
}

int main(int argc, char **argv) {
    const char *mode = argc > 3 ? argv[3] : "";
    long count = argc > 4 ? atol(argv[argc - 1]) : 0;
    if (!strcmp(mode, "processes"))
        return beside(count, argv[1], argv[2]), 0;
    if (argc < 4 || count > 10000000 || (!strcmp(mode, "threads") && count > MOST))
        return 2;
    use_up_low_addresses();
    native = way_by(argv[1]), ours = way_by(argv[2]);
    context = begun(&ours);
    if (!strcmp(mode, "async"))
        both(async_pair, SMALL);
    else if (!strcmp(mode, "launch"))
        both(launch, 0);
    else if (!strcmp(mode, "live"))
        with_live(count);
    else if (!strcmp(mode, "threads"))
        in_threads(count);
    else if (!strcmp(mode, "count"))
        count_calls(argv[4], count);
    else
        return 2;
    return 0;
}
