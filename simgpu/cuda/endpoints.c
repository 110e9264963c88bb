// SPDX-License-Identifier: Apache-2.0
// Logical endpoints: ids that stand for memory of one device, or of several at once, on a fabric. They cost
// no memory themselves; what is bound to one lives until it is unbound or the endpoint is gone. What is sent
// to one reaches nothing, and there is no other process on the fabric: none is exported or imported.
#include "memory.h"
#include "virtual_memory.h"
#include <stdlib.h>

enum { UNICAST = 1, MULTICAST };

typedef struct {
    int type;
    union {
        CUdevice device;
        unsigned devices;
    };
    unsigned long long size;
    unsigned handle_types, flags;
} CUlogicalEndpointProp;

struct binding {
    struct physical *memory; // NULL: of a pool, which is not kept by this
    int device;
    uint64_t at, size;
    struct binding *next;
};

struct endpoint {
    uint32_t id;
    uint64_t size;
    unsigned wanted; // devices of a team
    uint32_t devices;
    bool ready; // somebody asked, and it was
    struct binding *bindings;
    struct endpoint *next;
};

struct ids {
    uint32_t base, count;
    struct ids *next;
};

static struct endpoint *endpoints;
static struct ids *reserved;
static uint32_t last_id;

// All below: with the lock held.

static struct endpoint *endpoint_of(uint32_t id) {
    struct endpoint *endpoint = endpoints;
    while (endpoint && endpoint->id != id)
        endpoint = endpoint->next;
    return endpoint;
}

static bool is_reserved(uint32_t id) {
    for (const struct ids *ids = reserved; ids; ids = ids->next)
        if (id - ids->base < ids->count)
            return true;
    return false;
}

static CUresult reserve(uint32_t *base, uint32_t count) {
    NEED(count && count < UINT32_MAX - last_id);
    struct ids *ids = malloc(sizeof *ids);
    if (!ids)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *ids = (struct ids){last_id + 1, count, reserved};
    last_id += count;
    *base = ids->base;
    reserved = ids;
    return CUDA_SUCCESS;
}

static CUresult release(uint32_t base, uint32_t count) {
    struct ids **link = &reserved;
    while (*link && ((*link)->base != base || (*link)->count != count))
        link = &(*link)->next;
    NEED(*link);
    for (const struct endpoint *endpoint = endpoints; endpoint; endpoint = endpoint->next)
        NEED(endpoint->id - base >= count);
    struct ids *gone = *link;
    *link = gone->next;
    free(gone);
    return CUDA_SUCCESS;
}

static CUresult sound(const CUlogicalEndpointProp *asked) {
    NEED(asked && (asked->type == UNICAST || asked->type == MULTICAST) && !(asked->flags & ~1u));
    if (asked->type == UNICAST)
        NEED_DEVICE(asked->device);
    else
        NEED(asked->devices && asked->devices <= driver.count);
    for (unsigned i = 0; i < driver.count; i++)
        if (!multicast_works((int)i) || asked->handle_types)
            return CUDA_ERROR_NOT_SUPPORTED;
    return CUDA_SUCCESS;
}

static CUresult create(uint32_t id, const CUlogicalEndpointProp *asked) {
    CUresult result = sound(asked);
    if (result)
        return result;
    NEED(is_reserved(id) && !endpoint_of(id) && asked->size && asked->size % driver.costs.granularity == 0);
    struct endpoint *endpoint = malloc(sizeof *endpoint);
    if (!endpoint)
        return CUDA_ERROR_OUT_OF_MEMORY;
    bool alone = asked->type == UNICAST;
    *endpoint = (struct endpoint){.id = id,
                                  .size = asked->size,
                                  .wanted = alone ? 1 : asked->devices,
                                  .devices = alone ? 1u << asked->device : 0,
                                  .next = endpoints};
    endpoints = endpoint;
    return CUDA_SUCCESS;
}

static bool complete(const struct endpoint *endpoint) {
    return endpoint && (unsigned)__builtin_popcount(endpoint->devices) == endpoint->wanted;
}

static CUresult add(uint32_t id, CUdevice device) {
    struct endpoint *endpoint = endpoint_of(id);
    NEED(endpoint && !complete(endpoint) && !(endpoint->devices & 1u << device));
    endpoint->devices |= 1u << device;
    return CUDA_SUCCESS;
}

static void unbind(struct binding **link) {
    struct binding *binding = *link;
    *link = binding->next;
    if (binding->memory)
        physical_drop(binding->memory);
    free(binding);
}

static CUresult destroy(uint32_t id) {
    struct endpoint **link = &endpoints;
    while (*link && (*link)->id != id)
        link = &(*link)->next;
    NEED(*link);
    struct endpoint *gone = *link;
    while (gone->bindings)
        unbind(&gone->bindings);
    *link = gone->next;
    free(gone);
    return CUDA_SUCCESS;
}

