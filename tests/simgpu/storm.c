// SPDX-License-Identifier: Apache-2.0
// Allocates and frees until it is killed. A failure of anything but memory ends it.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { OUT_OF_MEMORY = 2, HELD = 16 };

int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(uint64_t *at, size_t size);
int cuMemAllocAsync(uint64_t *at, size_t size, void *stream);
int cuMemFree_v2(uint64_t at);
int cuMemCreate(uint64_t *handle, size_t size, const void *properties, uint64_t flags);
int cuMemRelease(uint64_t handle);
int cuCtxSynchronize(void);

// CUmemAllocationProp: pinned, exportable as a descriptor, on device 0.
static const struct {
    int type, handles, place, device;
    void *windows;
    char flags[8];
} exportable = {1, 1, 1, 0, NULL, {0}};

static void need(int result) {
    if (result)
        exit(result);
}

int main(void) {
    static const size_t size[] = {256, 100000, 3 << 20, 200 << 20, 512 << 20};
    uint64_t held[HELD] = {0};
    void *context;
    need(cuInit(0));
    while (cuDevicePrimaryCtxRetain(&context, 0) == OUT_OF_MEMORY)
        ; // the others have it all
    need(cuCtxSetCurrent(context));
    for (unsigned i = 0;; i++) {
        uint64_t *at = &held[i * 7 % HELD];
        need(cuMemFree_v2(*at));
        *at = 0;
        int result = i % 11 ? cuMemAlloc_v2(at, size[i % 5]) : cuMemAllocAsync(at, size[i % 5], NULL);
        need(result == OUT_OF_MEMORY ? 0 : result);
        if (i % 64 == 0)
            need(cuCtxSynchronize());
        uint64_t handle;
        if (i % 3 == 0 && !cuMemCreate(&handle, 4 << 20, &exportable, 0))
            need(cuMemRelease(handle));
    }
}
