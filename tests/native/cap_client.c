// SPDX-License-Identifier: Apache-2.0
/* A CUDA client without CUDA: does what its standard input says, a command a line, and answers with a line
 * each, the driver's result first. It reaches the driver in the way that its first argument names: dlsym
 * dlopen("libcuda.so.1"), dlsym open=PATH    the same with another name or path lookup1      ... and
 * cuGetProcAddress as of CUDA 11.3 (4 arguments) lookup2      ... and cuGetProcAddress_v2 (5 arguments)
 *   perthread    as lookup2, for the per-thread default stream
 *   linked       by the program's own links (only in the build that has them: -DLINKED)
 */
#define _GNU_SOURCE
#include "abi.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* name, symbol, version for cuGetProcAddress, parameters */
#define FUNCTIONS(X)                                                                                         \
    X(cuInit, cuInit, 2000, (unsigned))                                                                      \
    X(cuDriverGetVersion, cuDriverGetVersion, 2020, (int *))                                                 \
    X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, (CUcontext *, CUdevice))                     \
    X(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, 11000, (CUdevice))                            \
    X(cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2, 11000, (CUdevice))                                \
    X(cuCtxSetCurrent, cuCtxSetCurrent, 4000, (CUcontext))                                                   \
    X(cuCtxCreate, cuCtxCreate_v2, 3020, (CUcontext *, unsigned, CUdevice))                                  \
    X(cuCtxDestroy, cuCtxDestroy_v2, 4000, (CUcontext))                                                      \
    X(cuCtxDetach, cuCtxDetach, 2000, (CUcontext))                                                           \
    X(cuCtxSetLimit, cuCtxSetLimit, 3010, (unsigned, size_t))                                                \
    X(cuCtxSynchronize, cuCtxSynchronize, 2000, (void))                                                      \
    X(cuDeviceTotalMem, cuDeviceTotalMem_v2, 3020, (size_t *, CUdevice))                                     \
    X(cuMemGetInfo, cuMemGetInfo_v2, 3020, (size_t *, size_t *))                                             \
    X(cuMemAlloc, cuMemAlloc_v2, 3020, (CUdeviceptr *, size_t))                                              \
    X(cuMemAllocPitch, cuMemAllocPitch_v2, 3020, (CUdeviceptr *, size_t *, size_t, size_t, unsigned))        \
    X(cuMemAllocManaged, cuMemAllocManaged, 6000, (CUdeviceptr *, size_t, unsigned))                         \
    X(cuMemFree, cuMemFree_v2, 3020, (CUdeviceptr))                                                          \
    X(cuMemAllocAsync, cuMemAllocAsync, 11020, (CUdeviceptr *, size_t, CUstream))                            \
    X(cuMemFreeAsync, cuMemFreeAsync, 11020, (CUdeviceptr, CUstream))                                        \
    X(cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync, 11020,                                               \
      (CUdeviceptr *, size_t, CUmemoryPool, CUstream))                                                       \
    X(cuMemPoolCreate, cuMemPoolCreate, 11020, (CUmemoryPool *, const CUmemPoolProps *))                     \
    X(cuMemPoolDestroy, cuMemPoolDestroy, 11020, (CUmemoryPool))                                             \
    X(cuMemPoolTrimTo, cuMemPoolTrimTo, 11020, (CUmemoryPool, size_t))                                       \
    X(cuMemCreate, cuMemCreate, 10020,                                                                       \
      (CUmemHandle *, size_t, const CUmemAllocationProp *, unsigned long long))                              \
    X(cuMemRelease, cuMemRelease, 10020, (CUmemHandle))                                                      \
    X(cuMemAddressReserve, cuMemAddressReserve, 10020,                                                       \
      (CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long))                                      \
    X(cuMemMap, cuMemMap, 10020, (CUdeviceptr, size_t, size_t, CUmemHandle, unsigned long long))             \
    X(cuMemUnmap, cuMemUnmap, 10020, (CUdeviceptr, size_t))                                                  \
    X(cuMemRetainAllocationHandle, cuMemRetainAllocationHandle, 11000, (CUmemHandle *, void *))              \
    X(cuMemExportToShareableHandle, cuMemExportToShareableHandle, 10020,                                     \
      (void *, CUmemHandle, int, unsigned long long))                                                        \
    X(cuArray3DCreate, cuArray3DCreate_v2, 3020, (CUarray *, const CUDA_ARRAY3D_DESCRIPTOR *))               \
    X(cuArrayDestroy, cuArrayDestroy, 2000, (CUarray))                                                       \
    X(cuCtxGetApiVersion, cuCtxGetApiVersion, 3020, (CUcontext, unsigned *))

