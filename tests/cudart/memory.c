// SPDX-License-Identifier: Apache-2.0
// Memory, where the runtime does a little more than the driver: nothing is a size, and nothing can be freed.
#include "runtime.h"
#include <string.h>

EXPORT cudaError_t cudaMalloc(void **at, size_t size) {
    ENTER();
    *at = NULL;
    return size ? keep(CALL(cuMemAlloc, (CUdeviceptr *)at, size)) : cudaSuccess;
}

EXPORT cudaError_t cudaMallocPitch(void **at, size_t *pitch, size_t width, size_t height) {
    enum { ELEMENT = 4 };
    ENTER();
    *at = NULL;
    *pitch = 0;
    return width && height ? keep(CALL(cuMemAllocPitch, (CUdeviceptr *)at, pitch, width, height, ELEMENT))
                           : cudaSuccess;
}

EXPORT cudaError_t cudaFree(void *at) {
    ENTER();
    return at ? keep(CALL(cuMemFree, (CUdeviceptr)at)) : cudaSuccess;
}

EXPORT cudaError_t cudaFreeHost(void *at) {
    ENTER();
    return at ? keep(CALL(cuMemFreeHost, at)) : cudaSuccess;
}

// The driver takes the handle by value too, but as a structure of its own name.
EXPORT cudaError_t cudaIpcOpenMemHandle(void **at, cudaIpcMemHandle_t handle, unsigned flags) {
    CUipcMemHandle same;
    memcpy(&same, &handle, sizeof same);
    ENTER();
    return keep(CALL(cuIpcOpenMemHandle, (CUdeviceptr *)at, same, flags));
}

EXPORT cudaError_t cudaIpcOpenEventHandle(cudaEvent_t *event, cudaIpcEventHandle_t handle) {
    CUipcEventHandle same;
    memcpy(&same, &handle, sizeof same);
    ENTER();
    return keep(CALL(cuIpcOpenEventHandle, event, same));
}

static enum cudaMemoryType type_of(unsigned kind, int managed) {
    if (managed)
        return cudaMemoryTypeManaged;
    if (kind == CU_MEMORYTYPE_HOST)
        return cudaMemoryTypeHost;
    return kind == CU_MEMORYTYPE_DEVICE ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
}

EXPORT cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *at) {
    unsigned kind = 0;
    int managed = 0, device = -2; // of no device
    CUdeviceptr on_device = 0;
    void *on_host = NULL;
    CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                   CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
                                   CU_POINTER_ATTRIBUTE_HOST_POINTER};
    void *values[] = {&kind, &managed, &device, &on_device, &on_host};
    ENTER();
    cudaError_t error =
        CALL(cuPointerGetAttributes, sizeof which / sizeof *which, which, values, (CUdeviceptr)at);
    *out = (struct cudaPointerAttributes){.type = type_of(kind, managed),
                                          .device = device,
                                          .devicePointer = (void *)on_device,
                                          .hostPointer = on_host};
    return keep(error);
}
