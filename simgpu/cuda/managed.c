// SPDX-License-Identifier: Apache-2.0
// Managed memory. Residency is not simulated: a real device holds managed pages while they are used there and
// gives them up under pressure, so they never make another allocation fail; here they take nothing of the
// device.
#include "memory.h"

enum { ATTACH_GLOBAL = 1, ATTACH_HOST = 2 };

API(cuMemAllocManaged, CUdeviceptr *out, size_t size, unsigned flags) {
    ENTER_CONTEXT();
    NEED(out && size && (flags == ATTACH_GLOBAL || flags == ATTACH_HOST));
    lock_acquire(&driver.lock);
    CUresult result = memory_new(out, size, KIND_MANAGED, ctx, NULL);
    lock_release(&driver.lock);
    return result;
}

// Advice and prefetches are taken for managed memory, whose pages they would move.
static CUresult move(CUdeviceptr address, size_t size) {
    lock_acquire(&driver.lock);
    struct place place = place_find(address);
    lock_release(&driver.lock);
    NEED(place.kind == KIND_MANAGED && size && size <= place.base + place.size - address);
    return CUDA_SUCCESS;
}

API(cuMemAdvise, CUdeviceptr address, size_t size, UNUSED int advice, UNUSED CUdevice device) {
    ENTER();
    return move(address, size);
}

API(cuMemAdvise_v2, CUdeviceptr address, size_t size, UNUSED int advice, UNUSED CUmemLocation location) {
    ENTER();
    return move(address, size);
}

API(cuMemPrefetchAsync, CUdeviceptr address, size_t size, UNUSED CUdevice device, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return move(address, size);
}

API(cuMemPrefetchAsync_v2, CUdeviceptr address, size_t size, UNUSED CUmemLocation location,
    UNUSED unsigned flags, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    return move(address, size);
}
