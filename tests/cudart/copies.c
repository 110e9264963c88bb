// SPDX-License-Identifier: Apache-2.0
// Copies of rows. Which side is the device's, the driver tells by the addresses.
#include "runtime.h"

static CUDA_MEMCPY2D rows(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                          size_t height) {
    return (CUDA_MEMCPY2D){.srcMemoryType = CU_MEMORYTYPE_UNIFIED,
                           .srcDevice = (CUdeviceptr)from,
                           .srcPitch = from_pitch,
                           .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
                           .dstDevice = (CUdeviceptr)to,
                           .dstPitch = to_pitch,
                           .WidthInBytes = width,
                           .Height = height};
}

EXPORT cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                                size_t height, enum cudaMemcpyKind kind) {
    CUDA_MEMCPY2D copy = rows(to, to_pitch, from, from_pitch, width, height);
    ENTER();
    return keep(CALL(cuMemcpy2D, &copy));
}

EXPORT cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                                     size_t width, size_t height, enum cudaMemcpyKind kind,
                                     cudaStream_t stream) {
    CUDA_MEMCPY2D copy = rows(to, to_pitch, from, from_pitch, width, height);
    ENTER();
    return keep(CALL(cuMemcpy2DAsync, &copy, stream));
}
