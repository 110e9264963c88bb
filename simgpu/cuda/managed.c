// SPDX-License-Identifier: Apache-2.0
// Managed memory. It takes device memory while it is resident there, whole blocks at a time: from the first
// use by the device (a copy, a fill, a launch: of a launch it is not known which blocks it reads, so all of
// the context's come) or a prefetch, until it is prefetched to the host, freed, or evicted. Whenever the
// device has no room for something else of this process, resident blocks are evicted, those longest there
// first; what does not fit is resident in part, or not at all, and that is no error. Other processes' blocks
// are not evicted.
#include "memory.h"
#include "prefetch.h"

enum { ATTACH_GLOBAL = 1, ATTACH_HOST = 2 };

static struct block *resident[SIM_DEVICES]; // by device, the newest first; linked by `older`
static _Atomic unsigned away;               // managed blocks that a launch would bring

static void leave(struct block *block) {
    struct block **at = &resident[block->where];
    while (*at != block)
        at = &(*at)->older;
    *at = block->older;
    uncharge(block->where, block->charged);
    block->charged = 0;
    block->resident = false;
    away++;
}

bool managed_evict(int device) {
    struct block *oldest = resident[device];
    while (oldest && oldest->older)
        oldest = oldest->older;
    if (oldest)
        leave(oldest);
    return oldest;
}

static uint64_t fitting(int device, uint64_t wanted) {
    uint64_t total = driver.device[device].total, used = sim_used(&driver.view, driver.device[device].number);
    uint64_t room = used < total ? (total - used) / driver.costs.granularity * driver.costs.granularity : 0;
    return room < wanted ? room : wanted;
}

static void arrive(struct block *block, int device) {
    if (block->resident && block->where == device)
        return;
    if (block->resident)
        leave(block);
    uint64_t wanted = round_up(block->size, driver.costs.granularity);
    if (!charge(device, wanted)) { // which evicts others first
        wanted = fitting(device, wanted);
        if (!wanted || !charge(device, wanted))
            return;
    }
    block->charged = wanted;
    block->where = device;
    block->resident = true;
    block->older = resident[device];
    resident[device] = block;
    away--;
}

void managed_used(struct block *block) {
    struct context *ctx = context_current();
    if (ctx)
        arrive(block, ctx->device);
}

void managed_gone(struct block *block) {
    if (block->resident)
        leave(block);
    away--;
}

void managed_launched(struct context *ctx) {
    if (!atomic_load_explicit(&away, memory_order_relaxed))
        return;
    lock_acquire(&driver.lock);
    for (struct block *block = ctx->managed, *next; block; block = next) {
        next = block->next;
        if (!block->resident && block->flags == ATTACH_GLOBAL)
            arrive(block, ctx->device);
    }
    lock_release(&driver.lock);
}

API(cuMemAllocManaged, CUdeviceptr *out, size_t size, unsigned flags) {
    ENTER_CONTEXT();
    NEED(out && size && (flags == ATTACH_GLOBAL || flags == ATTACH_HOST));
    struct block *block;
    lock_acquire(&driver.lock);
    CUresult result = memory_make(&block, (struct request){size, 0, KIND_MANAGED, REACH_ALL, ctx, NULL});
    if (!result) {
        block_detach(block);
        block_attach(&ctx->managed, block);
        block->flags = flags;
        block->resident = false;
        block->preferred = block->fetched = NOWHERE;
        away++;
        *out = block->base;
    }
    lock_release(&driver.lock);
    return result;
}

// ------- prefetches, by the functions of prefetches.c

CUresult managed_find(struct block **out, uintptr_t address, size_t size) {
    struct block *block = arena_find(address);
    NEED(block && block->kind == KIND_MANAGED && size && address < block->base + block->size &&
         size <= block->base + block->size - address);
    *out = block;
    return CUDA_SUCCESS;
}

CUresult managed_prefetch(uintptr_t address, size_t size, int device) {
    struct block *block;
    lock_acquire(&driver.lock);
    CUresult result = managed_find(&block, address, size);
    if (!result) {
        block->fetched = device;
        if (device >= 0)
            arrive(block, device);
        else if (block->resident)
            leave(block);
    }
    lock_release(&driver.lock);
    return result;
}

CUresult managed_discard(uintptr_t address, size_t size) {
    struct block *block;
    lock_acquire(&driver.lock);
    CUresult result = managed_find(&block, address, size);
    if (!result && block->resident && size == block->size)
        leave(block);
    lock_release(&driver.lock);
    return result;
}
