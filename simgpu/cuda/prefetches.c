// SPDX-License-Identifier: Apache-2.0
// The calls that move managed memory, advise where it should be, and ask where it is.
#include "prefetch.h"
#include <string.h>

enum advice {
    SET_READ_MOSTLY = 1,
    UNSET_READ_MOSTLY,
    SET_PREFERRED,
    UNSET_PREFERRED,
    SET_ACCESSED,
    UNSET_ACCESSED
};
enum range { READ_MOSTLY = 1, PREFERRED = 2, ACCESSED_BY = 3, LAST_PREFETCH = 4 };

// A device or ON_HOST; NUMA nodes of the host are the host.
static CUresult place_of(const CUmemLocation *location, int *place) {
    if (location->type == CU_MEM_LOCATION_DEVICE) {
        NEED_DEVICE(location->id);
        *place = location->id;
        return CUDA_SUCCESS;
    }
    enum { HOST_NUMA_CURRENT = 4 };
    NEED(location->type >= CU_MEM_LOCATION_HOST && location->type <= HOST_NUMA_CURRENT);
    *place = ON_HOST;
    return CUDA_SUCCESS;
}

static CUresult of_number(CUdevice device, int *place) {
    if (device != ON_HOST)
        NEED_DEVICE(device);
    *place = device;
    return CUDA_SUCCESS;
}

API(cuMemPrefetchAsync, CUdeviceptr address, size_t size, CUdevice device, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    int place;
    CUresult result = of_number(device, &place);
    return result ? result : managed_prefetch(address, size, place);
}

API(cuMemPrefetchAsync_v2, CUdeviceptr address, size_t size, CUmemLocation location, unsigned flags,
    UNUSED CUstream stream) {
    ENTER_CONTEXT();
    NEED(!flags);
    int place;
    CUresult result = place_of(&location, &place);
    return result ? result : managed_prefetch(address, size, place);
}

// Location i serves from range first[i] up to the next location's first.
static CUresult prefetch_all(const CUdeviceptr *at, const size_t *sizes, size_t n,
                             const CUmemLocation *locations, const size_t *first, size_t count) {
    NEED(at && sizes && n && locations && first && count && !first[0]);
    size_t location = 0;
    for (size_t i = 0; i < n; i++) {
        while (location + 1 < count && first[location + 1] <= i)
            location++;
        int place;
        CUresult result = place_of(&locations[location], &place);
        if (!result)
            result = managed_prefetch(at[i], sizes[i], place);
        if (result)
            return result;
    }
    return CUDA_SUCCESS;
}

static CUresult discard_all(const CUdeviceptr *at, const size_t *sizes, size_t n) {
    NEED(at && sizes && n);
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < n && !result; i++)
        result = managed_discard(at[i], sizes[i]);
    return result;
}

API(cuMemPrefetchBatchAsync, CUdeviceptr *at, size_t *sizes, size_t n, CUmemLocation *locations,
    size_t *first, size_t count, unsigned long long flags, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    NEED(!flags);
    return prefetch_all(at, sizes, n, locations, first, count);
}

API(cuMemDiscardBatchAsync, CUdeviceptr *at, size_t *sizes, size_t n, unsigned long long flags,
    UNUSED CUstream stream) {
    ENTER_CONTEXT();
    NEED(!flags);
    return discard_all(at, sizes, n);
}

API(cuMemDiscardAndPrefetchBatchAsync, CUdeviceptr *at, size_t *sizes, size_t n, CUmemLocation *locations,
    size_t *first, size_t count, unsigned long long flags, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    NEED(!flags);
    CUresult result = discard_all(at, sizes, n);
    return result ? result : prefetch_all(at, sizes, n, locations, first, count);
}

// ------- advice: remembered, moves nothing

static CUresult advise(CUdeviceptr address, size_t size, int advice, int place) {
    struct block *block;
    NEED(advice >= SET_READ_MOSTLY && advice <= UNSET_ACCESSED);
    lock_acquire(&driver.lock);
    CUresult result = managed_find(&block, address, size);
    if (!result && (advice == SET_READ_MOSTLY || advice == UNSET_READ_MOSTLY))
        block->read_mostly = advice == SET_READ_MOSTLY;
    if (!result && (advice == SET_PREFERRED || advice == UNSET_PREFERRED))
        block->preferred = advice == SET_PREFERRED ? place : NOWHERE;
    lock_release(&driver.lock);
    return result;
}

API(cuMemAdvise, CUdeviceptr address, size_t size, int advice, CUdevice device) {
    ENTER();
    int place = ON_HOST;
    CUresult result = advice >= SET_PREFERRED ? of_number(device, &place) : CUDA_SUCCESS;
    return result ? result : advise(address, size, advice, place);
}

API(cuMemAdvise_v2, CUdeviceptr address, size_t size, int advice, CUmemLocation location) {
    ENTER();
    int place = ON_HOST;
    CUresult result = advice >= SET_PREFERRED ? place_of(&location, &place) : CUDA_SUCCESS;
    return result ? result : advise(address, size, advice, place);
}

static CUresult tell(void *out, size_t room, int attribute, const struct block *block) {
    int *value = out;
    NEED(out && room >= sizeof *value && room % sizeof *value == 0);
    if (attribute == READ_MOSTLY)
        *value = block->read_mostly;
    else if (attribute == PREFERRED)
        *value = block->preferred;
    else if (attribute == LAST_PREFETCH)
        *value = block->fetched;
    else if (attribute == ACCESSED_BY)
        for (size_t i = 0; i < room / sizeof *value; i++)
            value[i] = NOWHERE;
    else
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

API(cuMemRangeGetAttribute, void *out, size_t room, int attribute, CUdeviceptr address, size_t size) {
    ENTER();
    struct block *block;
    lock_acquire(&driver.lock);
    CUresult result = managed_find(&block, address, size);
    if (!result)
        result = tell(out, room, attribute, block);
    lock_release(&driver.lock);
    return result;
}

API(cuMemRangeGetAttributes, void **out, size_t *room, int *attributes, size_t n, CUdeviceptr address,
    size_t size) {
    ENTER();
    NEED(out && room && attributes && n);
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < n && !result; i++)
        result = cuMemRangeGetAttribute(out[i], room[i], attributes[i], address, size);
    return result;
}
