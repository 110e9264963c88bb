// SPDX-License-Identifier: Apache-2.0
/* Linear, pitched and managed memory.
 *
 * A block of more than GP_LARGE is charged for itself, in whole pages. Smaller ones share slabs, and which
 * slab the driver puts one into is known from its address, but only afterwards: so a process keeps one slab's
 * worth charged in advance for each GPU (`spare`). A small block takes the spare; if its slab turns out to be
 * counted already, the spare goes back. In the steady state a small block costs no change of the ledger at
 * all.
 *
 * How large a slab is, the driver doesn't say: a page, on all that we have met. A process's first small
 * blocks on a GPU show it, by what of the GPU is free before and after (`learn`).
 */
#include "linear.h"

#include "admit.h"
#include "blocks.h"
#include "contexts.h"
#include "devices.h"
#include "hooks.h"
#include "pools.h"
#include "raw.h"
#include "sizes.h"

enum { LOOKS = 8, TRIES = 1024, LARGEST_SLAB = 16 << 20 };

struct own {
    uint64_t spare[GP_MAX_GPUS]; /* bytes charged for a slab that no block lies in */
    uint64_t slab[GP_MAX_GPUS];  /* bytes of a slab, where it was seen */
    uint32_t
        looks[GP_MAX_GPUS]; /* at small blocks, to see it, of which no other thread took memory meanwhile */
    uint32_t began[GP_MAX_GPUS]; /* blocks, until LOOKS were had, or TRIES blocks: then all that is to be seen
                                    was */
    uint32_t ended[GP_MAX_GPUS];
};

static struct own *own(void) {
    static void *memory;
    return gp_own_memory(&memory, sizeof(struct own));
}

static inline uint64_t slab_bytes(const struct own *mine, int gpu) {
    uint64_t seen = mine && gpu >= 0 ? __atomic_load_n(&mine->slab[gpu], __ATOMIC_RELAXED) : 0;
    uint64_t page = gp_page(gpu);
    return seen > page ? seen : page;
}

/* A spare of another size than slabs have by now is of no use. */
static uint64_t take_spare(int gpu) {
    struct own *mine = own();
    uint64_t bytes = mine && gpu >= 0 ? __atomic_exchange_n(&mine->spare[gpu], 0, __ATOMIC_ACQUIRE) : 0;
    if (!bytes || bytes == slab_bytes(mine, gpu))
        return bytes;
    gp_give_back(gpu, bytes);
    return 0;
}

static void return_slab(int gpu, uint64_t bytes) {
    struct own *mine = own();
    if (mine && gpu >= 0 && bytes == slab_bytes(mine, gpu))
        bytes = __atomic_exchange_n(&mine->spare[gpu], bytes, __ATOMIC_RELEASE);
    gp_give_back(gpu, bytes);
}

void gp_linear_trim(int gpu) {
    struct own *mine = own();
    if (mine && gpu >= 0)
        gp_give_back(gpu, __atomic_exchange_n(&mine->spare[gpu], 0, __ATOMIC_ACQUIRE));
}

/* A slab is known by the aligned piece of the address space that it lies in, of the smallest size there is:
 * what is charged for a piece is never less than what lies in it. A larger slab is charged for each such
 * piece of it that blocks lie in. */
static uint64_t slab_of(uint64_t address) {
    return address & ~(uint64_t)(GP_PAGE - 1);
}

static struct gp_block slab_at(const struct gp_place *at, uint64_t address, uint64_t charged) {
    return (struct gp_block){.key = gp_key(GP_SLAB, slab_of(address)),
                             .bytes = charged,
                             .other = (uint64_t)at->context,
                             .gpu = (uint8_t)at->gpu};
}

/* Counts a small block that the driver has made, for which one slab is charged. 0: no memory to remember it
 * in. */
static int count_small(const struct gp_place *at, uint64_t address, uint64_t bytes, uint64_t charged) {
    struct gp_block first = slab_at(at, address, charged), last = slab_at(at, address + bytes - 1, charged);
    unsigned fresh = 0;
    if (first.key != last.key) {
        struct gp_block span = first;
        span.key = gp_key(GP_POINTER, address);
        span.how = GP_SPAN;
        span.bytes = bytes;
        uint32_t refs = gp_blocks_put(&span) ? gp_blocks_join(&last) : 0;
        if (!refs)
            return 0;
        fresh += refs == 1;
    }
    uint32_t refs = gp_blocks_join(&first);
    fresh += refs == 1;
    if (refs && fresh == 0)
        return_slab(at->gpu, charged);
    if (fresh == 2)
        gp_count(at->gpu, charged); /* exists already; half a grant's limit is no reason to undo */
    return refs != 0;
}

static void leave_slab(uint64_t address) {
    struct gp_block was;
    if (gp_blocks_leave(gp_key(GP_SLAB, slab_of(address)), &was) && was.refs == 1)
        return_slab(was.gpu, was.bytes);
}

uint64_t gp_linear_charge(const struct gp_block *block) {
    if (gp_kind_of(block) == GP_SLAB)
        return block->bytes;
    return block->how == GP_ALONE ? block->bytes : 0;
}

