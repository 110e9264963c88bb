// SPDX-License-Identifier: Apache-2.0
// What an address is: one answer for linear memory, small blocks, pools, virtual memory and registered host
// memory. Registration of host memory, and the questions that clients ask about pointers.
#include "memory.h"
#include "virtual_memory.h"

static struct intervals registered;

static bool in_arena(uintptr_t address, struct place *place) {
    struct block *block = arena_find(address);
    if (!block || block->kind == KIND_ARRAY)
        return false;
    *place = (struct place){block->base,   block->size,    block->id,  block->kind,
                            block->device, block->context, block->pool};
    if (block->kind != KIND_SLAB)
        return address < block->base + block->size;
    place->kind = KIND_DEVICE;
    return slab_find(block->slab, address, place);
}

static bool in_virtual_memory(uintptr_t address, struct place *place) {
    struct interval *mapped = intervals_find(&mappings, address);
    if (!mapped)
        return false;
    struct mapping *mapping = mapped->object;
    bool host = mapping->physical->properties.location.type != CU_MEM_LOCATION_DEVICE;
    *place = (struct place){mapped->base,
                            mapped->size,
                            mapping->id,
                            host ? KIND_HOST : KIND_DEVICE,
                            mapping->physical->device,
                            .virtual_memory = true};
    return true;
}

static bool in_registered(uintptr_t address, struct place *place) {
    struct interval *known = intervals_find(&registered, address);
    if (known)
        *place = (struct place){known->base, known->size, 0, KIND_HOST, 0, known->object, .registered = true};
    return known;
}

struct place place_find(uintptr_t address) {
    struct place place = {0};
    if (!in_arena(address, &place) && !in_virtual_memory(address, &place) && !in_registered(address, &place))
        place = (struct place){.kind = KIND_FREE};
    return place;
}

void place_used(uintptr_t address, bool written) {
    lock_acquire(&driver.lock);
    struct block *block = arena_find(address);
    if (block && written)
        block->dirty = true;
    if (block && block->kind == KIND_MANAGED)
        managed_used(block);
    lock_release(&driver.lock);
}

