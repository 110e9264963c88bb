// SPDX-License-Identifier: Apache-2.0
// Cuts ranges off the reservation, keeps the free ones by their size, and gives written host memory back.
// All under the driver's lock.
#include "arena.h"
#include <stdlib.h>
#include <sys/mman.h>

#define BUCKETS 1024
#define STEP (512 * ARENA_PAGE) // made accessible at a time

static uintptr_t start, cut, open_to, end;
static struct block **map; // one entry per page of the reservation
static struct block *bucket[BUCKETS];

void block_attach(struct block **list, struct block *block) {
    block->next = *list;
    block->link = list;
    if (*list)
        (*list)->link = &block->next;
    *list = block;
}

void block_detach(struct block *block) {
    *block->link = block->next;
    if (block->next)
        block->next->link = block->link;
}

static void *reserve(size_t size) {
    void *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

// As much as this machine's address space gives: 16 TiB, or less where addresses have fewer bits.
static bool begin(void) {
    for (size_t size = (size_t)16 << 40; size >= (size_t)16 << 30; size >>= 1) {
        void *at = reserve(size);
        if (!at)
            continue;
        madvise(at, size, MADV_DONTDUMP);
        start = cut = open_to = ((uintptr_t)at + ARENA_PAGE - 1) & ~(ARENA_PAGE - 1);
        end = ((uintptr_t)at + size) & ~(ARENA_PAGE - 1);
        size_t entries = (end - start) / ARENA_PAGE * sizeof *map;
        map = mmap(NULL, entries, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return map != MAP_FAILED;
    }
    return false;
}

static bool make_accessible(uintptr_t to) {
    if (to <= open_to)
        return true;
    uintptr_t upto = to + STEP < end ? (to + STEP - 1) / STEP * STEP : end;
    if (upto > end)
        upto = end;
    if (mprotect((void *)open_to, upto - open_to, PROT_READ | PROT_WRITE))
        return false;
    open_to = upto;
    return true;
}

static void own(struct block *block) {
    size_t first = (block->base - start) / ARENA_PAGE;
    for (size_t i = 0; i < block->pages; i++)
        map[first + i] = block;
}

static struct block *cut_off(size_t pages) {
    if (pages > (end - cut) / ARENA_PAGE || !make_accessible(cut + pages * ARENA_PAGE))
        return NULL;
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        return NULL;
    block->base = cut;
    block->pages = pages;
    cut += pages * ARENA_PAGE;
    own(block);
    return block;
}

// The way out once all addresses have been cut: the first larger free range, split.
static struct block *split(size_t pages) {
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct block *block = bucket[i]; block; block = block->next) {
            struct block *rest = block->pages > pages ? calloc(1, sizeof *rest) : NULL;
            if (!rest)
                continue;
            block_detach(block);
            rest->base = block->base + pages * ARENA_PAGE;
            rest->pages = block->pages - pages;
            block->pages = pages;
            own(rest);
            block_attach(&bucket[rest->pages % BUCKETS], rest);
            return block;
        }
    return NULL;
}

struct block *arena_get(size_t size) {
    if (!start && !begin())
        return NULL;
    if (size > end - start)
        return NULL;
    size_t pages = (size + ARENA_PAGE - 1) / ARENA_PAGE;
    struct block *block = bucket[pages % BUCKETS];
    while (block && block->pages != pages)
        block = block->next;
    if (block)
        block_detach(block);
    else
        block = cut_off(pages);
    return block ? block : split(pages);
}

void arena_put(struct block *block) {
    if (block->dirty)
        madvise((void *)block->base, block->pages * ARENA_PAGE, MADV_DONTNEED);
    block->dirty = false;
    block->kind = KIND_FREE;
    block_attach(&bucket[block->pages % BUCKETS], block);
}

struct block *arena_find(uintptr_t address) {
    if (address < start || address >= cut)
        return NULL;
    struct block *block = map[(address - start) / ARENA_PAGE];
    return block && block->kind != KIND_FREE ? block : NULL;
}
