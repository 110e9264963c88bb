// SPDX-License-Identifier: Apache-2.0
/* What this process holds in the driver: a hash table from a pointer or handle to what was charged for it.
 * Linear probing in 64 shards, each with a lock that is held for a handful of instructions and never over a
 * driver call; deletion moves the followers back, so that a table of 100 000 blocks is as fast after a
 * million frees as before. Knows nothing of ledgers: what a block costs is the hooks' business. A forked
 * child begins with an empty one. */
#include "blocks.h"

#include "lock.h"
#include "raw.h"

enum { SHARDS = 64, SMALLEST = 128, BATCH = 64 };

struct shard {
    struct gp_lock lock;
    uint64_t room;          /* for so many blocks more, before it is two thirds full */
    uint64_t mask;          /* slots - 1 */
    struct gp_block *slot;  /* NULL: none yet */
    uint8_t alone[64 - 32]; /* a cache line each */
};

_Static_assert(sizeof(struct shard) == 64, "a shard fills a cache line");

static struct shard *shards(void) {
    static void *memory;
    return gp_own_memory(&memory, SHARDS * sizeof(struct shard));
}

/* Pointers are aligned, so their low bits say nothing: a multiplication brings all of them into the high
 * ones. The highest six name the shard, others the slot in it. */
static inline uint64_t hash(uint64_t key) {
    key ^= key >> 32;
    return key * 0x9e3779b97f4a7c15u;
}

/* The shard of what has this hash, locked; NULL: no memory. */
static inline struct shard *enter(uint64_t hashed) {
    struct shard *all = shards();
    if (!all)
        return NULL;
    struct shard *shard = &all[hashed >> 58];
    gp_lock(&shard->lock);
    return shard;
}

static inline uint64_t home(const struct shard *shard, uint64_t hashed) {
    return hashed >> 20 & shard->mask;
}

/* Where the key is, or the empty slot where it would be. Needs slots, and one of them empty. */
static inline struct gp_block *find(const struct shard *shard, uint64_t key, uint64_t hashed) {
    struct gp_block *slots = shard->slot;
    uint64_t mask = shard->mask, at = hashed >> 20 & mask;
    while (slots[at].key && slots[at].key != key)
        at = (at + 1) & mask;
    return &slots[at];
}

static inline struct gp_block *seen(const struct shard *shard, uint64_t key, uint64_t hashed) {
    struct gp_block *block = shard->slot ? find(shard, key, hashed) : NULL;
    return block && block->key ? block : NULL;
}

/* Twice as many slots, of which two thirds may be filled. */
static __attribute__((noinline)) int grow(struct shard *shard) {
    uint64_t had = shard->slot ? shard->mask + 1 : 0, slots = had ? 2 * had : SMALLEST;
    struct shard larger = {.mask = slots - 1, .slot = gp_map(slots * sizeof(struct gp_block))};
    if (!larger.slot)
        return 0;
    uint64_t count = 0;
    for (uint64_t i = 0; i < had; i++)
        if (shard->slot[i].key) {
            *find(&larger, shard->slot[i].key, hash(shard->slot[i].key)) = shard->slot[i];
            count++;
        }
    if (had)
        gp_unmap(shard->slot, had * sizeof(struct gp_block));
    shard->room = 2 * slots / 3 - count;
    shard->mask = larger.mask;
    shard->slot = larger.slot;
    return 1;
}

/* The slot for a key, which may be empty; NULL when there is no memory for one more. */
static inline struct gp_block *slot_for(struct shard *shard, uint64_t key, uint64_t hashed) {
    struct gp_block *slot = shard->slot ? find(shard, key, hashed) : NULL;
    if (slot && slot->key)
        return slot;
    if (__builtin_expect(!shard->room, 0)) {
        if (!grow(shard))
            return NULL;
        slot = find(shard, key, hashed);
    }
    shard->room--;
    return slot;
}

static inline void erase(struct shard *shard, struct gp_block *block) {
    uint64_t hole = (uint64_t)(block - shard->slot);
    for (uint64_t at = (hole + 1) & shard->mask; shard->slot[at].key; at = (at + 1) & shard->mask) {
        uint64_t wanted = home(shard, hash(shard->slot[at].key));
        if (((at - wanted) & shard->mask) < ((at - hole) & shard->mask))
            continue; /* would come before its home */
        shard->slot[hole] = shard->slot[at];
        hole = at;
    }
    shard->slot[hole].key = 0;
    shard->room++;
}

int gp_blocks_put(const struct gp_block *block) {
    uint64_t hashed = hash(block->key);
    struct shard *shard = enter(hashed);
    if (!shard)
        return 0;
    struct gp_block *slot = slot_for(shard, block->key, hashed);
    if (slot)
        *slot = *block;
    gp_unlock(&shard->lock);
    return slot != NULL;
}

static inline int get(uint64_t key, struct gp_block *out, int forget) {
    uint64_t hashed = hash(key);
    struct shard *shard = enter(hashed);
    if (!shard)
        return 0;
    struct gp_block *block = seen(shard, key, hashed);
    if (block) {
        *out = *block;
        if (forget)
            erase(shard, block);
    }
    gp_unlock(&shard->lock);
    return block != NULL;
}

int gp_blocks_take(uint64_t key, struct gp_block *was) {
    return get(key, was, 1);
}
int gp_blocks_see(uint64_t key, struct gp_block *is) {
    return get(key, is, 0);
}

uint32_t gp_blocks_join(const struct gp_block *block) {
    uint64_t hashed = hash(block->key);
    struct shard *shard = enter(hashed);
    if (!shard)
        return 0;
    struct gp_block *slot = slot_for(shard, block->key, hashed);
    uint32_t refs = 0;
    if (slot) {
        if (!slot->key) {
            *slot = *block;
            slot->refs = 0;
        }
        refs = ++slot->refs;
    }
    gp_unlock(&shard->lock);
    return refs;
}

int gp_blocks_leave(uint64_t key, struct gp_block *was) {
    uint64_t hashed = hash(key);
    struct shard *shard = enter(hashed);
    if (!shard)
        return 0;
    struct gp_block *block = seen(shard, key, hashed);
    if (block) {
        *was = *block;
        if (--block->refs == 0)
            erase(shard, block);
    }
    gp_unlock(&shard->lock);
    return block != NULL;
}

/* Takes up to BATCH blocks out of one shard: what is done about them needs no lock. */
static unsigned pluck(struct shard *shard, int (*pick)(const struct gp_block *, const void *),
                      const void *what, struct gp_block *out) {
    unsigned count = 0;
    gp_lock(&shard->lock);
    for (uint64_t i = 0; shard->slot && i <= shard->mask && count < BATCH;) {
        struct gp_block *block = &shard->slot[i];
        if (block->key && pick(block, what)) {
            out[count++] = *block;
            erase(shard, block); /* another may have moved here: look again */
        } else {
            i++;
        }
    }
    gp_unlock(&shard->lock);
    return count;
}

void gp_blocks_sweep(int (*pick)(const struct gp_block *, const void *), const void *what,
                     void (*gone)(const struct gp_block *, void *), void *with) {
    struct gp_block batch[BATCH];
    struct shard *all = shards();
    for (unsigned i = 0; all && i < SHARDS; i++)
        for (unsigned count = BATCH; count == BATCH;) {
            count = pluck(&all[i], pick, what, batch);
            for (unsigned k = 0; k < count; k++)
                gone(&batch[k], with);
        }
}
