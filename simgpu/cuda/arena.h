// SPDX-License-Identifier: Apache-2.0
// Addresses: one large reservation of this process from which every block's range is cut and to which it
// returns, and a small one below 4 GiB for the interface of 32 bits. From any address within a block to the
// block is one look. Knows nothing of devices, costs or contexts.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_PAGE ((uintptr_t)2 << 20)

enum kind {
    KIND_FREE,
    KIND_DEVICE,
    KIND_MANAGED,
    KIND_HOST,
    KIND_POOL,
    KIND_SLAB,
    KIND_VARIABLE,
    KIND_ARRAY, // has no address that a caller knows
    KIND_IPC,   // memory of another process
    KIND_GRAPH, // allocated by a graph when it runs
};
enum reach { REACH_ALL, REACH_32 }; // which addresses serve

struct context;
struct pool;
struct slab;
struct physical;

// A range, in use or not. The range stays the block's for good: used again, it costs no system call.
struct block {
    uintptr_t base;
    struct block *next, **link; // its owner's list, or the list of free ranges
    size_t pages;
    size_t size; // as asked for
    uint64_t charged, id;
    enum kind kind;
    enum reach reach;
    bool dirty; // written to, as far as this driver knows: host memory to give back
    int device;
    unsigned flags;
    struct context *context;
    struct pool *pool;
    struct slab *slab;
    struct physical
        *physical;   // what lies behind it if other processes may have it too; it is charged, not the block
    uint64_t offset; // ... or where it lies in the file of a pool that is shared
    struct allocation *allocation; // of KIND_GRAPH
    // Of managed memory: where its pages are and should be (a device, or one of prefetch.h's places).
    bool resident, read_mostly;
    int where, preferred, fetched;
    struct block *older;
};

#pragma GCC visibility push(hidden)
struct block *arena_get(size_t size, enum reach reach); // NULL: no addresses left
void arena_put(struct block *block);                    // taken off its owner's list before
struct block *arena_find(uintptr_t address);
void block_attach(struct block **list, struct block *block);
void block_detach(struct block *block);
#pragma GCC visibility pop
