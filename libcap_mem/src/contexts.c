// SPDX-License-Identifier: Apache-2.0
/* Contexts: what each costs (the policy says; the daemon learns it), and what ends with it. Every context is
 * charged as much as a process's first one is known to take, before it is made; one that was made where we
 * cannot see it, when a hooked call first meets it. */
#include "contexts.h"

#include "admit.h"
#include "arrays.h"
#include "blocks.h"
#include "context_limits.h"
#include "devices.h"
#include "hooks.h"
#include "linear.h"
#include "lock.h"
#include "policy_path.h"
#include "pools.h"
#include "raw.h"

enum { REMEMBERED = 16, MADE = 1 };

/* The last contexts met, each in one word that needs no lock: address << 16 | ordinal << 8 | GPU + 1. */
struct own {
    uint64_t met[REMEMBERED];
    struct gp_lock primary; /* held while the primary context is made or ended */
    uint32_t attached; /* cuCtxAttach was called: whether a detach ends a context is not known any more */
};

static struct own *own(void) {
    static void *memory;
    return gp_own_memory(&memory, sizeof(struct own));
}

static uint64_t *place_of(struct own *mine, uint64_t context) {
    return &mine->met[(context >> 4 ^ context >> 12) % REMEMBERED];
}

static uint64_t cost(int gpu) {
    const gp_policy *policy = gp_policy_here();
    return policy && gpu >= 0 ? __atomic_load_n(&policy->gpu[gpu].context, __ATOMIC_RELAXED) : 0;
}

/* 1: the context was new to us, and `bytes` are now its. */
static int enroll(uint64_t context, int gpu, uint64_t bytes, uint64_t made) {
    struct gp_block block = {
        .key = gp_key(GP_CONTEXT, context), .bytes = bytes, .other = made, .gpu = (uint8_t)gpu};
    return gp_blocks_join(&block) == 1;
}

/* A context that is there already. Where it does not fit, it counts all the same, and what met it is refused.
 */
static CUresult admit_made(int gpu, uint64_t bytes) {
    CUresult rc = gp_admit(gpu, bytes, "a context found");
    if (rc)
        gp_count(gpu, bytes);
    return rc;
}

static CUresult meet(struct gp_place *place) {
    struct gp_block known;
    struct own *mine = own();
    CUresult rc = real_cuCtxGetDevice(&place->device);
    if (rc)
        return rc;
    uint64_t context = (uint64_t)place->context;
    place->gpu = gp_gpu_of(place->device);
    if (place->gpu < 0)
        return CUDA_SUCCESS;
    uint64_t bytes = cost(place->gpu);
    if (!gp_blocks_see(gp_key(GP_CONTEXT, context), &known) && enroll(context, place->gpu, bytes, 0))
        rc = admit_made(place->gpu, bytes);
    if (mine && place->device <= 0xff)
        __atomic_store_n(place_of(mine, context),
                         context << 16 | (uint64_t)place->device << 8 | (uint64_t)(place->gpu + 1),
                         __ATOMIC_RELEASE);
    return rc;
}

CUresult gp_here(struct gp_place *place) {
    CUresult rc = real_cuCtxGetCurrent(&place->context);
    if (rc || !place->context)
        return rc ? rc : CUDA_ERROR_INVALID_CONTEXT;
    struct own *mine = own();
    uint64_t context = (uint64_t)place->context;
    uint64_t met = mine ? __atomic_load_n(place_of(mine, context), __ATOMIC_ACQUIRE) : 0;
    if (__builtin_expect(met >> 16 != context, 0))
        return meet(place);
    place->device = (int)(met >> 8 & 0xff);
    place->gpu = (int)(met & 0xff) - 1;
    return CUDA_SUCCESS;
}

CUresult gp_whereabouts(struct gp_place *place) {
    CUresult rc = gp_here(place);
    return rc == CUDA_ERROR_OUT_OF_MEMORY ? CUDA_SUCCESS : rc;
}

/* Sums of what ends, by GPU. */
struct sums {
    uint64_t bytes[GP_MAX_GPUS];
};

static int lies_in(const struct gp_block *block, const void *context) {
    enum gp_kind kind = gp_kind_of(block);
    return (kind == GP_POINTER || kind == GP_SLAB || kind == GP_ARRAY) && block->other == (uint64_t)context;
}

static void add_up(const struct gp_block *block, void *with) {
    struct sums *sums = with;
    if (gp_kind_of(block) == GP_ARRAY)
        gp_array_gone(block);
    else
        sums->bytes[block->gpu] += gp_linear_charge(block);
}

/* Forgets a context and all that lies in it. The memory of pools and of VMM handles is not a context's. */
static void forget(uint64_t context, struct sums *sums) {
    struct own *mine = own();
    struct gp_block block;
    if (gp_blocks_take(gp_key(GP_CONTEXT, context), &block))
        sums->bytes[block.gpu] += block.bytes;
    gp_limits_forget(context, sums->bytes);
    gp_blocks_sweep(lies_in, (const void *)context, add_up, sums);
    if (mine)
        __atomic_store_n(place_of(mine, context), 0, __ATOMIC_RELEASE);
}

