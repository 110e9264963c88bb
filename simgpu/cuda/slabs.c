// SPDX-License-Identifier: Apache-2.0
// Small blocks: they share slabs, which are what the device is charged for. A slab is divided into grains of
// 512 bytes, first fit from where the last block was freed. Knows nothing of how slabs are charged.
#include "memory.h"
#include <stdlib.h>
#include <string.h>

#define GRAIN 512
enum { TRIES = 8 }; // slabs looked at before a new one is made

struct slab {
    struct block *block;
    struct slab *next, **link; // in the context's list of slabs with room; link NULL: not in it
    struct context *context;
    size_t grains, used, hint;
    size_t refused; // no run of this many grains was found; 0: not known
    uint64_t *taken;
    uint16_t *length; // at a block's first grain: its grains
    uint32_t *size;   // ... and the bytes asked for
};

static void list(struct slab *slab) {
    struct slab **head = &slab->context->slabs;
    slab->next = *head;
    slab->link = head;
    if (*head)
        (*head)->link = &slab->next;
    *head = slab;
}

static void unlist(struct slab *slab) {
    if (!slab->link)
        return;
    *slab->link = slab->next;
    if (slab->next)
        slab->next->link = slab->link;
    slab->link = NULL;
}

static struct slab *spare; // an empty one, kept: making the tables costs more than the rest of an allocation

void slab_forget(struct slab *slab) {
    free(slab->taken);
    free(slab);
}

static void set_aside(struct slab *slab) {
    if (spare)
        slab_forget(slab);
    else
        spare = slab;
}

static struct slab *slab_object(struct context *ctx) {
    if (spare) {
        struct slab *slab = spare;
        spare = NULL;
        slab->context = ctx;
        slab->hint = slab->refused = 0;
        return slab;
    }
    size_t grains = driver.costs.slab / GRAIN, words = (grains + 63) / 64;
    struct slab *slab = calloc(1, sizeof *slab);
    void *tables = calloc(1, words * 8 + grains * (sizeof *slab->length + sizeof *slab->size));
    if (!slab || !tables) {
        free(slab);
        free(tables);
        return NULL;
    }
    slab->context = ctx;
    slab->grains = grains;
    slab->taken = tables;
    slab->size = (uint32_t *)(slab->taken + words);
    slab->length = (uint16_t *)(slab->size + grains);
    return slab;
}

static CUresult slab_new(struct context *ctx, struct slab **out) {
    struct slab *slab = slab_object(ctx);
    CUdeviceptr at = 0;
    if (!slab)
        return CUDA_ERROR_OUT_OF_MEMORY;
    bool charged = charge(ctx->device, driver.costs.slab);
    if (!charged || memory_new(&at, driver.costs.slab, KIND_SLAB, ctx, NULL)) {
        if (charged)
            uncharge(ctx->device, driver.costs.slab);
        set_aside(slab);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    slab->block = arena_find(at);
    slab->block->slab = slab;
    slab->block->charged = driver.costs.slab;
    list(slab);
    *out = slab;
    return CUDA_SUCCESS;
}

// The first grain from `from` on that is taken, or free; `end` if none before it is.
static size_t next_grain(const struct slab *slab, size_t from, size_t end, bool taken) {
    while (from < end) {
        uint64_t word = taken ? slab->taken[from / 64] : ~slab->taken[from / 64];
        word &= ~(uint64_t)0 << from % 64;
        if (word) {
            size_t found = from / 64 * 64 + (size_t)__builtin_ctzll(word);
            return found < end ? found : end;
        }
        from = (from / 64 + 1) * 64;
    }
    return end;
}

static size_t find_run(const struct slab *slab, size_t grains, size_t from) {
    while (from < slab->grains) {
        size_t first = next_grain(slab, from, slab->grains, false);
        if (first + grains > slab->grains)
            break;
        size_t last = next_grain(slab, first, first + grains, true);
        if (last == first + grains)
            return first;
        from = last;
    }
    return slab->grains;
}

static void mark(struct slab *slab, size_t first, size_t grains, bool taken) {
    while (grains) {
        size_t bit = first % 64, n = 64 - bit < grains ? 64 - bit : grains;
        uint64_t mask = (n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1) << bit;
        if (taken)
            slab->taken[first / 64] |= mask;
        else
            slab->taken[first / 64] &= ~mask;
        first += n;
        grains -= n;
    }
}

static bool put_in(struct slab *slab, size_t size, CUdeviceptr *out) {
    size_t grains = (size + GRAIN - 1) / GRAIN;
    if (slab->grains - slab->used < grains || (slab->refused && grains >= slab->refused))
        return false;
    size_t first = find_run(slab, grains, slab->hint);
    if (first == slab->grains && slab->hint)
        first = find_run(slab, grains, 0);
    if (first == slab->grains) {
        slab->refused = grains;
        return false;
    }
    mark(slab, first, grains, true);
    slab->length[first] = (uint16_t)grains;
    slab->size[first] = (uint32_t)size;
    slab->used += grains;
    slab->hint = first + grains;
    if (slab->used == slab->grains)
        unlist(slab);
    *out = slab->block->base + first * GRAIN;
    return true;
}

CUresult slab_get(CUdeviceptr *out, size_t size, struct context *ctx) {
    int tries = TRIES;
    for (struct slab *slab = ctx->slabs; slab && tries--; slab = slab->next)
        if (put_in(slab, size, out))
            return CUDA_SUCCESS;
    struct slab *slab = NULL;
    CUresult result = slab_new(ctx, &slab);
    if (!result)
        put_in(slab, size, out);
    return result;
}

CUresult slab_put(struct slab *slab, uintptr_t address) {
    size_t first = (address - slab->block->base) / GRAIN;
    if (address % GRAIN || first >= slab->grains || !slab->length[first])
        return CUDA_ERROR_INVALID_VALUE;
    size_t grains = slab->length[first];
    mark(slab, first, grains, false);
    slab->length[first] = 0;
    slab->used -= grains;
    slab->hint = first;
    slab->refused = 0;
    unlist(slab);
    if (slab->used) {
        list(slab);
        return CUDA_SUCCESS;
    }
    struct block *block = slab->block;
    set_aside(slab);
    return memory_drop(block);
}

bool slab_find(struct slab *slab, uintptr_t address, struct place *place) {
    size_t grain = (address - slab->block->base) / GRAIN, first = grain;
    if (grain >= slab->grains)
        return false;
    while (first && !slab->length[first])
        first--;
    if (!slab->length[first] || first + slab->length[first] <= grain)
        return false;
    place->base = slab->block->base + first * GRAIN;
    place->size = slab->size[first];
    place->id = slab->block->id << 16 | first;
    return true;
}