static CUresult register_host(void *address, size_t size, struct context *ctx) {
    NEED(address && size);
    lock_acquire(&driver.lock);
    bool known = intervals_overlap(&registered, (uintptr_t)address, size) || arena_find((uintptr_t)address);
    bool added = !known && intervals_add(&registered, (struct interval){(uintptr_t)address, size, ctx});
    lock_release(&driver.lock);
    if (known)
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    return added ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

API(cuMemHostRegister_v2, void *address, size_t size, UNUSED unsigned flags) {
    ENTER_CONTEXT();
    return register_host(address, size, ctx);
}

API(cuMemHostRegister, void *address, size_t size, UNUSED unsigned flags) {
    ENTER_CONTEXT();
    return register_host(address, size, ctx);
}

API(cuMemHostUnregister, void *address) {
    ENTER_CONTEXT();
    lock_acquire(&driver.lock);
    struct interval *known = intervals_find(&registered, (uintptr_t)address);
    bool whole = known && known->base == (uintptr_t)address;
    if (whole)
        intervals_remove(&registered, known);
    lock_release(&driver.lock);
    return whole ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

static struct place locked_find(uintptr_t address) {
    lock_acquire(&driver.lock);
    struct place place = place_find(address);
    lock_release(&driver.lock);
    return place;
}

API(cuMemHostGetDevicePointer_v2, CUdeviceptr *out, void *address, unsigned flags) {
    ENTER_CONTEXT();
    NEED(out && !flags && locked_find((uintptr_t)address).kind == KIND_HOST);
    *out = (CUdeviceptr)address;
    return CUDA_SUCCESS;
}

API(cuMemGetAddressRange_v2, CUdeviceptr *base, size_t *size, CUdeviceptr address) {
    ENTER_CONTEXT();
    struct place place = locked_find(address);
    if (place.kind == KIND_FREE || place.registered)
        return CUDA_ERROR_NOT_FOUND;
    if (base)
        *base = place.base;
    if (size)
        *size = place.size;
    return CUDA_SUCCESS;
}

enum pointer_attribute {
    CONTEXT = 1,
    MEMORY_TYPE,
    DEVICE_POINTER,
    HOST_POINTER,
    P2P_TOKENS,
    SYNC_MEMOPS,
    BUFFER_ID,
    IS_MANAGED,
    DEVICE_ORDINAL,
    LEGACY_IPC,
    RANGE_START,
    RANGE_SIZE,
    MAPPED,
    HANDLE_TYPES,
    RDMA,
    ACCESS_FLAGS,
    POOL,
    MAPPING_SIZE,
    MAPPING_BASE,
    BLOCK_ID,
};

// Each attribute has a width of its own, which the caller provides room for.
static CUresult answer(void *out, int attribute, const struct place *place, uintptr_t address) {
    bool host = place->kind == KIND_HOST;
    switch (attribute) {
    case CONTEXT:
        *(CUcontext *)out = place->virtual_memory ? NULL : place->context;
        break;
    case MEMORY_TYPE:
        *(unsigned *)out = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        break;
    case DEVICE_POINTER:
        *(CUdeviceptr *)out = address;
        break;
    case HOST_POINTER:
        if (!host && place->kind != KIND_MANAGED)
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)out = (void *)address;
        break;
    case SYNC_MEMOPS:
    case LEGACY_IPC:
    case RDMA:
        *(unsigned char *)out = 0;
        break;
    case BUFFER_ID:
        *(unsigned long long *)out = place->id;
        break;
    case IS_MANAGED:
        *(unsigned char *)out = place->kind == KIND_MANAGED;
        break;
    case DEVICE_ORDINAL:
        *(int *)out = place->device;
        break;
    case RANGE_START:
    case MAPPING_BASE:
        *(CUdeviceptr *)out = place->base;
        break;
    case RANGE_SIZE:
    case MAPPING_SIZE:
        *(size_t *)out = place->size;
        break;
    case MAPPED:
        *(unsigned char *)out = 1;
        break;
    case HANDLE_TYPES:
        *(unsigned long long *)out = 0;
        break;
    case ACCESS_FLAGS:
        *(int *)out = CU_MEM_ACCESS_READWRITE;
        break;
    case POOL:
        *(CUmemoryPool *)out = place->pool;
        break;
    case BLOCK_ID:
        *(unsigned long long *)out = place->id;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

API(cuPointerGetAttribute, void *out, int attribute, CUdeviceptr address) {
    ENTER();
    NEED(out);
    struct place place = locked_find(address);
    return place.kind == KIND_FREE ? CUDA_ERROR_INVALID_VALUE : answer(out, attribute, &place, address);
}

// Unlike the one above, of an address that is not the driver's it says so in the values: type and pointers
// are 0, the ordinal is -2.
API(cuPointerGetAttributes, unsigned n, int *attributes, void **out, CUdeviceptr address) {
    ENTER();
    NEED(attributes && out);
    struct place place = locked_find(address);
    for (unsigned i = 0; i < n; i++) {
        if (place.kind != KIND_FREE)
            answer(out[i], attributes[i], &place, address);
        else if (attributes[i] == MEMORY_TYPE || attributes[i] == DEVICE_ORDINAL)
            *(int *)out[i] = attributes[i] == DEVICE_ORDINAL ? -2 : 0;
        else if (attributes[i] == IS_MANAGED || attributes[i] == MAPPED)
            *(unsigned char *)out[i] = 0;
        else
            *(void **)out[i] = NULL;
    }
    return CUDA_SUCCESS;
}

API(cuPointerSetAttribute, UNUSED const void *value, int attribute, CUdeviceptr address) {
    ENTER();
    NEED(attribute == SYNC_MEMOPS && locked_find(address).kind != KIND_FREE);
    return CUDA_SUCCESS;
}
