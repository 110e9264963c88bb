// SPDX-License-Identifier: Apache-2.0
// The interface of before CUDA 3.2, whose addresses and sizes have 32 bits. Its memory lies below 4 GiB
// (where this process has room there), so that its addresses are the same as everybody's; everything else is
// a widening.
#include "copies.h"
#include <string.h>

typedef unsigned CUdeviceptr_v1;

typedef struct {
    unsigned width, height;
    int format;
    unsigned channels;
} CUDA_ARRAY_DESCRIPTOR_v1;

typedef struct {
    unsigned width, height, depth;
    int format;
    unsigned channels, flags;
} CUDA_ARRAY3D_DESCRIPTOR_v1;

typedef struct {
    unsigned srcXInBytes, srcY;
    int srcMemoryType;
    const void *srcHost;
    CUdeviceptr_v1 srcDevice;
    void *srcArray;
    unsigned srcPitch;
    unsigned dstXInBytes, dstY;
    int dstMemoryType;
    void *dstHost;
    CUdeviceptr_v1 dstDevice;
    void *dstArray;
    unsigned dstPitch;
    unsigned WidthInBytes, Height;
} CUDA_MEMCPY2D_v1;

typedef struct {
    unsigned srcXInBytes, srcY, srcZ, srcLOD;
    int srcMemoryType;
    const void *srcHost;
    CUdeviceptr_v1 srcDevice;
    void *srcArray, *reserved0;
    unsigned srcPitch, srcHeight;
    unsigned dstXInBytes, dstY, dstZ, dstLOD;
    int dstMemoryType;
    void *dstHost;
    CUdeviceptr_v1 dstDevice;
    void *dstArray, *reserved1;
    unsigned dstPitch, dstHeight;
    unsigned WidthInBytes, Height, Depth;
} CUDA_MEMCPY3D_v1;

// ------- memory

static CUresult low_memory(CUdeviceptr_v1 *out, uint64_t size, struct context *ctx) {
    NEED(out && size);
    struct block *block;
    uint64_t cost = round_up(size, driver.costs.granularity);
    lock_acquire(&driver.lock);
    CUresult result = memory_make(&block, (struct request){size, cost, KIND_DEVICE, REACH_32, ctx, NULL});
    lock_release(&driver.lock);
    if (!result)
        *out = (CUdeviceptr_v1)block->base;
    return result;
}

API(cuMemAlloc, CUdeviceptr_v1 *out, unsigned size) {
    ENTER_CONTEXT();
    return low_memory(out, size, ctx);
}

API(cuMemAllocPitch, CUdeviceptr_v1 *out, unsigned *pitch, unsigned width, unsigned height,
    unsigned element) {
    enum { ALIGNMENT = 512 };
    ENTER_CONTEXT();
    NEED(out && pitch && width && height && (element == 4 || element == 8 || element == 16));
    uint64_t row = round_up(width, ALIGNMENT);
    if (row * height > UINT32_MAX)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *pitch = (unsigned)row;
    return low_memory(out, row * height, ctx);
}

API(cuMemFree, CUdeviceptr_v1 address) {
    ENTER_CONTEXT();
    return memory_free(address);
}