/* What is charged before the driver is asked. */
struct hold {
    struct gp_place at;
    const char *api;
    uint64_t bytes;
    uint64_t asked;
    int small;
    uint32_t turn; /* its number among `began`; 0: it's not among them */
    size_t free;   /* of the GPU, where it is to be seen how large a slab is; else 0 */
};

static int is_small(uint64_t bytes) {
    return bytes <= GP_LARGE;
}

static inline int is_looking(const struct own *mine, int gpu) {
    return mine && gpu >= 0 && __atomic_load_n(&mine->looks[gpu], __ATOMIC_RELAXED) < LOOKS &&
           __atomic_load_n(&mine->began[gpu], __ATOMIC_RELAXED) < TRIES;
}

/* A small block that is made while no other thread makes one shows how large a slab is. */
static __attribute__((noinline)) void look(struct hold *held, struct own *mine) {
    int gpu = held->at.gpu;
    size_t free = 0, total;
    held->turn = __atomic_add_fetch(&mine->began[gpu], 1, __ATOMIC_SEQ_CST);
    int alone = __atomic_load_n(&mine->ended[gpu], __ATOMIC_SEQ_CST) == held->turn - 1;
    if (held->small && alone && !real_cuMemGetInfo_v2(&free, &total))
        held->free = free;
}

/* Whether what is free has been changed by this thread alone since its `look`, within this process. */
static int was_alone(const struct hold *held, struct own *mine) {
    int gpu = held->at.gpu;
    if (!held->free || __atomic_load_n(&mine->began[gpu], __ATOMIC_SEQ_CST) != held->turn ||
        !is_looking(mine, gpu))
        return 0;
    __atomic_fetch_add(&mine->looks[gpu], 1, __ATOMIC_SEQ_CST);
    return 1;
}

static void end_look(const struct hold *held) {
    struct own *mine = held->turn ? own() : NULL;
    if (mine)
        __atomic_fetch_add(&mine->ended[held->at.gpu], 1, __ATOMIC_SEQ_CST);
}

static CUresult hold(struct hold *held, uint64_t bytes, const char *api) {
    CUresult rc = gp_here(&held->at);
    if (rc)
        return rc;
    held->api = api;
    held->asked = bytes;
    held->free = 0;
    held->turn = 0;
    held->small = is_small(bytes);
    struct own *mine = own();
    if (__builtin_expect(is_looking(mine, held->at.gpu), 0))
        look(held, mine);
    if (held->small) {
        if ((held->bytes = take_spare(held->at.gpu)))
            return CUDA_SUCCESS;
        held->bytes = slab_bytes(mine, held->at.gpu);
    } else {
        held->bytes = gp_round_up(bytes, gp_page(held->at.gpu));
    }
    rc = gp_admit(held->at.gpu, held->bytes, api);
    if (__builtin_expect(rc != CUDA_SUCCESS, 0))
        end_look(held);
    return rc;
}

static void let_go(const struct hold *held, int small) {
    if (small)
        return_slab(held->at.gpu, held->bytes);
    else
        gp_give_back(held->at.gpu, held->bytes);
}

static CUresult undo(const struct hold *held, CUdeviceptr address, int small) {
    real_cuMemFree_v2(address);
    let_go(held, small);
    return gp_refuse(held->at.gpu, held->bytes, held->api);
}

static int may_be_slab(uint64_t bytes, int gpu) {
    return bytes > gp_page(gpu) && bytes <= LARGEST_SLAB && !(bytes & (bytes - 1));
}

/* A slab may just have been made: by its size less is free. Others of the GPU may have taken something
 * meanwhile, so only what can be a slab is taken for one. 0: it is larger than what was charged for it, and
 * there is no room. */
static int learn(struct hold *held) {
    size_t free, total;
    int gpu = held->at.gpu;
    struct own *mine = own();
    if (!held->free || real_cuMemGetInfo_v2(&free, &total) || !was_alone(held, mine) || free >= held->free)
        return 1;
    if (may_be_slab(held->free - free, gpu) && held->free - free > slab_bytes(mine, gpu))
        __atomic_store_n(&mine->slab[gpu], held->free - free, __ATOMIC_RELAXED);
    uint64_t slab = slab_bytes(mine, gpu);
    if (slab <= held->bytes)
        return 1;
    if (!gp_try(gpu, slab - held->bytes))
        return 0;
    held->bytes = slab;
    return 1;
}

/* Corrects what is held to what a block of `bytes` takes, where that was not known before (a pitch). 0: no
 * room. */
static int correct(struct hold *held, uint64_t bytes) {
    uint64_t taken = gp_round_up(bytes, gp_page(held->at.gpu));
    if (taken > held->bytes && !gp_try(held->at.gpu, taken - held->bytes))
        return 0;
    if (taken < held->bytes)
        gp_give_back(held->at.gpu, held->bytes - taken);
    held->bytes = taken;
    return 1;
}

static CUresult settle_small(struct hold *held, CUdeviceptr address, uint64_t bytes) {
    int counted = learn(held) && count_small(&held->at, address, bytes ? bytes : 1, held->bytes);
    return counted ? CUDA_SUCCESS : undo(held, address, 1);
}

