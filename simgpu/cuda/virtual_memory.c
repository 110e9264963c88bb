// SPDX-License-Identifier: Apache-2.0
// Virtual memory management: addresses are reserved, physical memory is made, mapped there and made
// accessible.
#include "virtual_memory.h"
#include <stdlib.h>
#include <sys/mman.h>

struct intervals reservations, mappings;

enum { MINIMUM_ALIGNMENT = 4096 };

API(cuMemGetAllocationGranularity, size_t *granularity, const CUmemAllocationProp *properties, int option) {
    ENTER();
    NEED(granularity && properties && (option == 0 || option == 1));
    *granularity = driver.costs.granularity;
    return CUDA_SUCCESS;
}

// Mapped with room for the alignment; what is over at both ends is returned.
static void *reserve(size_t size, size_t alignment, uintptr_t wanted) {
    size_t room = size + alignment;
    if (room < size)
        return NULL;
    char *at = mmap((void *)wanted, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    char *aligned = (char *)round_up((uintptr_t)at, alignment);
    if (aligned > at)
        munmap(at, (size_t)(aligned - at));
    if (at + room > aligned + size)
        munmap(aligned + size, (size_t)(at + room - (aligned + size)));
    return aligned;
}

API(cuMemAddressReserve, CUdeviceptr *out, size_t size, size_t alignment, CUdeviceptr wanted,
    uint64_t flags) {
    ENTER();
    NEED(out && size && size % MINIMUM_ALIGNMENT == 0 && !flags && !(alignment & (alignment - 1)));
    if (alignment < driver.costs.granularity)
        alignment = driver.costs.granularity;
    lock_acquire(&driver.lock);
    void *at = reserve(size, alignment, wanted);
    bool added = at && intervals_add(&reservations, (struct interval){(uintptr_t)at, size, NULL});
    lock_release(&driver.lock);
    if (!added)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = (CUdeviceptr)at;
    return CUDA_SUCCESS;
}

API(cuMemAddressFree, CUdeviceptr address, size_t size) {
    ENTER();
    lock_acquire(&driver.lock);
    struct interval *reserved = intervals_find(&reservations, address);
    bool whole = reserved && reserved->base == address && reserved->size == size;
    bool free = whole && !intervals_overlap(&mappings, address, size);
    if (free) {
        munmap((void *)address, size);
        intervals_remove(&reservations, reserved);
    }
    lock_release(&driver.lock);
    return free ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult known_place(const CUmemLocation *location) {
    if (location->type == CU_MEM_LOCATION_DEVICE)
        NEED_DEVICE(location->id);
    else
        NEED(location->type == CU_MEM_LOCATION_HOST || location->type == CU_MEM_LOCATION_HOST_NUMA);
    return CUDA_SUCCESS;
}

API(cuMemCreate, CUmemGenericAllocationHandle *out, size_t size, const CUmemAllocationProp *properties,
    uint64_t flags) {
    ENTER();
    NEED(out && properties && size && size % driver.costs.granularity == 0 && !flags);
    NEED(properties->type == CU_MEM_ALLOCATION_PINNED);
    CUresult result = known_place(&properties->location);
    if (result)
        return result;
    if (properties->requestedHandleTypes & ~CU_MEM_HANDLE_FD)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (size > (uint64_t)1 << 48)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct physical *physical = NULL;
    lock_acquire(&driver.lock);
    result = physical_new(&physical, size, properties);
    lock_release(&driver.lock);
    if (!result)
        *out = (uintptr_t)physical;
    return result;
}

API(cuMemRelease, CUmemGenericAllocationHandle handle) {
    ENTER();
    struct physical *physical = physical_of(handle);
    NEED(physical);
    lock_acquire(&driver.lock);
    physical_drop(physical);
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

static CUresult map(uintptr_t address, size_t size, uint64_t offset, struct physical *physical) {
    struct interval *reserved = intervals_find(&reservations, address);
    if (!reserved || address + size > reserved->base + reserved->size ||
        intervals_overlap(&mappings, address, size))
        return CUDA_ERROR_INVALID_VALUE;
    struct mapping *mapping = calloc(1, sizeof *mapping);
    if (!mapping)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *mapping = (struct mapping){physical, offset, new_id()};
    void *at = mmap((void *)address, size, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, physical->fd,
                    (off_t)(physical->offset + offset));
    if (at == MAP_FAILED || !intervals_add(&mappings, (struct interval){address, size, mapping})) {
        free(mapping);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    physical->references++;
    return CUDA_SUCCESS;
}

API(cuMemMap, CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
    uint64_t flags) {
    ENTER();
    struct physical *physical = physical_of(handle);
    NEED(physical && size && !flags && size % MINIMUM_ALIGNMENT == 0 && address % MINIMUM_ALIGNMENT == 0);
    NEED(offset % MINIMUM_ALIGNMENT == 0 && offset <= physical->size && size <= physical->size - offset);
    if (physical->team)
        team_wait(physical->team);
    lock_acquire(&driver.lock);
    CUresult result = map(address, size, offset, physical);
    lock_release(&driver.lock);
    return result;
}

// The range must be made of whole mappings, as with the real driver.
static bool whole_mappings(uintptr_t address, size_t size) {
    uintptr_t at = address;
    while (at < address + size) {
        struct interval *mapped = intervals_find(&mappings, at);
        if (!mapped || mapped->base != at)
            return false;
        at += mapped->size;
    }
    return at == address + size;
}

static void unmap(uintptr_t address, size_t size) {
    mmap((void *)address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    for (uintptr_t at = address; at < address + size;) {
        struct interval *mapped = intervals_find(&mappings, at);
        struct mapping *mapping = mapped->object;
        at += mapped->size;
        intervals_remove(&mappings, mapped);
        physical_drop(mapping->physical);
        free(mapping);
    }
}

API(cuMemUnmap, CUdeviceptr address, size_t size) {
    ENTER();
    lock_acquire(&driver.lock);
    bool whole = size && whole_mappings(address, size);
    if (whole)
        unmap(address, size);
    lock_release(&driver.lock);
    return whole ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// Access by any device opens the mapping: there is one memory here, that of the host.
API(cuMemSetAccess, CUdeviceptr address, size_t size, const CUmemAccessDesc *access, size_t n) {
    ENTER();
    NEED(access && n && size);
    lock_acquire(&driver.lock);
    bool open = false, whole = whole_mappings(address, size);
    for (size_t i = 0; i < n; i++)
        open |= access[i].flags != CU_MEM_ACCESS_NONE;
    if (whole)
        whole = !mprotect((void *)address, size, open ? PROT_READ | PROT_WRITE : PROT_NONE);
    lock_release(&driver.lock);
    return whole ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API(cuMemGetAccess, unsigned long long *flags, const CUmemLocation *location, CUdeviceptr address) {
    ENTER();
    NEED(flags && location);
    lock_acquire(&driver.lock);
    bool mapped = intervals_find(&mappings, address);
    lock_release(&driver.lock);
    *flags = CU_MEM_ACCESS_READWRITE;
    return mapped ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API(cuMemGetAllocationPropertiesFromHandle, CUmemAllocationProp *out, CUmemGenericAllocationHandle handle) {
    ENTER();
    struct physical *physical = physical_of(handle);
    NEED(out && physical && !physical->team);
    *out = physical->properties;
    return CUDA_SUCCESS;
}

API(cuMemRetainAllocationHandle, CUmemGenericAllocationHandle *out, void *address) {
    ENTER();
    NEED(out);
    lock_acquire(&driver.lock);
    struct interval *mapped = intervals_find(&mappings, (uintptr_t)address);
    struct mapping *mapping = mapped ? mapped->object : NULL;
    if (mapping) {
        mapping->physical->references++;
        *out = (uintptr_t)mapping->physical;
    }
    lock_release(&driver.lock);
    return mapping ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API(cuMemExportToShareableHandle, void *out, CUmemGenericAllocationHandle handle, int type, uint64_t flags) {
    ENTER();
    struct physical *physical = physical_of(handle);
    NEED(out && physical && !flags && type == CU_MEM_HANDLE_FD);
    NEED(physical->properties.requestedHandleTypes & CU_MEM_HANDLE_FD);
    lock_acquire(&driver.lock);
    int fd = physical_export(physical);
    lock_release(&driver.lock);
    if (fd < 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    *(int *)out = fd;
    return CUDA_SUCCESS;
}

API(cuMemImportFromShareableHandle, CUmemGenericAllocationHandle *out, void *shareable, int type) {
    ENTER();
    NEED(out && type == CU_MEM_HANDLE_FD);
    struct physical *physical = NULL;
    lock_acquire(&driver.lock);
    CUresult result = physical_import(&physical, (int)(intptr_t)shareable);
    lock_release(&driver.lock);
    if (!result)
        *out = (uintptr_t)physical;
    return result;
}