static struct {
#define X(name, symbol, version, params) CUresult(*name) params;
    FUNCTIONS(X)
#undef X
} cu;

typedef CUresult lookup1(const char *, void **, int, uint64_t);
typedef CUresult lookup2(const char *, void **, int, uint64_t, int *);

static void *library;
static const char *way;

#ifdef LINKED
#define X(name, symbol, version, params) extern CUresult symbol params;
FUNCTIONS(X)
#undef X
#endif

static void *find(const char *name, const char *symbol, int version) {
    void *found = NULL;
    int status;
    lookup1 *first = (lookup1 *)dlsym(library, "cuGetProcAddress");
    lookup2 *second = (lookup2 *)dlsym(library, "cuGetProcAddress_v2");
    if (!strcmp(way, "lookup1")) {
        first("cuGetProcAddress", (void **)&first, 11030, 0); /* as cudart does */
        return first(name, &found, version, 0) ? NULL : found;
    }
    if (!strcmp(way, "lookup2") || !strcmp(way, "perthread")) {
        second("cuGetProcAddress", (void **)&second, 12000, 0, &status);
        return second(name, &found, version, strcmp(way, "perthread") ? 0 : 2, &status) ? NULL : found;
    }
    return dlsym(library, symbol);
}

static int connect_driver(void) {
#ifdef LINKED
    if (!strcmp(way, "linked")) {
#define X(name, symbol, version, params) cu.name = symbol;
        FUNCTIONS(X)
#undef X
        return 1;
    }
#endif
    library = dlopen(strncmp(way, "open=", 5) ? "libcuda.so.1" : way + 5, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        puts(dlerror());
        return 0;
    }
#define X(name, symbol, version, params) cu.name = (CUresult(*) params)find(#name, #symbol, version);
    FUNCTIONS(X)
#undef X
    return 1;
}

/* What a command made, by its number. */
static struct thing {
    char kind;
    uint64_t value, bytes;
    CUmemHandle handle;
} things[1 << 17];
static unsigned made;

static void *thread_of_pairs(void *rounds) {
    CUcontext context;
    long failed = cu.cuDevicePrimaryCtxRetain(&context, 0) || cu.cuCtxSetCurrent(context);
    for (long i = 0; i < (long)rounds; i++) {
        CUdeviceptr small, large;
        failed += cu.cuMemAlloc(&small, 1000) != 0;
        failed += cu.cuMemAlloc(&large, 3 << 20) != 0;
        failed += cu.cuMemFree(small) != 0;
        failed += cu.cuMemFree(large) != 0;
    }
    cu.cuDevicePrimaryCtxRelease(0);
    return (void *)failed;
}

static CUresult threads(unsigned count, long rounds) {
    pthread_t thread[64];
    long failed = 0;
    for (unsigned i = 0; i < count; i++)
        pthread_create(&thread[i], NULL, thread_of_pairs, (void *)rounds);
    for (unsigned i = 0; i < count; i++) {
        void *result;
        pthread_join(thread[i], &result);
        failed += (long)result;
    }
    return (CUresult)failed;
}