static CUresult settle_large(struct hold *held, CUdeviceptr address, uint64_t bytes) {
    struct gp_block block = {.key = gp_key(GP_POINTER, address), .other = (uint64_t)held->at.context};
    if (bytes != held->asked && !correct(held, bytes))
        return undo(held, address, 0);
    block.bytes = held->bytes;
    block.gpu = (uint8_t)held->at.gpu;
    return gp_blocks_put(&block) ? CUDA_SUCCESS : undo(held, address, 0);
}

/* The driver has made a block (or not: rc). Counts it, or undoes it where it cannot be counted: then its
 * address, which may be another's by now, is not left with the caller. What was thought to be small may be
 * larger, by its pitch. */
static CUresult settle(CUresult rc, struct hold *held, CUdeviceptr *dptr, uint64_t bytes) {
    if (rc || !*dptr) {
        let_go(held, held->small);
    } else {
        rc = held->small && is_small(bytes) ? settle_small(held, *dptr, bytes)
                                            : settle_large(held, *dptr, bytes);
        if (rc)
            *dptr = 0;
    }
    if (__builtin_expect(held->turn != 0, 0))
        end_look(held);
    return rc;
}

/* The same for the interface whose addresses have 32 bits. */
static CUresult settle_v1(CUresult rc, struct hold *held, CUdeviceptr_v1 *dptr, uint64_t bytes) {
    int made = rc == CUDA_SUCCESS;
    CUdeviceptr wide = made ? *dptr : 0;
    rc = settle(rc, held, &wide, bytes);
    if (made)
        *dptr = (CUdeviceptr_v1)wide;
    return rc;
}

GP_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytes) {
    struct hold held;
    CUresult rc = hold(&held, bytes, "cuMemAlloc");
    if (rc)
        return rc;
    return settle(real_cuMemAlloc_v2(dptr, bytes), &held, dptr, bytes);
}

GP_EXPORT CUresult cuMemAlloc(CUdeviceptr_v1 *dptr, unsigned bytes) {
    struct hold held;
    CUresult rc = hold(&held, bytes, "cuMemAlloc");
    if (rc)
        return rc;
    return settle_v1(real_cuMemAlloc(dptr, bytes), &held, dptr, bytes);
}

GP_EXPORT CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytes, unsigned flags) {
    struct hold held;
    CUresult rc = hold(&held, bytes, "cuMemAllocManaged");
    if (rc)
        return rc;
    return settle(real_cuMemAllocManaged(dptr, bytes, flags), &held, dptr, bytes);
}

/* What rows were really padded to is known afterwards, and corrected then: a bound that holds for every
 * driver would make several times of narrow rows, and refuse what fits. */
static uint64_t pitched(size_t width, size_t height) {
    return gp_times(gp_round_up(width, GP_PITCH), height);
}

GP_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pitch, size_t width, size_t height,
                                      unsigned element) {
    struct hold held;
    CUresult rc = hold(&held, pitched(width, height), "cuMemAllocPitch");
    if (rc)
        return rc;
    rc = real_cuMemAllocPitch_v2(dptr, pitch, width, height, element);
    return settle(rc, &held, dptr, rc ? 0 : gp_times(*pitch, height));
}

GP_EXPORT CUresult cuMemAllocPitch(CUdeviceptr_v1 *dptr, unsigned *pitch, unsigned width, unsigned height,
                                   unsigned element) {
    struct hold held;
    CUresult rc = hold(&held, pitched(width, height), "cuMemAllocPitch");
    if (rc)
        return rc;
    rc = real_cuMemAllocPitch(dptr, pitch, width, height, element);
    return settle_v1(rc, &held, dptr, rc ? 0 : gp_times(*pitch, height));
}

void gp_free_ends(const struct gp_freed *freed, CUresult rc, int stream_ordered) {
    const struct gp_block *block = &freed->block;
    if (rc && freed->known)
        gp_blocks_put(block);
    if (rc)
        return;
    if (freed->known && block->how == GP_OF_POOL) {
        gp_pools_freed(block, stream_ordered);
    } else if (freed->known && block->how == GP_ALONE) {
        gp_give_back(block->gpu, block->bytes);
    } else {
        if (freed->known)
            leave_slab(freed->address + block->bytes - 1);
        leave_slab(freed->address);
    }
}

int gp_free_is_plain(const struct gp_freed *freed) {
    struct gp_block slab;
    return freed->known ? freed->block.how != GP_OF_POOL
                        : gp_blocks_see(gp_key(GP_SLAB, slab_of(freed->address)), &slab);
}

GP_EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
    struct gp_freed freed;
    gp_free_begins(&freed, address);
    CUresult rc = real_cuMemFree_v2(address);
    gp_free_ends(&freed, rc, 0);
    return rc;
}

GP_EXPORT CUresult cuMemFree(CUdeviceptr_v1 address) {
    struct gp_freed freed;
    gp_free_begins(&freed, address);
    CUresult rc = real_cuMemFree(address);
    gp_free_ends(&freed, rc, 0);
    return rc;
}