static void give_back(const struct sums *sums) {
    for (int gpu = 0; gpu < GP_MAX_GPUS; gpu++)
        if (sums->bytes[gpu])
            gp_give_back(gpu, sums->bytes[gpu]);
}

/* The entries go before the driver ends the context: its address may be the next one's at once. If the driver
 * does not end it after all (it is broken), what it held stays charged until the process goes. A primary one
 * it refuses to end so, as a rule: there the entries go after. */
static CUresult end(CUcontext context, CUresult (*driver_ends)(CUcontext)) {
    struct sums sums = {0};
    struct gp_block known;
    int ours = gp_blocks_see(gp_key(GP_CONTEXT, (uint64_t)context), &known);
    int before = ours && known.other == MADE;
    if (before)
        forget((uint64_t)context, &sums);
    CUresult rc = driver_ends(context);
    if (!rc && ours) {
        if (!before)
            forget((uint64_t)context, &sums);
        give_back(&sums);
        gp_pools_refresh();
    }
    return rc;
}

GP_EXPORT CUresult cuCtxDestroy(CUcontext context) {
    return end(context, real_cuCtxDestroy);
}
GP_EXPORT CUresult cuCtxDestroy_v2(CUcontext context) {
    return end(context, real_cuCtxDestroy_v2);
}

GP_EXPORT CUresult cuCtxAttach(CUcontext *context, unsigned flags) {
    struct own *mine = own();
    if (mine)
        __atomic_store_n(&mine->attached, 1, __ATOMIC_RELAXED);
    return real_cuCtxAttach(context, flags);
}

/* Ends a context that was never attached to. Where one was, its charge stays: more is counted, never less. */
GP_EXPORT CUresult cuCtxDetach(CUcontext context) {
    struct own *mine = own();
    if (!mine || __atomic_load_n(&mine->attached, __ATOMIC_RELAXED))
        return real_cuCtxDetach(context);
    return end(context, real_cuCtxDetach);
}

/* Room for one more context on a device. Where the driver would say no anyhow (not initialised, no such
 * device), it is left to say so. */
static CUresult hold(CUdevice device, int *gpu, uint64_t *bytes, const char *api) {
    int count;
    *gpu = GP_NO_GPU;
    *bytes = 0;
    CUresult rc = real_cuDeviceGetCount(&count);
    if (rc || device < 0 || device >= count)
        return rc;
    *gpu = gp_gpu_of(device);
    *bytes = cost(*gpu);
    return gp_admit(*gpu, *bytes, api);
}

static CUresult made(CUresult rc, CUcontext *context, int gpu, uint64_t bytes) {
    if (rc || !enroll((uint64_t)*context, gpu, bytes, MADE))
        gp_give_back(gpu, bytes);
    return rc;
}

#define CREATE(call)                                                                                         \
    int gpu;                                                                                                 \
    uint64_t bytes;                                                                                          \
    CUresult rc = hold(device, &gpu, &bytes, "cuCtxCreate");                                                 \
    return rc ? rc : made(call, context, gpu, bytes)

GP_EXPORT CUresult cuCtxCreate(CUcontext *context, unsigned flags, CUdevice device) {
    CREATE(real_cuCtxCreate(context, flags, device));
}
GP_EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
    CREATE(real_cuCtxCreate_v2(context, flags, device));
}
GP_EXPORT CUresult cuCtxCreate_v3(CUcontext *context, void *affinity, int count, unsigned flags,
                                  CUdevice device) {
    CREATE(real_cuCtxCreate_v3(context, affinity, count, flags, device));
}
GP_EXPORT CUresult cuCtxCreate_v4(CUcontext *context, void *params, unsigned flags, CUdevice device) {
    CREATE(real_cuCtxCreate_v4(context, params, flags, device));
}

static int active(CUdevice device) {
    unsigned flags;
    int is = 0;
    return real_cuDevicePrimaryCtxGetState(device, &flags, &is) == CUDA_SUCCESS && is;
}

static CUresult retain(CUcontext *context, CUdevice device) {
    int gpu;
    uint64_t bytes;
    if (active(device))
        return real_cuDevicePrimaryCtxRetain(context, device);
    CUresult rc = hold(device, &gpu, &bytes, "cuDevicePrimaryCtxRetain");
    if (rc)
        return rc;
    rc = real_cuDevicePrimaryCtxRetain(context, device);
    if (rc || !enroll((uint64_t)*context, gpu, bytes, 0))
        gp_give_back(gpu, bytes);
    return rc;
}

