// SPDX-License-Identifier: Apache-2.0
/* What the interception library adds to a call, in one process: the driver is called directly and through the
 * library in turns, batch by batch, and medians of the differences are printed. Both lead to the same loaded
 * driver.
 *
 *   interpose_bench calls DRIVER LIBRARY   -> native small, added small, the same large, both with LIVE live
 * blocks, added to a forwarded call: nanoseconds, one number a line interpose_bench start LIBRARY          ->
 * milliseconds that preloading adds to the start of /bin/true */
#define _GNU_SOURCE
#include "abi.h"

#include <dlfcn.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

enum {
    ROUNDS = 9,
    BATCHES = 45,
    ALL = ROUNDS * BATCHES,
    PAIRS = 500,
    CALLS = 20000,
    LIVE = 100000,
    STARTS = 400
};
enum { SMALL = 4096, LARGE = 2 << 20, KEPT = 64 << 10 };

struct driver {
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*free)(CUdeviceptr);
    CUresult (*forwarded)(int *);
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void must(CUresult rc, const char *what) {
    if (rc) {
        fprintf(stderr, "%s: %d\n", what, rc);
        exit(1);
    }
}

static struct driver load(const char *path, void **handle) {
    *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!*handle) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return (struct driver){
        (CUresult(*)(CUdeviceptr *, size_t))dlsym(*handle, "cuMemAlloc_v2"),
        (CUresult(*)(CUdeviceptr))dlsym(*handle, "cuMemFree_v2"),
        (CUresult(*)(int *))dlsym(*handle, "cuDriverGetVersion"),
    };
}

static double pairs(const struct driver *driver, size_t bytes) {
    CUdeviceptr at = 0;
    CUresult rc = 0;
    double begin = now();
    for (int i = 0; i < PAIRS; i++) {
        rc |= driver->alloc(&at, bytes);
        rc |= driver->free(at);
    }
    double took = now() - begin;
    must(rc, "a pair");
    return took / PAIRS;
}

static double calls(const struct driver *driver, size_t unused) {
    int version;
    (void)unused;
    double begin = now();
    for (int i = 0; i < CALLS; i++)
        driver->forwarded(&version);
    return (now() - begin) / CALLS;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

struct series {
    double (*measure)(const struct driver *, size_t);
    size_t bytes;
    double alone[ALL], added[ALL];
    int count;
};

static void compare(struct series *series, const struct driver *native, const struct driver *ours) {
    for (int i = 0; i < BATCHES; i++, series->count++) {
        double first = series->measure(i % 2 ? native : ours, series->bytes);
        double second = series->measure(i % 2 ? ours : native, series->bytes);
        series->alone[series->count] = i % 2 ? first : second;
        series->added[series->count] = i % 2 ? second - first : first - second;
    }
}

/* The median of the native batches and that of the differences. */
static void print(struct series *series) {
    printf("%.2f\n", median(series->alone, series->count));
    printf("%.2f\n", median(series->added, series->count));
}

static CUdeviceptr live[LIVE];

static void fill(const struct driver *ours) {
    for (int i = 0; i < LIVE; i++)
        must(ours->alloc(&live[i], i % 64 ? KEPT : LARGE), "a live block");
}

static void drain(const struct driver *ours) {
    for (int i = 0; i < LIVE; i++)
        must(ours->free(live[i]), "a live block");
}

/* In rounds, so that a machine that is busy for a while is so for all of the series. */
static void measure_all(const struct driver *native, const struct driver *ours) {
    static struct series series[] = {
        {pairs, SMALL}, {pairs, LARGE}, {pairs, SMALL}, {pairs, LARGE}, {calls, 0}};
    for (int round = 0; round < ROUNDS; round++) {
        compare(&series[0], native, ours);
        compare(&series[1], native, ours);
        fill(ours);
        compare(&series[2], native, ours);
        compare(&series[3], native, ours);
        drain(ours);
        compare(&series[4], native, ours);
    }
    for (int i = 0; i < 5; i++)
        print(&series[i]);
}

static void measure_calls(const char *driver_path, const char *library_path) {
    void *real, *ours_handle;
    struct driver native = load(driver_path, &real), ours = load(library_path, &ours_handle);
    CUcontext context;
    must(((CUresult(*)(unsigned))dlsym(ours_handle, "cuInit"))(0), "cuInit");
    must(((CUresult(*)(CUcontext *, CUdevice))dlsym(ours_handle, "cuDevicePrimaryCtxRetain"))(&context, 0),
         "context");
    must(((CUresult(*)(CUcontext))dlsym(ours_handle, "cuCtxSetCurrent"))(context), "context");
    measure_all(&native, &ours);
}

static double start(char *const *env) {
    char *argv[] = {"/bin/true", NULL};
    pid_t pid;
    int status;
    double begin = now();
    must(posix_spawn(&pid, argv[0], NULL, NULL, argv, env), "posix_spawn");
    waitpid(pid, &status, 0);
    must(status, "/bin/true");
    return (now() - begin) / 1e6;
}

static void measure_start(const char *library) {
    static double added[STARTS];
    char preload[4096];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    char *without[] = {"LC_ALL=C", NULL}, *with[] = {"LC_ALL=C", preload, NULL};
    for (int i = 0; i < STARTS; i++) {
        double first = start(i % 2 ? with : without), second = start(i % 2 ? without : with);
        added[i] = i % 2 ? first - second : second - first;
    }
    printf("%.4f\n", median(added, STARTS));
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "calls"))
        measure_calls(argv[2], argv[3]);
    else if (argc == 3 && !strcmp(argv[1], "start"))
        measure_start(argv[2]);
    else
        return 2;
    return 0;
}
