// SPDX-License-Identifier: Apache-2.0
// Contexts: made, shared as a device's primary, made current per thread, ended with everything that is
// theirs. A context costs device memory for as long as it lives.
#include "memory.h"
#include <stdlib.h>

enum { MAGIC = 0x47434f4e, DEPTH = 64, FLAGS_ALL = 0x1ff };

static __thread struct {
    int depth;
    struct context *context[DEPTH];
} stack;

struct context *context_current(void) {
    return stack.depth ? stack.context[stack.depth - 1] : NULL;
}
bool context_is(const struct context *context) {
    return context && context->magic == MAGIC;
}
void contexts_after_fork(void) {
    stack.depth = 0;
}

CUresult context_open(struct context *ctx, uint64_t cost) {
    lock_acquire(&driver.lock);
    CUresult result = CUDA_SUCCESS;
    if (!ctx->alive) {
        ctx->alive = charge(ctx->device, cost);
        ctx->cost = cost;
        result = ctx->alive ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
        ctx->magic = MAGIC;
        ctx->id = new_id();
        ctx->api_version = 3020;
        limits_reset(ctx);
    }
    lock_release(&driver.lock);
    return result;
}

void context_close(struct context *ctx) {
    lock_acquire(&driver.lock);
    if (ctx->alive) {
        ctx->alive = false;
        modules_drop(ctx);
        memory_drop_all(ctx);
        uncharge(ctx->device, ctx->cost + ctx->grown);
        ctx->grown = 0;
        ctx->raised = false;
    }
    lock_release(&driver.lock);
}

static CUresult push(struct context *ctx) {
    if (stack.depth == DEPTH)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack.context[stack.depth++] = ctx;
    return CUDA_SUCCESS;
}

static CUresult create(CUcontext *out, unsigned flags, CUdevice device) {
    NEED(out && !(flags & ~(unsigned)FLAGS_ALL));
    NEED_DEVICE(device);
    struct context *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return CUDA_ERROR_OUT_OF_MEMORY;
    ctx->device = device;
    ctx->flags = flags;
    ctx->references = 1;
    CUresult result = context_open(ctx, driver.costs.context);
    if (!result)
        result = push(ctx);
    if (result)
        free(ctx);
    else
        *out = ctx;
    return result;
}

// The first ABI differs from the second in nothing that matters here: handles and integers have kept their
// sizes.
API(cuCtxCreate, CUcontext *out, unsigned flags, CUdevice device) {
    ENTER();
    return create(out, flags, device);
}

API(cuCtxCreate_v2, CUcontext *out, unsigned flags, CUdevice device) {
    ENTER();
    return create(out, flags, device);
}

API(cuCtxCreate_v3, CUcontext *out, UNUSED void *affinity, UNUSED int n, unsigned flags, CUdevice device) {
    ENTER();
    return create(out, flags, device);
}

API(cuCtxCreate_v4, CUcontext *out, UNUSED void *parameters, unsigned flags, CUdevice device) {
    ENTER();
    return create(out, flags, device);
}

// The object stays: other threads may have it on their stacks, where it is found to be destroyed.
API(cuCtxDestroy_v2, CUcontext ctx) {
    ENTER();
    if (!context_is(ctx) || ctx->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    context_close(ctx);
    if (context_current() == ctx)
        stack.depth--;
    return CUDA_SUCCESS;
}

API(cuCtxDestroy, CUcontext ctx) {
    ENTER();
    return cuCtxDestroy_v2(ctx);
}

API(cuCtxAttach, CUcontext *out, UNUSED unsigned flags) {
    ENTER_CONTEXT();
    NEED(out);
    ctx->references++;
    *out = ctx;
    return CUDA_SUCCESS;
}

API(cuCtxDetach, CUcontext ctx) {
    ENTER();
    if (!context_is(ctx) || ctx->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    return --ctx->references ? CUDA_SUCCESS : cuCtxDestroy_v2(ctx);
}

API(cuCtxPushCurrent_v2, CUcontext ctx) {
    ENTER();
    return context_is(ctx) ? push(ctx) : CUDA_ERROR_INVALID_CONTEXT;
}

API(cuCtxPushCurrent, CUcontext ctx) {
    ENTER();
    return context_is(ctx) ? push(ctx) : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult pop(CUcontext *out) {
    if (!stack.depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack.depth--;
    if (out)
        *out = stack.context[stack.depth];
    return CUDA_SUCCESS;
}

API(cuCtxPopCurrent_v2, CUcontext *out) {
    ENTER();
    return pop(out);
}

API(cuCtxPopCurrent, CUcontext *out) {
    ENTER();
    return pop(out);
}

API(cuCtxSetCurrent, CUcontext ctx) {
    ENTER();
    if (ctx && !context_is(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (stack.depth)
        stack.depth--;
    return ctx ? push(ctx) : CUDA_SUCCESS;
}

API(cuCtxGetCurrent, CUcontext *out) {
    ENTER();
    NEED(out);
    *out = context_current();
    return CUDA_SUCCESS;
}

// ------- primary contexts: one per device, for all who retain it

CUresult primary_retain(CUcontext *out, CUdevice device) {
    struct context *ctx = &driver.device[device].primary;
    CUresult result = context_open(ctx, driver.costs.context);
    if (result)
        return result;
    __atomic_add_fetch(&ctx->references, 1, __ATOMIC_RELAXED);
    *out = ctx;
    return CUDA_SUCCESS;
}

CUresult primary_release(CUdevice device) {
    struct context *ctx = &driver.device[device].primary;
    if (!ctx->references)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!__atomic_sub_fetch(&ctx->references, 1, __ATOMIC_RELAXED))
        context_close(ctx);
    return CUDA_SUCCESS;
}

API(cuDevicePrimaryCtxRetain, CUcontext *out, CUdevice device) {
    ENTER();
    NEED(out);
    NEED_DEVICE(device);
    return primary_retain(out, device);
}

API(cuDevicePrimaryCtxRelease_v2, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    return primary_release(device);
}

API(cuDevicePrimaryCtxRelease, CUdevice device) {
    ENTER();
    return cuDevicePrimaryCtxRelease_v2(device);
}

API(cuDevicePrimaryCtxReset_v2, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    context_close(&driver.device[device].primary);
    return CUDA_SUCCESS;
}

API(cuDevicePrimaryCtxReset, CUdevice device) {
    ENTER();
    return cuDevicePrimaryCtxReset_v2(device);
}

API(cuDevicePrimaryCtxSetFlags_v2, CUdevice device, unsigned flags) {
    ENTER();
    NEED_DEVICE(device);
    NEED(!(flags & ~(unsigned)FLAGS_ALL));
    driver.device[device].primary.flags = flags;
    return CUDA_SUCCESS;
}

API(cuDevicePrimaryCtxSetFlags, CUdevice device, unsigned flags) {
    ENTER();
    return driver.device[device].primary.alive ? CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE
                                               : cuDevicePrimaryCtxSetFlags_v2(device, flags);
}

API(cuDevicePrimaryCtxGetState, CUdevice device, unsigned *flags, int *active) {
    ENTER();
    NEED_DEVICE(device);
    if (flags)
        *flags = driver.device[device].primary.flags;
    if (active)
        *active = driver.device[device].primary.alive;
    return CUDA_SUCCESS;
}
