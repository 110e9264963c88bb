// SPDX-License-Identifier: Apache-2.0
// Copies. Device memory is host memory here, so every direction is a memmove, done when the call returns.
// Copies to and from arrays lie in array_copies.c, but for boxes.
#include "graphs.h"
#include <string.h>

CUresult copy(uintptr_t to, uintptr_t from, size_t size) {
    if (!size)
        return CUDA_SUCCESS;
    NEED(to && from);
    place_used(from, false);
    place_used(to, true);
    memmove((void *)to, (const void *)from, size);
    return CUDA_SUCCESS;
}

API(cuMemcpy, CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyAsync, CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    return captured_copy(stream, (uintptr_t)to, (uintptr_t)from, size, &result)
               ? result
               : copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyHtoD_v2, CUdeviceptr to, const void *from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyHtoDAsync_v2, CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    return captured_copy(stream, (uintptr_t)to, (uintptr_t)from, size, &result)
               ? result
               : copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoH_v2, void *to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoHAsync_v2, void *to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    return captured_copy(stream, (uintptr_t)to, (uintptr_t)from, size, &result)
               ? result
               : copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoD_v2, CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoDAsync_v2, CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    return captured_copy(stream, (uintptr_t)to, (uintptr_t)from, size, &result)
               ? result
               : copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyPeer, CUdeviceptr to, UNUSED CUcontext to_context, CUdeviceptr from,
    UNUSED CUcontext from_context, size_t size) {
    ENTER_CONTEXT();
    return copy(to, from, size);
}

API(cuMemcpyPeerAsync, CUdeviceptr to, UNUSED CUcontext to_context, CUdeviceptr from,
    UNUSED CUcontext from_context, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    CUresult result;
    return captured_copy(stream, to, from, size, &result) ? result : copy(to, from, size);
}

// ------- boxes

struct side {
    uintptr_t base;
    size_t pitch, height, x, y, z;
};

static bool within(const struct side *side, const struct array *array, const CUDA_MEMCPY3D *box) {
    const struct extent *extent = &array->extent;
    return side->x <= extent->row && box->WidthInBytes <= extent->row - side->x && side->y <= extent->rows &&
           box->Height <= extent->rows - side->y && side->z <= extent->slices &&
           (box->Depth ? box->Depth : 1) <= extent->slices - side->z;
}

static CUresult in_array(struct side *side, const struct array *array, const CUDA_MEMCPY3D *box) {
    if (!array_has_memory(array))
        return CUDA_ERROR_INVALID_HANDLE;
    side->base = array->at;
    side->pitch = array->extent.row;
    side->height = array->extent.rows;
    return within(side, array, box) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult from_side(struct side *side, const CUDA_MEMCPY3D *box) {
    *side = (struct side){0, box->srcPitch, box->srcHeight, box->srcXInBytes, box->srcY, box->srcZ};
    if (box->srcMemoryType == CU_MEMORYTYPE_ARRAY)
        return in_array(side, box->srcArray, box);
    side->base =
        box->srcMemoryType == CU_MEMORYTYPE_HOST ? (uintptr_t)box->srcHost : (uintptr_t)box->srcDevice;
    return side->base ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult to_side(struct side *side, const CUDA_MEMCPY3D *box) {
    *side = (struct side){0, box->dstPitch, box->dstHeight, box->dstXInBytes, box->dstY, box->dstZ};
    if (box->dstMemoryType == CU_MEMORYTYPE_ARRAY)
        return in_array(side, box->dstArray, box);
    side->base =
        box->dstMemoryType == CU_MEMORYTYPE_HOST ? (uintptr_t)box->dstHost : (uintptr_t)box->dstDevice;
    return side->base ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static uintptr_t row_of(const struct side *side, size_t y, size_t z) {
    return side->base + ((side->z + z) * side->height + side->y + y) * side->pitch + side->x;
}

CUresult copy_3d(const CUDA_MEMCPY3D *box) {
    struct side from, to;
    NEED(box);
    CUresult result = from_side(&from, box);
    if (!result)
        result = to_side(&to, box);
    size_t depth = box->Depth ? box->Depth : 1;
    for (size_t z = 0; z < depth; z++)
        for (size_t y = 0; y < box->Height && !result; y++)
            result = copy(row_of(&to, y, z), row_of(&from, y, z), box->WidthInBytes);
    return result;
}

static CUDA_MEMCPY3D widen(const CUDA_MEMCPY2D *box) {
    return (CUDA_MEMCPY3D){
        .srcXInBytes = box->srcXInBytes,
        .srcY = box->srcY,
        .srcMemoryType = box->srcMemoryType,
        .srcHost = box->srcHost,
        .srcDevice = box->srcDevice,
        .srcArray = box->srcArray,
        .srcPitch = box->srcPitch,
        .dstXInBytes = box->dstXInBytes,
        .dstY = box->dstY,
        .dstMemoryType = box->dstMemoryType,
        .dstHost = box->dstHost,
        .dstDevice = box->dstDevice,
        .dstArray = box->dstArray,
        .dstPitch = box->dstPitch,
        .WidthInBytes = box->WidthInBytes,
        .Height = box->Height,
        .Depth = 1,
    };
}

CUresult copy_2d(const CUDA_MEMCPY2D *box) {
    NEED(box);
    CUDA_MEMCPY3D flat = widen(box);
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

API(cuMemcpy2DAsync_v2, const CUDA_MEMCPY2D *box, CUstream stream) {
    ENTER_CONTEXT();
    NEED(box);
    CUDA_MEMCPY3D wide = widen(box);
    OR_CAPTURE(stream, .type = NODE_MEMCPY, .copy = wide);
    return copy_3d(&wide);
}

API(cuMemcpy3D_v2, const CUDA_MEMCPY3D *box) {
    ENTER_CONTEXT();
    return copy_3d(box);
}

API(cuMemcpy3DAsync_v2, const CUDA_MEMCPY3D *box, CUstream stream) {
    ENTER_CONTEXT();
    NEED(box);
    OR_CAPTURE(stream, .type = NODE_MEMCPY, .copy = *box);
    return copy_3d(box);
}

API(cuMemcpy3DPeer, const CUDA_MEMCPY3D *box) {
    ENTER_CONTEXT();
    return copy_3d(box);
}

API(cuMemcpy3DPeerAsync, const CUDA_MEMCPY3D *box, CUstream stream) {
    ENTER_CONTEXT();
    NEED(box);
    OR_CAPTURE(stream, .type = NODE_MEMCPY, .copy = *box);
    return copy_3d(box);
}
