// SPDX-License-Identifier: Apache-2.0
// Memory that graphs allocate. Per device one pool serves all graphs: before a run it grows to what lives
// plus what the run will have alive at most; what a run leaves unused stays with the pool until it is
// trimmed.
#include "graphs.h"
#include <stdlib.h>

enum attribute { USED_CURRENT, USED_HIGH, RESERVED_CURRENT, RESERVED_HIGH };

static struct {
    uint64_t used, used_high, reserved, reserved_high;
} pool[SIM_DEVICES];

CUresult allocation_new(struct work *work, struct context *ctx) {
    const CUmemPoolProps *properties = &work->alloc.pool;
    NEED(properties->allocType == CU_MEM_ALLOCATION_PINNED && work->alloc.size &&
         properties->location.type == CU_MEM_LOCATION_DEVICE);
    NEED_DEVICE(properties->location.id);
    struct allocation *allocation = calloc(1, sizeof *allocation);
    struct request request = {work->alloc.size, 0, KIND_GRAPH, REACH_ALL, ctx, NULL};
    if (!allocation || memory_make(&allocation->block, request)) {
        free(allocation);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    block_detach(allocation->block); // a graph's, not a context's
    allocation->block->link = NULL;
    allocation->block->allocation = allocation;
    allocation->block->device = allocation->device = properties->location.id;
    allocation->cost = round_up(work->alloc.size, driver.costs.granularity);
    allocation->references = 1;
    work->allocation = allocation;
    work->alloc.at = allocation->block->base;
    return CUDA_SUCCESS;
}

struct allocation *allocation_at(uintptr_t address) {
    struct block *block = arena_find(address);
    return block && block->kind == KIND_GRAPH && block->base == address ? block->allocation : NULL;
}

static void forget(struct allocation *allocation) {
    if (allocation->references || allocation->live)
        return;
    arena_put(allocation->block);
    free(allocation);
}

void allocation_drop(struct allocation *allocation) {
    allocation->references--;
    forget(allocation);
}

CUresult allocation_start(struct allocation *allocation) {
    NEED(!allocation->live);
    allocation->live = true;
    pool[allocation->device].used += allocation->cost;
    if (pool[allocation->device].used > pool[allocation->device].used_high)
        pool[allocation->device].used_high = pool[allocation->device].used;
    return CUDA_SUCCESS;
}

void allocation_end(struct allocation *allocation) {
    if (allocation->live)
        pool[allocation->device].used -= allocation->cost;
    allocation->live = false;
    forget(allocation);
}

CUresult graph_memory_free(struct block *block) {
    NEED(block->allocation->live);
    allocation_end(block->allocation);
    return CUDA_SUCCESS;
}

static bool grow(int device, uint64_t to) {
    if (to <= pool[device].reserved)
        return true;
    if (!charge(device, to - pool[device].reserved))
        return false;
    pool[device].reserved = to;
    if (to > pool[device].reserved_high)
        pool[device].reserved_high = to;
    return true;
}

static void follow(struct node *const *node, size_t count, uint64_t *now, uint64_t *most) {
    for (size_t i = 0; i < count; i++) {
        const struct work *work = &node[i]->work;
        if (!work->allocation)
            continue;
        int device = work->allocation->device;
        now[device] += work->type == NODE_ALLOC ? work->allocation->cost : -work->allocation->cost;
        if (now[device] > most[device])
            most[device] = now[device];
    }
}

CUresult allocations_reserve(struct node *const *node, size_t count) {
    uint64_t now[SIM_DEVICES], most[SIM_DEVICES] = {0};
    for (unsigned i = 0; i < driver.count; i++)
        now[i] = pool[i].used;
    follow(node, count, now, most);
    for (unsigned i = 0; i < driver.count; i++)
        if (!grow((int)i, most[i]))
            return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

API(cuDeviceGraphMemTrim, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    lock_acquire(&driver.lock);
    uncharge(device, pool[device].reserved - pool[device].used);
    pool[device].reserved = pool[device].used;
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

API(cuDeviceGetGraphMemAttribute, CUdevice device, int attribute, void *value) {
    ENTER();
    NEED_DEVICE(device);
    NEED(value && attribute >= USED_CURRENT && attribute <= RESERVED_HIGH);
    lock_acquire(&driver.lock);
    const uint64_t values[] = {pool[device].used, pool[device].used_high, pool[device].reserved,
                               pool[device].reserved_high};
    *(uint64_t *)value = values[attribute];
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

// The high marks can be set, to 0 alone: they begin anew.
API(cuDeviceSetGraphMemAttribute, CUdevice device, int attribute, void *value) {
    ENTER();
    NEED_DEVICE(device);
    NEED(value && !*(uint64_t *)value && (attribute == USED_HIGH || attribute == RESERVED_HIGH));
    lock_acquire(&driver.lock);
    if (attribute == USED_HIGH)
        pool[device].used_high = pool[device].used;
    else
        pool[device].reserved_high = pool[device].reserved;
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}