static CUresult bind(uint32_t id, struct binding wanted) {
    struct endpoint *endpoint = endpoint_of(id);
    NEED(endpoint && endpoint->ready && endpoint->devices & 1u << wanted.device);
    NEED(wanted.size && (wanted.at | wanted.size) % driver.costs.granularity == 0);
    NEED(wanted.at <= endpoint->size && wanted.size <= endpoint->size - wanted.at);
    for (const struct binding *is = endpoint->bindings; is; is = is->next)
        NEED(is->device != wanted.device || wanted.at >= is->at + is->size ||
             is->at >= wanted.at + wanted.size);
    struct binding *bound = malloc(sizeof *bound);
    if (!bound)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *bound = wanted;
    bound->next = endpoint->bindings;
    endpoint->bindings = bound;
    if (bound->memory)
        bound->memory->references++;
    return CUDA_SUCCESS;
}

static CUresult bind_memory(uint32_t id, CUdevice device, uint64_t at, CUmemGenericAllocationHandle handle,
                            uint64_t offset, uint64_t size) {
    struct physical *memory = physical_of(handle);
    NEED(memory && !memory->team && memory->charged && device == memory->device);
    NEED(offset % driver.costs.granularity == 0 && offset <= memory->size && size <= memory->size - offset);
    return bind(id, (struct binding){memory, device, at, size, NULL});
}

// Memory of cuMemCreate by where it is mapped, or of a pool.
static CUresult bind_place(uint32_t id, CUdevice device, uint64_t at, uintptr_t address, uint64_t size) {
    struct interval *mapped = intervals_find(&mappings, address);
    struct physical *memory = mapped ? ((struct mapping *)mapped->object)->physical : NULL;
    struct place place = place_find(address);
    NEED(place.kind == KIND_DEVICE && (memory || place.pool) && (!memory || !memory->team));
    NEED(address % driver.costs.granularity == 0 && size <= place.base + place.size - address);
    NEED(device == place.device);
    return bind(id, (struct binding){memory, device, at, size, NULL});
}

// Whole bindings, of which one begins where the range does.
static CUresult unbind_range(uint32_t id, CUdevice device, uint64_t at, uint64_t size) {
    struct endpoint *endpoint = endpoint_of(id);
    NEED(endpoint);
    bool found = false;
    for (const struct binding *is = endpoint->bindings; is; is = is->next) {
        bool within = is->at >= at && is->at - at < size;
        NEED(is->device != device || !within || is->size <= size - (is->at - at));
        found |= is->device == device && is->at == at;
    }
    NEED(found);
    for (struct binding **link = &endpoint->bindings; *link;) {
        if ((*link)->device == device && (*link)->at >= at && (*link)->at - at < size)
            unbind(link);
        else
            link = &(*link)->next;
    }
    return CUDA_SUCCESS;
}

// ------- the interface

static CUresult unlocked(CUresult result) {
    lock_release(&driver.lock);
    return result;
}

API(cuLogicalEndpointIdReserve, uint32_t *base, uint32_t count) {
    ENTER();
    NEED(base);
    lock_acquire(&driver.lock);
    return unlocked(reserve(base, count));
}

API(cuLogicalEndpointIdRelease, uint32_t base, uint32_t count) {
    ENTER();
    lock_acquire(&driver.lock);
    return unlocked(release(base, count));
}

API(cuLogicalEndpointCreate, uint32_t id, const CUlogicalEndpointProp *asked) {
    ENTER();
    lock_acquire(&driver.lock);
    return unlocked(create(id, asked));
}

API(cuLogicalEndpointAddDevice, uint32_t id, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    lock_acquire(&driver.lock);
    return unlocked(add(id, device));
}

API(cuLogicalEndpointDestroy, uint32_t id) {
    ENTER();
    lock_acquire(&driver.lock);
    return unlocked(destroy(id));
}

API(cuLogicalEndpointBindMem, uint32_t id, CUdevice device, uint64_t at, CUmemGenericAllocationHandle memory,
    uint64_t offset, uint64_t size, unsigned long long flags) {
    ENTER();
    NEED_DEVICE(device);
    NEED(!flags);
    lock_acquire(&driver.lock);
    return unlocked(bind_memory(id, device, at, memory, offset, size));
}

API(cuLogicalEndpointBindAddr, uint32_t id, CUdevice device, uint64_t at, void *address, uint64_t size,
    unsigned long long flags) {
    ENTER();
    NEED_DEVICE(device);
    NEED(!flags);
    lock_acquire(&driver.lock);
    return unlocked(bind_place(id, device, at, (uintptr_t)address, size));
}

API(cuLogicalEndpointUnbind, uint32_t id, CUdevice device, uint64_t at, uint64_t size) {
    ENTER();
    NEED_DEVICE(device);
    lock_acquire(&driver.lock);
    return unlocked(unbind_range(id, device, at, size));
}

API(cuLogicalEndpointGetLimits, uint64_t *alignment, uint64_t *most, const CUlogicalEndpointProp *asked) {
    ENTER();
    NEED(alignment && most);
    CUresult result = sound(asked);
    if (result)
        return result;
    *alignment = driver.costs.granularity;
    *most = (uint64_t)1 << 40;
    return CUDA_SUCCESS;
}

API(cuLogicalEndpointQuery, uint32_t id, uint32_t count, int *ready) {
    ENTER();
    NEED(ready && count && count <= last_id);
    lock_acquire(&driver.lock);
    *ready = 1;
    for (uint32_t i = 0; i < count && *ready; i++)
        *ready = complete(endpoint_of(id + i));
    for (uint32_t i = 0; i < count && *ready; i++)
        endpoint_of(id + i)->ready = true;
    return unlocked(CUDA_SUCCESS);
}
