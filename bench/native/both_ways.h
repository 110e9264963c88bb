// SPDX-License-Identifier: Apache-2.0
/* The driver itself and the library before it, in one process: both lead to the same loaded driver. */
#ifndef BOTH_WAYS_H
#define BOTH_WAYS_H
#include "abi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct way {
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*free)(CUdeviceptr);
    CUresult (*alloc_async)(CUdeviceptr *, size_t, CUstream);
    CUresult (*free_async)(CUdeviceptr, CUstream);
    CUresult (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                       void **, void **);
    CUresult (*set_current)(CUcontext);
    CUresult (*init)(unsigned);
    CUresult (*retain)(CUcontext *, CUdevice);
};

static inline void must(CUresult rc, const char *what) {
    if (rc) {
        fprintf(stderr, "%s: %d\n", what, rc);
        exit(1);
    }
}

static inline void *found(void *handle, const char *name) {
    void *at = handle ? dlsym(handle, name) : NULL;
    if (!at) {
        fprintf(stderr, "%s: %s\n", name, dlerror());
        exit(1);
    }
    return at;
}

static inline struct way way_by(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    struct way way;
    *(void **)&way.alloc = found(handle, "cuMemAlloc_v2");
    *(void **)&way.free = found(handle, "cuMemFree_v2");
    *(void **)&way.alloc_async = found(handle, "cuMemAllocAsync");
    *(void **)&way.free_async = found(handle, "cuMemFreeAsync");
    *(void **)&way.launch = found(handle, "cuLaunchKernel");
    *(void **)&way.set_current = found(handle, "cuCtxSetCurrent");
    *(void **)&way.init = found(handle, "cuInit");
    *(void **)&way.retain = found(handle, "cuDevicePrimaryCtxRetain");
    return way;
}

static inline CUcontext begun(const struct way *way) {
    CUcontext context;
    must(way->init(0), "cuInit");
    must(way->retain(&context, 0), "context");
    must(way->set_current(context), "context");
    return context;
}

static inline void pair(const struct way *way, size_t bytes) {
    CUdeviceptr at = 0;
    must(way->alloc(&at, bytes), "cuMemAlloc");
    must(way->free(at), "cuMemFree");
}

static inline void async_pair(const struct way *way, size_t bytes) {
    CUdeviceptr at = 0;
    must(way->alloc_async(&at, bytes, NULL), "cuMemAllocAsync");
    must(way->free_async(at, NULL), "cuMemFreeAsync");
}

/* No function: the driver says so at once. */
static inline void launch(const struct way *way, size_t unused) {
    (void)unused;
    way->launch(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
}

/* Nanoseconds that this thread has computed: on few cores, many threads are not measured waiting for one. */
static inline double computed(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

#endif
