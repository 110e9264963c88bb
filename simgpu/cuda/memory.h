// SPDX-License-Identifier: Apache-2.0
// Blocks of memory: what an address belongs to, and the ways to make and free one. All with the driver's lock
// held.
#pragma once
#include "arena.h"
#include "driver.h"

// What is known of one address, whatever kind of memory it lies in.
struct place {
    uintptr_t base;
    size_t size;
    uint64_t id;
    enum kind kind; // KIND_FREE: nothing of ours
    int device;
    struct context *context;
    struct pool *pool;
    bool virtual_memory, registered;
};

#pragma GCC visibility push(hidden)
// A block to be made: what it costs its device besides what it is.
struct request {
    size_t size;
    uint64_t cost;
    enum kind kind;
    enum reach reach;
    struct context *context;
    struct pool *pool;
};
CUresult memory_make(struct block **out, struct request request);
CUresult memory_new(CUdeviceptr *out, size_t size, enum kind kind, struct context *ctx, struct pool *pool);
CUresult memory_free(uintptr_t address); // linear memory of any kind
CUresult memory_drop(struct block *block);
void memory_drop_all(struct context *ctx);

// managed.c
void managed_used(struct block *block);
void managed_gone(struct block *block);

// ipc.c
void ipc_end(struct block *block);
bool block_show(struct block *block, int fd, uint64_t offset, size_t size); // a file's bytes in its place
void block_hide(struct block *block);                                       // ... and no longer

// graph_memory.c
CUresult graph_memory_free(struct block *block);

// slabs.c: small blocks
CUresult slab_get(CUdeviceptr *out, size_t size, struct context *ctx);
CUresult slab_put(struct slab *slab, uintptr_t address);
bool slab_find(struct slab *slab, uintptr_t address, struct place *place);
void slab_forget(struct slab *slab); // its block goes with the context

// places.c
struct place place_find(uintptr_t address);
void place_used(uintptr_t address, bool written); // by the device
#pragma GCC visibility pop