/* A child that opens the driver anew and holds `bytes` until its input ends. */
static CUresult in_a_child(uint64_t bytes) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        CUcontext context;
        CUdeviceptr at;
        CUresult rc = cu.cuInit(0);
        rc = rc ? rc : cu.cuDevicePrimaryCtxRetain(&context, 0);
        rc = rc ? rc : cu.cuCtxSetCurrent(context);
        rc = rc ? rc : cu.cuMemAlloc(&at, bytes);
        _exit(rc);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static CUresult map(uint64_t bytes, struct thing *thing) {
    CUmemAllocationProp prop = {.type = 1, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUdeviceptr at = 0;
    CUresult rc = cu.cuMemCreate(&thing->handle, bytes, &prop, 0);
    if (rc)
        return rc;
    rc = cu.cuMemAddressReserve(&at, bytes, 0, 0, 0);
    thing->value = at;
    return rc ? rc : cu.cuMemMap(at, bytes, 0, thing->handle, 0);
}

static CUresult drop(struct thing *thing) {
    switch (thing->kind) {
    case 'a':
        return cu.cuMemFreeAsync(thing->value, NULL);
    case 'x':
        return cu.cuArrayDestroy((CUarray)thing->value);
    case 'c':
        return cu.cuCtxDestroy((CUcontext)thing->value);
    case 'p':
        return cu.cuMemPoolDestroy((CUmemoryPool)thing->value);
    default:
        return cu.cuMemFree(thing->value);
    }
}

static CUresult make(const char *verb, uint64_t a, uint64_t b, struct thing *thing) {
    size_t pitch;
    CUDA_ARRAY3D_DESCRIPTOR desc = {.width = a, .height = b, .format = 0x20, .channels = 4};
    CUmemPoolProps props = {.type = 1, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUdeviceptr *out = (CUdeviceptr *)&thing->value;
    thing->kind = verb[0];
    thing->bytes = a;
    if (!strcmp(verb, "linear"))
        return cu.cuMemAlloc(out, a);
    if (!strcmp(verb, "managed"))
        return cu.cuMemAllocManaged(out, a, 1);
    if (!strcmp(verb, "2d"))
        return cu.cuMemAllocPitch(out, &pitch, a, b, 4);
    if (!strcmp(verb, "async"))
        return cu.cuMemAllocAsync(out, a, NULL);
    if (!strcmp(verb, "apool"))
        return cu.cuMemAllocFromPoolAsync(out, b, (CUmemoryPool)things[a].value, NULL);
    if (!strcmp(verb, "pool"))
        return cu.cuMemPoolCreate((CUmemoryPool *)out, &props);
    if (!strcmp(verb, "map"))
        return map(a, thing);
    if (!strcmp(verb, "xarray"))
        return cu.cuArray3DCreate((CUarray *)out, &desc);
    if (!strcmp(verb, "context"))
        return cu.cuCtxCreate((CUcontext *)out, 0, (CUdevice)a);
    return -1;
}

static CUresult act(const char *verb, uint64_t a, uint64_t b) {
    CUcontext context;
    struct thing *thing = &things[a % (1 << 17)];
    if (!strcmp(verb, "init"))
        return cu.cuInit(0);
    if (!strcmp(verb, "retain")) {
        CUresult rc = cu.cuDevicePrimaryCtxRetain(&context, (CUdevice)a);
        return rc ? rc : cu.cuCtxSetCurrent(context);
    }
    if (!strcmp(verb, "dropcontext"))
        return cu.cuDevicePrimaryCtxRelease((CUdevice)a);
    if (!strcmp(verb, "reset"))
        return cu.cuDevicePrimaryCtxReset((CUdevice)a);
    if (!strcmp(verb, "sync"))
        return cu.cuCtxSynchronize();
    if (!strcmp(verb, "detach"))
        return cu.cuCtxDetach((CUcontext)thing->value);
    if (!strcmp(verb, "setlimit"))
        return cu.cuCtxSetLimit((unsigned)a, b);
    if (!strcmp(verb, "free"))
        return drop(thing);
    if (!strcmp(verb, "freesync"))
        return cu.cuMemFree(thing->value);
    if (!strcmp(verb, "freeasync"))
        return cu.cuMemFreeAsync(thing->value, NULL);
    if (!strcmp(verb, "release"))
        return cu.cuMemRelease(thing->handle);
    if (!strcmp(verb, "unmap"))
        return cu.cuMemUnmap(thing->value, thing->bytes);
    if (!strcmp(verb, "retainhandle"))
        return cu.cuMemRetainAllocationHandle(&thing->handle, (void *)(thing->value + b));
    if (!strcmp(verb, "threads"))
        return threads((unsigned)a, (long)b);
    if (!strcmp(verb, "fork"))
        return in_a_child(a);
    return -1;
}

static void answer(const char *verb, uint64_t a, uint64_t b) {
    if (!strcmp(verb, "info")) {
        size_t free = 0, total = 0, device = 0;
        CUresult rc = cu.cuMemGetInfo(&free, &total);
        cu.cuDeviceTotalMem(&device, 0);
        printf("%d %zu %zu %zu\n", rc, free, total, device);
    } else if (!strcmp(verb, "version")) {
        int version = 0;
        CUresult rc = cu.cuDriverGetVersion(&version);
        printf("%d %d\n", rc, version);
    } else if (strchr("lm2apmxc", verb[0])) {
        CUresult rc = make(verb, a, b, &things[made]);
        printf("%d %u\n", rc, rc ? 0 : made);
        made += !rc;
    } else {
        printf("%d\n", act(verb, a, b));
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    char line[256], verb[32];
    way = argc > 1 ? argv[1] : "dlsym";
    if (!connect_driver())
        return 1;
    while (fgets(line, sizeof line, stdin)) {
        unsigned long a = 0, b = 0;
        if (sscanf(line, "%31s %lu %lu", verb, &a, &b) < 1)
            continue;
        answer(verb, a, b);
    }
    return 0;
}