static CUresult narrow(uint64_t value, unsigned *out) {
    if (value > UINT32_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    if (out)
        *out = (unsigned)value;
    return CUDA_SUCCESS;
}

API(cuMemGetAddressRange, CUdeviceptr_v1 *base, unsigned *size, CUdeviceptr_v1 address) {
    ENTER_CONTEXT();
    lock_acquire(&driver.lock);
    struct place place = place_find(address);
    lock_release(&driver.lock);
    if (place.kind == KIND_FREE || place.registered)
        return CUDA_ERROR_NOT_FOUND;
    CUresult result = narrow(place.base, base);
    return result ? result : narrow(place.size, size);
}

API(cuMemAllocHost, void **out, unsigned size) {
    ENTER_CONTEXT();
    NEED(out && size);
    struct block *block;
    lock_acquire(&driver.lock);
    CUresult result = memory_make(&block, (struct request){size, 0, KIND_HOST, REACH_ALL, ctx, NULL});
    lock_release(&driver.lock);
    if (!result)
        *out = (void *)block->base;
    return result;
}

// Of memory beyond 4 GiB this interface cannot give an address.
API(cuMemHostGetDevicePointer, CUdeviceptr_v1 *out, void *address, unsigned flags) {
    ENTER_CONTEXT();
    NEED(out && !flags);
    return narrow((uintptr_t)address, out);
}

// ------- arrays

API(cuArrayCreate, CUarray *out, const CUDA_ARRAY_DESCRIPTOR_v1 *flat) {
    ENTER_CONTEXT();
    NEED(flat);
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {flat->width, flat->height, 0, flat->format, flat->channels, 0};
    return array_create(out, &descriptor, ctx);
}

API(cuArray3DCreate, CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR_v1 *box) {
    ENTER_CONTEXT();
    NEED(box);
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {box->width,  box->height,   box->depth,
                                          box->format, box->channels, box->flags};
    return array_create(out, &descriptor, ctx);
}

API(cuArrayGetDescriptor, CUDA_ARRAY_DESCRIPTOR_v1 *out, CUarray array) {
    ENTER_CONTEXT();
    NEED(out);
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUresult result = array_describe(&wide, array);
    if (!result)
        *out = (CUDA_ARRAY_DESCRIPTOR_v1){(unsigned)wide.width, (unsigned)wide.height, wide.format,
                                          wide.channels};
    return result;
}

API(cuArray3DGetDescriptor, CUDA_ARRAY3D_DESCRIPTOR_v1 *out, CUarray array) {
    ENTER_CONTEXT();
    NEED(out);
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUresult result = array_describe(&wide, array);
    if (!result)
        *out = (CUDA_ARRAY3D_DESCRIPTOR_v1){(unsigned)wide.width, (unsigned)wide.height, (unsigned)wide.depth,
                                            wide.format,          wide.channels,         wide.flags};
    return result;
}

// ------- copies

API(cuMemcpyHtoD, CUdeviceptr_v1 to, const void *from, unsigned size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyHtoDAsync, CUdeviceptr_v1 to, const void *from, unsigned size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoH, void *to, CUdeviceptr_v1 from, unsigned size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoHAsync, void *to, CUdeviceptr_v1 from, unsigned size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoD, CUdeviceptr_v1 to, CUdeviceptr_v1 from, unsigned size) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

API(cuMemcpyDtoDAsync, CUdeviceptr_v1 to, CUdeviceptr_v1 from, unsigned size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy((uintptr_t)to, (uintptr_t)from, size);
}

static CUresult from_array(uintptr_t to, CUarray array, unsigned offset, unsigned size) {
    uintptr_t from;
    CUresult result = copy_array(array, offset, size, &from);
    return result ? result : copy(to, from, size);
}

static CUresult to_array(CUarray array, unsigned offset, uintptr_t from, unsigned size) {
    uintptr_t to;
    CUresult result = copy_array(array, offset, size, &to);
    return result ? result : copy(to, from, size);
}

API(cuMemcpyAtoH, void *to, CUarray from, unsigned offset, unsigned size) {
    ENTER_CONTEXT();
    return from_array((uintptr_t)to, from, offset, size);
}

API(cuMemcpyAtoHAsync, void *to, CUarray from, unsigned offset, unsigned size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return from_array((uintptr_t)to, from, offset, size);
}

API(cuMemcpyAtoD, CUdeviceptr_v1 to, CUarray from, unsigned offset, unsigned size) {
    ENTER_CONTEXT();
    return from_array(to, from, offset, size);
}

API(cuMemcpyHtoA, CUarray to, unsigned offset, const void *from, unsigned size) {
    ENTER_CONTEXT();
    return to_array(to, offset, (uintptr_t)from, size);
}

API(cuMemcpyHtoAAsync, CUarray to, unsigned offset, const void *from, unsigned size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return to_array(to, offset, (uintptr_t)from, size);
}

API(cuMemcpyDtoA, CUarray to, unsigned offset, CUdeviceptr_v1 from, unsigned size) {
    ENTER_CONTEXT();
    return to_array(to, offset, from, size);
}

API(cuMemcpyAtoA, CUarray to, unsigned to_offset, CUarray from, unsigned from_offset, unsigned size) {
    ENTER_CONTEXT();
    uintptr_t at;
    CUresult result = copy_array(from, from_offset, size, &at);
    return result ? result : to_array(to, to_offset, at, size);
}

static CUresult copy_flat(const CUDA_MEMCPY2D_v1 *box) {
    NEED(box);
    CUDA_MEMCPY2D wide = {
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
    };
    return copy_2d(&wide);
}

static CUresult copy_box(const CUDA_MEMCPY3D_v1 *box) {
    NEED(box);
    CUDA_MEMCPY3D wide = {
        .srcXInBytes = box->srcXInBytes,
        .srcY = box->srcY,
        .srcZ = box->srcZ,
        .srcMemoryType = box->srcMemoryType,
        .srcHost = box->srcHost,
        .srcDevice = box->srcDevice,
        .srcArray = box->srcArray,
        .srcPitch = box->srcPitch,
        .srcHeight = box->srcHeight,
        .dstXInBytes = box->dstXInBytes,
        .dstY = box->dstY,
        .dstZ = box->dstZ,
        .dstMemoryType = box->dstMemoryType,
        .dstHost = box->dstHost,
        .dstDevice = box->dstDevice,
        .dstArray = box->dstArray,
        .dstPitch = box->dstPitch,
        .dstHeight = box->dstHeight,
        .WidthInBytes = box->WidthInBytes,
        .Height = box->Height,
        .Depth = box->Depth,
    };
    return copy_3d(&wide);
}

API(cuMemcpy2D, const CUDA_MEMCPY2D_v1 *box) {
    ENTER_CONTEXT();
    return copy_flat(box);
}

API(cuMemcpy2DUnaligned, const CUDA_MEMCPY2D_v1 *box) {
    ENTER_CONTEXT();
    return copy_flat(box);
}

API(cuMemcpy2DAsync, const CUDA_MEMCPY2D_v1 *box, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy_flat(box);
}

API(cuMemcpy3D, const CUDA_MEMCPY3D_v1 *box) {
    ENTER_CONTEXT();
    return copy_box(box);
}

API(cuMemcpy3DAsync, const CUDA_MEMCPY3D_v1 *box, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return copy_box(box);
}

// ------- fills

API(cuMemsetD8, CUdeviceptr_v1 at, unsigned char value, unsigned n) {
    ENTER_CONTEXT();
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD16, CUdeviceptr_v1 at, unsigned short value, unsigned n) {
    ENTER_CONTEXT();
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD32, CUdeviceptr_v1 at, unsigned value, unsigned n) {
    ENTER_CONTEXT();
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD2D8, CUdeviceptr_v1 at, unsigned pitch, unsigned char value, unsigned width, unsigned height) {
    ENTER_CONTEXT();
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}

API(cuMemsetD2D16, CUdeviceptr_v1 at, unsigned pitch, unsigned short value, unsigned width, unsigned height) {
    ENTER_CONTEXT();
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}

API(cuMemsetD2D32, CUdeviceptr_v1 at, unsigned pitch, unsigned value, unsigned width, unsigned height) {
    ENTER_CONTEXT();
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}
