// SPDX-License-Identifier: Apache-2.0
// Fills of device memory with a value of 1, 2 or 4 bytes, done when the call returns.
#include "graphs.h"
#include <string.h>

CUresult fill(uintptr_t at, const void *value, size_t width, size_t n) {
    if (!n)
        return CUDA_SUCCESS;
    NEED(at && at % width == 0);
    place_used(at, true);
    if (width == 1)
        memset((void *)at, *(const unsigned char *)value, n);
    else
        for (size_t i = 0; i < n; i++)
            memcpy((char *)at + i * width, value, width);
    return CUDA_SUCCESS;
}

CUresult fill_2d(uintptr_t at, size_t pitch, const void *value, size_t size, size_t width, size_t height) {
    CUresult result = CUDA_SUCCESS;
    for (size_t y = 0; y < height && !result; y++)
        result = fill(at + y * pitch, value, size, width);
    return result;
}

API(cuMemsetD8_v2, CUdeviceptr at, unsigned char value, size_t n) {
    ENTER_CONTEXT();
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD8Async, CUdeviceptr at, unsigned char value, size_t n, CUstream stream) {
    ENTER_CONTEXT();
    OR_CAPTURE(stream, .type = NODE_MEMSET, .fill = {at, 0, value, sizeof value, n, 1});
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD16_v2, CUdeviceptr at, unsigned short value, size_t n) {
    ENTER_CONTEXT();
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD16Async, CUdeviceptr at, unsigned short value, size_t n, CUstream stream) {
    ENTER_CONTEXT();
    OR_CAPTURE(stream, .type = NODE_MEMSET, .fill = {at, 0, value, sizeof value, n, 1});
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD32_v2, CUdeviceptr at, unsigned value, size_t n) {
    ENTER_CONTEXT();
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD32Async, CUdeviceptr at, unsigned value, size_t n, CUstream stream) {
    ENTER_CONTEXT();
    OR_CAPTURE(stream, .type = NODE_MEMSET, .fill = {at, 0, value, sizeof value, n, 1});
    return fill(at, &value, sizeof value, n);
}

API(cuMemsetD2D8_v2, CUdeviceptr at, size_t pitch, unsigned char value, size_t width, size_t height) {
    ENTER_CONTEXT();
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}

API(cuMemsetD2D8Async, CUdeviceptr at, size_t pitch, unsigned char value, size_t width, size_t height,
    CUstream stream) {
    ENTER_CONTEXT();
    OR_CAPTURE(stream, .type = NODE_MEMSET, .fill = {at, pitch, value, sizeof value, width, height});
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}

API(cuMemsetD2D16_v2, CUdeviceptr at, size_t pitch, unsigned short value, size_t width, size_t height) {
    ENTER_CONTEXT();
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}

API(cuMemsetD2D16Async, CUdeviceptr at, size_t pitch, unsigned short value, size_t width, size_t height,
    CUstream stream) {
    ENTER_CONTEXT();
    OR_CAPTURE(stream, .type = NODE_MEMSET, .fill = {at, pitch, value, sizeof value, width, height});
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}

API(cuMemsetD2D32_v2, CUdeviceptr at, size_t pitch, unsigned value, size_t width, size_t height) {
    ENTER_CONTEXT();
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}

API(cuMemsetD2D32Async, CUdeviceptr at, size_t pitch, unsigned value, size_t width, size_t height,
    CUstream stream) {
    ENTER_CONTEXT();
    OR_CAPTURE(stream, .type = NODE_MEMSET, .fill = {at, pitch, value, sizeof value, width, height});
    return fill_2d(at, pitch, &value, sizeof value, width, height);
}
