// SPDX-License-Identifier: Apache-2.0
// Pools of stream-ordered memory, as pools.c keeps them and shared_pools.c hands them to other processes.
#pragma once
#include "memory.h"

struct pool {
    uint32_t magic;
    int device; // -1: memory of the host
    bool destroyed, is_default;
    bool imported; // another process's: its blocks are not counted here
    int slot;      // a shared slot of the state that is charged, or -1: the process's own
    int file;      // where a shared pool's bytes are, or -1
    uint64_t file_end;
    CUmemPoolProps properties;
    uint64_t threshold, used, used_high, reserved, reserved_high;
    int reuse[4];
    struct block *blocks;
    struct pool *next;
};

#pragma GCC visibility push(hidden)
bool is_pool(const struct pool *pool);
struct pool *pool_make(const CUmemPoolProps *properties, int device);
CUresult pool_block(CUdeviceptr *out, size_t size, struct pool *pool, struct context *ctx);

// shared_pools.c
bool pool_share(struct pool *pool); // a new one
void pool_unshare(struct pool *pool);
bool pool_show(struct pool *pool, struct block *block); // a new block, in the pool's file
void pool_hide(struct pool *pool, struct block *block);
#pragma GCC visibility pop
