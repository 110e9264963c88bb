// SPDX-License-Identifier: Apache-2.0
// Copies. Device memory is host memory here, so every direction is a memmove, done when the call returns.
// Arrays are not simulated.
#include "memory.h"
#include <string.h>

static CUresult copy(uintptr_t to, uintptr_t from, size_t size) {
    if (!size)
        return CUDA_SUCCESS;
    NEED(to && from);
    place_written(to, size);
    memmove((void *)to, (const void *)from, size);
    return CUDA_SUCCESS;
}

API(cuMemcpy, CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyAsync, CUdeviceptr to, CUdeviceptr from, size_t size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyHtoD_v2, CUdeviceptr to, const void *from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyHtoDAsync_v2, CUdeviceptr to, const void *from, size_t size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoH_v2, void *to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoHAsync_v2, void *to, CUdeviceptr from, size_t size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoD_v2, CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoDAsync_v2, CUdeviceptr to, CUdeviceptr from, size_t size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyPeer, CUdeviceptr to, UNUSED CUcontext to_context, CUdeviceptr from,
    UNUSED CUcontext from_context, size_t size) {
    ENTER_CONTEXT();
    return copy(to, from, size);
}

API(cuMemcpyPeerAsync, CUdeviceptr to, UNUSED CUcontext to_context, CUdeviceptr from,
    UNUSED CUcontext from_context, size_t size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy(to, from, size);
}

// ------- boxes

static uintptr_t start(int type, const void *host, CUdeviceptr device) {
    return type == CU_MEMORYTYPE_HOST ? (uintptr_t)host : type == CU_MEMORYTYPE_ARRAY ? 0 : (uintptr_t)device;
}

static CUresult copy_3d(const CUDA_MEMCPY3D *box) {
    NEED(box);
    if (box->srcMemoryType == CU_MEMORYTYPE_ARRAY || box->dstMemoryType == CU_MEMORYTYPE_ARRAY)
        return CUDA_ERROR_NOT_SUPPORTED;
    uintptr_t from = start(box->srcMemoryType, box->srcHost, box->srcDevice);
    uintptr_t to = start(box->dstMemoryType, box->dstHost, box->dstDevice);
    size_t depth = box->Depth ? box->Depth : 1;
    NEED(from && to);
    for (size_t z = 0; z < depth; z++)
        for (size_t y = 0; y < box->Height; y++) {
            size_t from_row = (box->srcZ + z) * box->srcHeight + box->srcY + y;
            size_t to_row = (box->dstZ + z) * box->dstHeight + box->dstY + y;
            copy(to + to_row * box->dstPitch + box->dstXInBytes,
                 from + from_row * box->srcPitch + box->srcXInBytes, box->WidthInBytes);
        }
    return CUDA_SUCCESS;
}

static CUresult copy_2d(const CUDA_MEMCPY2D *box) {
    NEED(box);
    CUDA_MEMCPY3D flat = {
        .srcXInBytes = box->srcXInBytes,
        .srcY = box->srcY,
        .srcMemoryType = box->srcMemoryType,
        .srcHost = box->srcHost,
        .srcDevice = box->srcDevice,
        .srcPitch = box->srcPitch,
        .dstXInBytes = box->dstXInBytes,
        .dstY = box->dstY,
        .dstMemoryType = box->dstMemoryType,
        .dstHost = box->dstHost,
        .dstDevice = box->dstDevice,
        .dstPitch = box->dstPitch,
        .WidthInBytes = box->WidthInBytes,
        .Height = box->Height,
        .Depth = 1,
    };
    return copy_3d(&flat);
}

API(cuMemcpy2D_v2, const CUDA_MEMCPY2D *box) {
    ENTER_CONTEXT();
    return copy_2d(box);
}

API(cuMemcpy2DUnaligned_v2, const CUDA_MEMCPY2D *box) {
    ENTER_CONTEXT();
    return copy_2d(box);
}

API(cuMemcpy2DAsync_v2, const CUDA_MEMCPY2D *box, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy_2d(box);
}

API(cuMemcpy3D_v2, const CUDA_MEMCPY3D *box) {
    ENTER_CONTEXT();
    return copy_3d(box);
}

API(cuMemcpy3DAsync_v2, const CUDA_MEMCPY3D *box, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy_3d(box);
}

API(cuMemcpy3DPeer, const CUDA_MEMCPY3D *box) {
    ENTER_CONTEXT();
    return copy_3d(box);
}

API(cuMemcpy3DPeerAsync, const CUDA_MEMCPY3D *box, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy_3d(box);
}
