// SPDX-License-Identifier: Apache-2.0
// Memory that a context takes for its kernels: a stack for every thread that the device keeps at once, the
// buffer of their printf, the heap of their malloc. The context's own cost covers the limits that it begins
// with; what was raised is taken by the next launch, and given back when the limit is lowered.
#include "driver.h"
#include <string.h>

enum { STACK = 0, PRINTF = 1, HEAP = 2, THREADS_OF_SM = 2048 };

static const size_t at_first[CU_LIMITS] = {1024, 1 << 20, 8 << 20, 2, 2048, 64, 0, 0, 0, 0, 0};

void limits_reset(struct context *ctx) {
    memcpy(ctx->limit, at_first, sizeof at_first);
    ctx->peers = 0;
}

static uint64_t beyond(const struct context *ctx, int limit, uint64_t each) {
    size_t now = ctx->limit[limit];
    uint64_t more = now > at_first[limit] ? now - at_first[limit] : 0, bytes;
    return __builtin_mul_overflow(more, each, &bytes) || bytes > (uint64_t)1 << 48 ? (uint64_t)1 << 48
                                                                                   : bytes;
}

static uint64_t needed(const struct context *ctx) {
    uint64_t sms = driver.device[ctx->device].sms;
    return round_up(beyond(ctx, STACK, sms * THREADS_OF_SM) + beyond(ctx, PRINTF, 1) + beyond(ctx, HEAP, 1),
                    SIM_UNIT);
}

CUresult context_launched(struct context *ctx) {
    CUresult result = CUDA_SUCCESS;
    if (__builtin_expect(ctx->raised, 0)) {
        lock_acquire(&driver.lock);
        uint64_t wanted = needed(ctx);
        if (wanted > ctx->grown && !charge(ctx->device, wanted - ctx->grown))
            result = CUDA_ERROR_OUT_OF_MEMORY;
        else if (wanted > ctx->grown)
            ctx->grown = wanted;
        ctx->raised = result != CUDA_SUCCESS;
        lock_release(&driver.lock);
    }
    if (!result)
        managed_launched(ctx);
    return result;
}

API(cuCtxGetLimit, size_t *value, unsigned limit) {
    ENTER_CONTEXT();
    NEED(value);
    if (limit >= CU_LIMITS)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = ctx->limit[limit];
    return CUDA_SUCCESS;
}

API(cuCtxSetLimit, unsigned limit, size_t value) {
    ENTER_CONTEXT();
    if (limit >= CU_LIMITS)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    lock_acquire(&driver.lock);
    ctx->limit[limit] = value;
    uint64_t wanted = needed(ctx);
    if (wanted < ctx->grown) {
        uncharge(ctx->device, ctx->grown - wanted);
        ctx->grown = wanted;
    }
    ctx->raised = wanted > ctx->grown;
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}