/* Every context of the GPU that cuCtxCreate did not make: the primary one. */
static int is_primary(const struct gp_block *block, const void *gpu) {
    return gp_kind_of(block) == GP_CONTEXT && block->other != MADE && block->gpu == *(const int *)gpu;
}

static void end_primary(const struct gp_block *block, void *with) {
    struct sums *sums = with;
    sums->bytes[block->gpu] += block->bytes;
    forget(gp_name_of(block), sums);
}

static CUresult drop(CUdevice device, CUresult (*driver_drops)(CUdevice), int whole) {
    struct sums sums = {0};
    int gpu = gp_gpu_of(device);
    CUresult rc = driver_drops(device);
    if (rc || gpu < 0 || (!whole && active(device)))
        return rc;
    gp_blocks_sweep(is_primary, &gpu, end_primary, &sums);
    give_back(&sums);
    gp_pools_refresh();
    return rc;
}

/* One at a time, so that what is forgotten with the old primary context is none of a new one's. */
static void lock_primary(void) {
    struct own *mine = own();
    if (mine)
        gp_lock(&mine->primary);
}

static void unlock_primary(void) {
    struct own *mine = own();
    if (mine)
        gp_unlock(&mine->primary);
}

GP_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    lock_primary();
    CUresult rc = retain(context, device);
    unlock_primary();
    return rc;
}

static CUresult drop_alone(CUdevice device, CUresult (*driver_drops)(CUdevice), int whole) {
    lock_primary();
    CUresult rc = drop(device, driver_drops, whole);
    unlock_primary();
    return rc;
}

GP_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    return drop_alone(device, real_cuDevicePrimaryCtxRelease, 0);
}
GP_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return drop_alone(device, real_cuDevicePrimaryCtxRelease_v2, 0);
}
GP_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice device) {
    return drop_alone(device, real_cuDevicePrimaryCtxReset, 1);
}
GP_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    return drop_alone(device, real_cuDevicePrimaryCtxReset_v2, 1);
}

/* A green context is a view of the primary one, which it keeps alive, and which is made with it where there
 * is none: that one is charged. It costs nothing of its own, and memory that is allocated in it outlives it.
 */
static CUresult make_green(CUgreenCtx *green, void *description, CUdevice device, unsigned flags) {
    int gpu;
    uint64_t bytes;
    CUcontext primary;
    if (active(device))
        return real_cuGreenCtxCreate(green, description, device, flags);
    CUresult rc = hold(device, &gpu, &bytes, "cuGreenCtxCreate");
    if (rc)
        return rc;
    rc = real_cuGreenCtxCreate(green, description, device, flags);
    if (rc) {
        gp_give_back(gpu, bytes);
    } else if (!real_cuDevicePrimaryCtxRetain(&primary, device)) {
        real_cuDevicePrimaryCtxRelease_v2(device);
        if (!enroll((uint64_t)primary, gpu, bytes, 0))
            gp_give_back(gpu, bytes);
    }
    return rc;
}

GP_EXPORT CUresult cuGreenCtxCreate(CUgreenCtx *green, void *description, CUdevice device, unsigned flags) {
    lock_primary();
    CUresult rc = make_green(green, description, device, flags);
    unlock_primary();
    return rc;
}

GP_EXPORT CUresult cuCtxFromGreenCtx(CUcontext *context, CUgreenCtx green) {
    CUresult rc = real_cuCtxFromGreenCtx(context, green);
    if (!rc)
        enroll((uint64_t)*context, 0, 0, MADE);
    return rc;
}

/* The last one of a device takes the primary context along, where nobody else keeps that. */
static void forget_ended_primaries(void) {
    struct sums sums = {0};
    int count = 0;
    real_cuDeviceGetCount(&count);
    for (CUdevice device = 0; device < count; device++) {
        unsigned flags;
        int gpu = gp_gpu_of(device), is = 1;
        if (gpu >= 0 && !real_cuDevicePrimaryCtxGetState(device, &flags, &is) && !is)
            gp_blocks_sweep(is_primary, &gpu, end_primary, &sums);
    }
    give_back(&sums);
}

static CUresult end_green(CUgreenCtx green) {
    CUcontext context = NULL;
    struct gp_block known;
    struct own *mine = own();
    int seen = !real_cuCtxFromGreenCtx(&context, green) &&
               gp_blocks_take(gp_key(GP_CONTEXT, (uint64_t)context), &known);
    CUresult rc = real_cuGreenCtxDestroy(green);
    if (seen && rc)
        gp_blocks_put(&known);
    else if (seen && mine)
        __atomic_store_n(place_of(mine, (uint64_t)context), 0, __ATOMIC_RELEASE);
    if (!rc)
        forget_ended_primaries();
    return rc;
}

GP_EXPORT CUresult cuGreenCtxDestroy(CUgreenCtx green) {
    lock_primary();
    CUresult rc = end_green(green);
    unlock_primary();
    return rc;
}
