// SPDX-License-Identifier: Apache-2.0
// Threads that use every kind of memory of one driver at once; compiled with the driver's sources under a
// sanitizer. Prints what is left in use at the end, in MiB.
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, ROUNDS = 600, HELD = 32, PAGE = 2 << 20, DEVICE_ORDINAL = 9 };

int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuCtxCreate_v2(void **context, unsigned flags, int device);
int cuCtxDestroy_v2(void *context);
int cuCtxSynchronize(void);
int cuMemAlloc_v2(uint64_t *at, size_t size);
int cuMemAllocAsync(uint64_t *at, size_t size, void *stream);
int cuMemFree_v2(uint64_t at);
int cuMemGetInfo_v2(size_t *free, size_t *total);
int cuMemsetD8_v2(uint64_t at, unsigned char value, size_t n);
int cuMemHostAlloc(void **at, size_t size, unsigned flags);
int cuMemFreeHost(void *at);
int cuMemCreate(uint64_t *handle, size_t size, const void *properties, uint64_t flags);
int cuMemRelease(uint64_t handle);
int cuMemAddressReserve(uint64_t *at, size_t size, size_t alignment, uint64_t wanted, uint64_t flags);
int cuMemAddressFree(uint64_t at, size_t size);
int cuMemMap(uint64_t at, size_t size, size_t offset, uint64_t handle, uint64_t flags);
int cuMemUnmap(uint64_t at, size_t size);
int cuModuleLoadData(void **module, const void *image);
int cuModuleGetFunction(void **function, void *module, const char *name);
int cuModuleUnload(void *module);
int cuPointerGetAttribute(void *value, int attribute, uint64_t at);

struct properties {
    int type, handles, place, device;
    void *windows;
    char flags[8];
};

static void *shared;

#define NEED(call)                                                                                           \
    do {                                                                                                     \
        int result_ = call;                                                                                  \
        if (result_) {                                                                                       \
            fprintf(stderr, "%s: %d\n", #call, result_);                                                     \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static void use_virtual_memory(int exportable) {
    struct properties properties = {1, exportable, 1, 0, NULL, {0}};
    uint64_t handle, at;
    NEED(cuMemCreate(&handle, PAGE, &properties, 0));
    NEED(cuMemAddressReserve(&at, PAGE, 0, 0, 0));
    NEED(cuMemMap(at, PAGE, 0, handle, 0));
    NEED(cuMemRelease(handle));
    NEED(cuMemUnmap(at, PAGE));
    NEED(cuMemAddressFree(at, PAGE));
}

static void use_a_context(void) {
    void *context;
    uint64_t at;
    NEED(cuCtxCreate_v2(&context, 0, 0));
    NEED(cuMemAlloc_v2(&at, 5000));
    NEED(cuMemAlloc_v2(&at, 5000000));
    NEED(cuCtxDestroy_v2(context));
    NEED(cuCtxSetCurrent(shared));
}

static void use_the_rest(uint64_t at) {
    size_t free, total;
    void *module, *function, *host;
    int device;
    NEED(cuMemGetInfo_v2(&free, &total));
    NEED(cuCtxSynchronize());
    NEED(cuModuleLoadData(&module, ".version 8\n.entry a()"));
    NEED(cuModuleGetFunction(&function, module, "a"));
    NEED(cuModuleUnload(module));
    NEED(cuMemHostAlloc(&host, 10000, 0));
    NEED(cuMemFreeHost(host));
    NEED(cuPointerGetAttribute(&device, DEVICE_ORDINAL, at));
}

static void *work(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    uint64_t held[HELD] = {0};
    NEED(cuCtxSetCurrent(shared));
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t *at = &held[rand_r(&seed) % HELD];
        size_t size = ((size_t)1 << rand_r(&seed) % 26) + (size_t)rand_r(&seed) % 1000;
        NEED(cuMemFree_v2(*at));
        NEED(i % 5 ? cuMemAlloc_v2(at, size) : cuMemAllocAsync(at, size, NULL));
        NEED(cuMemsetD8_v2(*at, 1, size < 100000 ? size : 100000));
        if (i % 20 == 0) {
            use_virtual_memory(i % 40 == 0);
            use_a_context();
            use_the_rest(*at);
        }
    }
    for (int i = 0; i < HELD; i++)
        NEED(cuMemFree_v2(held[i]));
    return NULL;
}

int main(void) {
    pthread_t thread[THREADS];
    size_t free, total;
    NEED(cuInit(0));
    NEED(cuDevicePrimaryCtxRetain(&shared, 0));
    NEED(cuCtxSetCurrent(shared));
    for (uintptr_t i = 0; i < THREADS; i++)
        NEED(pthread_create(&thread[i], NULL, work, (void *)(i + 1)));
    for (int i = 0; i < THREADS; i++)
        NEED(pthread_join(thread[i], NULL));
    NEED(cuCtxSynchronize());
    NEED(cuMemGetInfo_v2(&free, &total));
    printf("%zu\n", (total - free) >> 20);
    return 0;
}
