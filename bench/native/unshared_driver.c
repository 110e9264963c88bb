// SPDX-License-Identifier: Apache-2.0
/* A driver whose threads share nothing: each hands out addresses of its own. Against it is measured what
 * threads cost each other within the library; a driver's lock, for which they wait as well, is left out of
 * both sides. It has one GPU and no more functions than the bench calls. */
#include "abi.h"

#include <string.h>

#define API __attribute__((visibility("default"))) CUresult

enum { PAGE = 2 << 20, APART = 1 << 30 };

static _Thread_local CUdeviceptr next;
static _Thread_local CUcontext current;

API cuInit(unsigned flags) {
    return (void)flags, CUDA_SUCCESS;
}

API cuDeviceGetCount(int *count) {
    *count = 1;
    return CUDA_SUCCESS;
}

API cuDeviceGetUuid_v2(uint8_t uuid[16], CUdevice device) {
    memset(uuid, 1 + device, 16);
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    static uint64_t only[2];
    *context = (CUcontext)&only[device];
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(CUcontext context) {
    current = context;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(CUcontext *context) {
    *context = current;
    return CUDA_SUCCESS;
}

API cuCtxGetDevice(CUdevice *device) {
    *device = 0;
    return CUDA_SUCCESS;
}

API cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    static unsigned threads;
    if (!next)
        next = (CUdeviceptr)__atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED) * APART;
    *address = next;
    next += (bytes + PAGE - 1) / PAGE * PAGE;
    return CUDA_SUCCESS;
}

/* The latest block, as the bench frees it. */
API cuMemFree_v2(CUdeviceptr address) {
    next = address;
    return CUDA_SUCCESS;
}

/* Found by the bench, and not called there. */
API cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream) {
    return (void)address, (void)bytes, (void)stream, CUDA_ERROR_NOT_SUPPORTED;
}

API cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
    return (void)address, (void)stream, CUDA_ERROR_NOT_SUPPORTED;
}

API cuLaunchKernel(void) {
    return CUDA_ERROR_NOT_SUPPORTED;
}
