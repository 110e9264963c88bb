// SPDX-License-Identifier: Apache-2.0
// What a context can be asked and told: device, flags, caches, peers. None of it changes what it costs.
#include "driver.h"

static CUresult given_or_current(CUcontext *ctx) {
    if (!*ctx)
        *ctx = context_current();
    if (!context_is(*ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    return (*ctx)->alive ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

API(cuCtxGetDevice, CUdevice *device) {
    ENTER_CONTEXT();
    NEED(device);
    *device = ctx->device;
    return CUDA_SUCCESS;
}

API(cuCtxGetDevice_v2, CUdevice *device, CUcontext ctx) {
    ENTER();
    NEED(device);
    CUresult result = given_or_current(&ctx);
    if (!result)
        *device = ctx->device;
    return result;
}

API(cuCtxGetFlags, unsigned *flags) {
    ENTER_CONTEXT();
    NEED(flags);
    *flags = ctx->flags;
    return CUDA_SUCCESS;
}

API(cuCtxSetFlags, unsigned flags) {
    ENTER_CONTEXT();
    ctx->flags = flags;
    return CUDA_SUCCESS;
}

API(cuCtxGetId, CUcontext ctx, unsigned long long *id) {
    ENTER();
    NEED(id);
    CUresult result = given_or_current(&ctx);
    if (!result)
        *id = ctx->id;
    return result;
}

API(cuCtxGetApiVersion, CUcontext ctx, unsigned *version) {
    ENTER();
    NEED(version);
    CUresult result = given_or_current(&ctx);
    if (!result)
        *version = ctx->api_version;
    return result;
}

API(cuCtxSynchronize, void) {
    ENTER_CONTEXT();
    pools_settle(ctx->device);
    return CUDA_SUCCESS;
}

API(cuCtxSynchronize_v2, CUcontext ctx) {
    ENTER();
    CUresult result = given_or_current(&ctx);
    if (!result)
        pools_settle(ctx->device);
    return result;
}

API(cuCtxGetCacheConfig, int *config) {
    ENTER_CONTEXT();
    NEED(config);
    *config = 0;
    return CUDA_SUCCESS;
}

API(cuCtxSetCacheConfig, UNUSED int config) {
    ENTER_CONTEXT();
    return CUDA_SUCCESS;
}

API(cuCtxGetSharedMemConfig, int *config) {
    ENTER_CONTEXT();
    NEED(config);
    *config = 1;
    return CUDA_SUCCESS;
}

API(cuCtxSetSharedMemConfig, UNUSED int config) {
    ENTER_CONTEXT();
    return CUDA_SUCCESS;
}

API(cuCtxGetStreamPriorityRange, int *least, int *greatest) {
    ENTER_CONTEXT();
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return CUDA_SUCCESS;
}

API(cuCtxResetPersistingL2Cache, void) {
    ENTER_CONTEXT();
    return CUDA_SUCCESS;
}

static CUresult known_peer(const struct context *ctx, CUcontext peer) {
    if (!context_is(peer) || !peer->alive)
        return CUDA_ERROR_INVALID_CONTEXT;
    return peer->device == ctx->device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

API(cuCtxEnablePeerAccess, CUcontext peer, unsigned flags) {
    ENTER_CONTEXT();
    NEED(!flags);
    CUresult result = known_peer(ctx, peer);
    if (!result && !peers_reach(ctx->device, peer->device))
        result = CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    if (!result && ctx->peers & 1u << peer->device)
        result = CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    if (!result)
        ctx->peers |= 1u << peer->device;
    return result;
}

API(cuCtxDisablePeerAccess, CUcontext peer) {
    ENTER_CONTEXT();
    CUresult result = known_peer(ctx, peer);
    if (!result && !(ctx->peers & 1u << peer->device))
        result = CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    if (!result)
        ctx->peers &= ~(1u << peer->device);
    return result;
}
