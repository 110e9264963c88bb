// SPDX-License-Identifier: Apache-2.0
// Cuts ranges off the reservation, keeps the free ones by their size, and gives written host memory back.
// All under the driver's lock.
#include "arena.h"
#include <stdlib.h>
#include <sys/mman.h>

#define BUCKETS 1024
#define STEP (512 * ARENA_PAGE) // made accessible at a time

static struct region {
    uintptr_t start, cut, open_to, end;
    struct block **map; // one entry per page of the reservation
    struct block *bucket[BUCKETS];
} regions[2];

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

static void *reserve(uintptr_t wanted, size_t size) {
    void *at = mmap((void *)wanted, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at != MAP_FAILED && wanted && (uintptr_t)at != wanted) {
        munmap(at, size);
        return NULL;
    }
    return at == MAP_FAILED ? NULL : at;
}

static bool lay_out(struct region *region, void *at, size_t size) {
    madvise(at, size, MADV_DONTDUMP);
    region->start = region->cut = region->open_to = ((uintptr_t)at + ARENA_PAGE - 1) & ~(ARENA_PAGE - 1);
    region->end = ((uintptr_t)at + size) & ~(ARENA_PAGE - 1);
    size_t entries = (region->end - region->start) / ARENA_PAGE * sizeof *region->map;
    region->map =
        mmap(NULL, entries, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return region->map != MAP_FAILED;
}

// As much as this machine's address space gives: 16 TiB, or less where addresses have fewer bits.
static bool begin(struct region *region) {
    for (size_t size = (size_t)16 << 40; size >= (size_t)16 << 30; size >>= 1) {
        void *at = reserve(0, size);
        if (at)
            return lay_out(region, at, size);
    }
    return false;
}

// Below 4 GiB, clear of where programs that are not position-independent lie; less where others have been.
static bool begin_low(struct region *region) {
    for (uintptr_t from = (uintptr_t)1 << 30; from < (uintptr_t)1 << 32; from += (uintptr_t)256 << 20) {
        size_t size = ((uintptr_t)1 << 32) - (1 << 20) - from;
        void *at = reserve(from, size);
        if (at)
            return lay_out(region, at, size);
    }
    return false;
}

static bool make_accessible(struct region *region, uintptr_t to) {
    if (to <= region->open_to)
        return true;
    uintptr_t upto = to + STEP < region->end ? (to + STEP - 1) / STEP * STEP : region->end;
    if (upto > region->end)
        upto = region->end;
    if (mprotect((void *)region->open_to, upto - region->open_to, PROT_READ | PROT_WRITE))
        return false;
    region->open_to = upto;
    return true;
}

static void own(struct region *region, struct block *block) {
    size_t first = (block->base - region->start) / ARENA_PAGE;
    for (size_t i = 0; i < block->pages; i++)
        region->map[first + i] = block;
}

static struct block *cut_off(struct region *region, size_t pages) {
    if (pages > (region->end - region->cut) / ARENA_PAGE ||
        !make_accessible(region, region->cut + pages * ARENA_PAGE))
        return NULL;
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        return NULL;
    block->base = region->cut;
    block->pages = pages;
    block->reach = (enum reach)(region - regions);
    region->cut += pages * ARENA_PAGE;
    own(region, block);
    return block;
}

// The way out once all addresses have been cut: the first larger free range, split.
static struct block *split(struct region *region, size_t pages) {
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct block *block = region->bucket[i]; block; block = block->next) {
            struct block *rest = block->pages > pages ? calloc(1, sizeof *rest) : NULL;
            if (!rest)
                continue;
            block_detach(block);
            rest->base = block->base + pages * ARENA_PAGE;
            rest->pages = block->pages - pages;
            rest->reach = block->reach;
            block->pages = pages;
            own(region, rest);
            block_attach(&region->bucket[rest->pages % BUCKETS], rest);
            return block;
        }
    return NULL;
}

struct block *arena_get(size_t size, enum reach reach) {
    struct region *region = &regions[reach];
    if (!region->start && !(reach == REACH_32 ? begin_low(region) : begin(region)))
        return NULL;
    if (size > region->end - region->start)
        return NULL;
    size_t pages = (size + ARENA_PAGE - 1) / ARENA_PAGE;
    struct block *block = region->bucket[pages % BUCKETS];
    while (block && block->pages != pages)
        block = block->next;
    if (block)
        block_detach(block);
    else
        block = cut_off(region, pages);
    return block ? block : split(region, pages);
}

void arena_put(struct block *block) {
    if (block->dirty)
        madvise((void *)block->base, block->pages * ARENA_PAGE, MADV_DONTNEED);
    block->dirty = false;
    block->kind = KIND_FREE;
    block_attach(&regions[block->reach].bucket[block->pages % BUCKETS], block);
}

struct block *arena_find(uintptr_t address) {
    const struct region *region = &regions[address >> 32 ? REACH_ALL : REACH_32];
    if (address < region->start || address >= region->cut)
        return NULL;
    struct block *block = region->map[(address - region->start) / ARENA_PAGE];
    return block && block->kind != KIND_FREE ? block : NULL;
}
