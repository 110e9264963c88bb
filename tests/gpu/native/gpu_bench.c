// SPDX-License-Identifier: Apache-2.0
/* What the library adds to calls of a real driver, in one process: each operation is done through the driver
 * directly and through the library in turns, batch by batch. Both lead to the same loaded driver and the same
 * context. Says the time of every batch; the statistics are Python's.
 *
 *   gpu_bench DRIVER LIBRARY BATCHES     -> lines "operation native with", nanoseconds an operation
 */
#define _GNU_SOURCE
#include "abi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUNCTIONS(X)                                                                                         \
    X(cuInit, (unsigned))                                                                                    \
    X(cuDriverGetVersion, (int *))                                                                           \
    X(cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                                     \
    X(cuCtxSetCurrent, (CUcontext))                                                                          \
    X(cuCtxSynchronize, (void))                                                                              \
    X(cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                                \
    X(cuMemFree_v2, (CUdeviceptr))                                                                           \
    X(cuMemAllocAsync, (CUdeviceptr *, size_t, CUstream))                                                    \
    X(cuMemFreeAsync, (CUdeviceptr, CUstream))                                                               \
    X(cuModuleLoadData, (void **, const void *))                                                             \
    X(cuModuleGetFunction, (void **, void *, const char *))                                                  \
    X(cuLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,         \
                       CUstream, void **, void **))                                                          \
    X(cuStreamCreate, (CUstream *, unsigned))                                                                \
    X(cuStreamSynchronize, (CUstream))                                                                       \
    X(cuStreamBeginCapture_v2, (CUstream, int))                                                              \
    X(cuStreamEndCapture, (CUstream, CUgraph *))                                                             \
    X(cuGraphInstantiateWithFlags, (CUgraphExec *, CUgraph, unsigned long long))                             \
    X(cuGraphLaunch, (CUgraphExec, CUstream))

struct driver {
#define X(name, params) CUresult(*name) params;
    FUNCTIONS(X)
#undef X
};

static void *kernel;
static CUstream stream;
static CUgraphExec graph;

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

static struct driver load(const char *path) {
    struct driver driver;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
#define X(name, params) driver.name = (CUresult(*) params)dlsym(handle, #name);
    FUNCTIONS(X)
#undef X
    return driver;
}

static CUresult pair(const struct driver *driver, size_t bytes) {
    CUdeviceptr at = 0;
    CUresult rc = driver->cuMemAlloc_v2(&at, bytes);
    return rc ? rc : driver->cuMemFree_v2(at);
}

static CUresult async_pair(const struct driver *driver, size_t bytes) {
    CUdeviceptr at = 0;
    CUresult rc = driver->cuMemAllocAsync(&at, bytes, stream);
    return rc ? rc : driver->cuMemFreeAsync(at, stream);
}

static CUresult launch(const struct driver *driver, size_t unused) {
    (void)unused;
    return driver->cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
}

static CUresult replay(const struct driver *driver, size_t unused) {
    (void)unused;
    return driver->cuGraphLaunch(graph, stream);
}

static CUresult forward(const struct driver *driver, size_t unused) {
    int version;
    (void)unused;
    return driver->cuDriverGetVersion(&version);
}

static const struct operation {
    const char *name;
    CUresult (*once)(const struct driver *, size_t);
    size_t bytes;
    int repeats;
} operations[] = {
    {"cuMemAlloc+cuMemFree_4KiB", pair, 4 << 10, 200},
    {"cuMemAlloc+cuMemFree_2MiB", pair, 2 << 20, 40},
    {"cuMemAlloc+cuMemFree_64MiB", pair, 64 << 20, 10},
    {"cuMemAllocAsync+cuMemFreeAsync_4KiB", async_pair, 4 << 10, 200},
    {"cuMemAllocAsync+cuMemFreeAsync_2MiB", async_pair, 2 << 20, 200},
    {"cuLaunchKernel", launch, 0, 500},
    {"cuGraphLaunch", replay, 0, 200},
    {"cuDriverGetVersion", forward, 0, 10000},
};

/* Nanoseconds an operation. The device is idle at the start; what is launched is waited for outside. */
static double batch(const struct operation *operation, const struct driver *driver) {
    CUresult rc = driver->cuStreamSynchronize(stream);
    double begin = now();
    for (int i = 0; i < operation->repeats; i++)
        rc |= operation->once(driver, operation->bytes);
    double took = now() - begin;
    must(rc | driver->cuStreamSynchronize(stream), operation->name);
    return took / operation->repeats;
}

/* A graph of ten empty kernels. */
static void capture(const struct driver *driver) {
    CUgraph captured;
    must(driver->cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED), "cuStreamBeginCapture");
    for (int i = 0; i < 10; i++)
        must(launch(driver, 0), "a captured launch");
    must(driver->cuStreamEndCapture(stream, &captured), "cuStreamEndCapture");
    must(driver->cuGraphInstantiateWithFlags(&graph, captured, 0), "cuGraphInstantiateWithFlags");
}

static void prepare(const struct driver *driver) {
    static const char ptx[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
                              ".visible .entry nothing() { ret; }\n";
    CUcontext context;
    void *module;
    must(driver->cuInit(0), "cuInit");
    must(driver->cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
    must(driver->cuCtxSetCurrent(context), "cuCtxSetCurrent");
    must(driver->cuModuleLoadData(&module, ptx), "cuModuleLoadData");
    must(driver->cuModuleGetFunction(&kernel, module, "nothing"), "cuModuleGetFunction");
    must(driver->cuStreamCreate(&stream, 1), "cuStreamCreate");
    capture(driver);
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    struct driver native = load(argv[1]), ours = load(argv[2]);
    int batches = atoi(argv[3]);
    prepare(&ours);
    for (int i = -2; i < batches; i++) /* the first ones warm up */
        for (size_t n = 0; n < sizeof operations / sizeof *operations; n++) {
            double first = batch(&operations[n], i & 1 ? &native : &ours);
            double second = batch(&operations[n], i & 1 ? &ours : &native);
            if (i >= 0)
                printf("%s %.2f %.2f\n", operations[n].name, i & 1 ? first : second, i & 1 ? second : first);
        }
    return 0;
}
