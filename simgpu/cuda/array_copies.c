// SPDX-License-Identifier: Apache-2.0
// Copies of bytes to and from arrays: an array's rows are taken as one line.
#include "copies.h"

CUresult copy_array(CUarray array, size_t offset, size_t size, uintptr_t *at) {
    if (!array_has_memory(array))
        return CUDA_ERROR_INVALID_HANDLE;
    size_t all = array->extent.row * array->extent.rows;
    NEED(offset <= all && size <= all - offset);
    *at = array->at + offset;
    return CUDA_SUCCESS;
}

static CUresult out_of(CUarray array, size_t offset, uintptr_t to, size_t size) {
    uintptr_t from;
    CUresult result = copy_array(array, offset, size, &from);
    return result ? result : copy(to, from, size);
}

static CUresult into(CUarray array, size_t offset, uintptr_t from, size_t size) {
    uintptr_t to;
    CUresult result = copy_array(array, offset, size, &to);
    return result ? result : copy(to, from, size);
}

API(cuMemcpyAtoH_v2, void *to, CUarray from, size_t offset, size_t size) {
    ENTER_CONTEXT();
    return out_of(from, offset, (uintptr_t)to, size);
}

API(cuMemcpyAtoHAsync_v2, void *to, CUarray from, size_t offset, size_t size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return out_of(from, offset, (uintptr_t)to, size);
}

API(cuMemcpyAtoD_v2, CUdeviceptr to, CUarray from, size_t offset, size_t size) {
    ENTER_CONTEXT();
    return out_of(from, offset, to, size);
}

API(cuMemcpyHtoA_v2, CUarray to, size_t offset, const void *from, size_t size) {
    ENTER_CONTEXT();
    return into(to, offset, (uintptr_t)from, size);
}

API(cuMemcpyHtoAAsync_v2, CUarray to, size_t offset, const void *from, size_t size, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return into(to, offset, (uintptr_t)from, size);
}

API(cuMemcpyDtoA_v2, CUarray to, size_t offset, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return into(to, offset, from, size);
}

API(cuMemcpyAtoA_v2, CUarray to, size_t to_offset, CUarray from, size_t from_offset, size_t size) {
    ENTER_CONTEXT();
    uintptr_t at;
    CUresult result = copy_array(from, from_offset, size, &at);
    return result ? result : into(to, to_offset, at, size);
}
