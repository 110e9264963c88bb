// SPDX-License-Identifier: Apache-2.0
// Green contexts: parts of a device's multiprocessors, for a little memory of their own. Their work runs no
// differently.
#include "streams.h"
#include <stdlib.h>
#include <string.h>

enum { RESOURCE_SM = 1, DEFAULT_STREAM = 1, MINIMUM = 2, GREEN_MAGIC = 0x4752454e };

typedef struct {
    int type;
    unsigned char internal[92];
    unsigned sms, minimum, alignment;
    unsigned char reserved[36];
} CUdevResource;
_Static_assert(sizeof(CUdevResource) == 144, "ABI");

typedef struct description {
    CUdevResource resource;
} *CUdevResourceDesc;

typedef struct green {
    uint32_t magic;
    struct context context;
    CUdevResource resource;
} *CUgreenCtx;

#define NEED_GREEN(green)                                                                                    \
    do {                                                                                                     \
        if (!(green) || (green)->magic != GREEN_MAGIC)                                                       \
            return CUDA_ERROR_INVALID_CONTEXT;                                                               \
    } while (0)

static CUdevResource resource_of(unsigned sms) {
    return (CUdevResource){.type = RESOURCE_SM, .sms = sms, .minimum = MINIMUM, .alignment = MINIMUM};
}

static CUresult whole(CUdevResource *out, int type, int device) {
    NEED(out && type == RESOURCE_SM);
    *out = resource_of(driver.device[device].sms);
    return CUDA_SUCCESS;
}

API(cuDeviceGetDevResource, CUdevice device, CUdevResource *out, int type) {
    ENTER();
    NEED_DEVICE(device);
    return whole(out, type, device);
}

API(cuCtxGetDevResource, CUcontext ctx, CUdevResource *out, int type) {
    ENTER();
    if (!context_is(ctx) || !ctx->alive)
        return CUDA_ERROR_INVALID_CONTEXT;
    CUresult result = whole(out, type, ctx->device);
    if (!result && ctx->green)
        *out = ctx->green->resource;
    return result;
}

API(cuDevSmResourceSplitByCount, CUdevResource *out, unsigned *groups, const CUdevResource *from,
    CUdevResource *rest, UNUSED unsigned flags, unsigned count) {
    ENTER();
    NEED(groups && from && from->type == RESOURCE_SM && count <= from->sms);
    unsigned each = (unsigned)round_up(count ? count : MINIMUM, MINIMUM), most = from->sms / each;
    if (out && *groups < most)
        most = *groups;
    for (unsigned i = 0; out && i < most; i++)
        out[i] = resource_of(each);
    if (rest)
        *rest = resource_of(from->sms - most * each);
    *groups = most;
    return CUDA_SUCCESS;
}

API(cuDevResourceGenerateDesc, CUdevResourceDesc *out, CUdevResource *resources, unsigned n) {
    ENTER();
    NEED(out && resources && n && resources->type == RESOURCE_SM);
    *out = calloc(1, sizeof **out);
    if (!*out)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*out)->resource = *resources;
    for (unsigned i = 1; i < n; i++)
        (*out)->resource.sms += resources[i].sms;
    return CUDA_SUCCESS;
}

API(cuGreenCtxCreate, CUgreenCtx *out, CUdevResourceDesc description, CUdevice device, unsigned flags) {
    ENTER();
    NEED_DEVICE(device);
    NEED(out && description && flags == DEFAULT_STREAM);
    struct green *green = calloc(1, sizeof *green);
    CUcontext primary;
    if (!green)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = primary_retain(&primary, device);
    *green = (struct green){.magic = GREEN_MAGIC,
                            .context = {.device = device, .references = 1, .green = green},
                            .resource = description->resource};
    if (!result && (result = context_open(&green->context, driver.costs.green)))
        primary_release(device);
    if (result)
        free(green);
    else
        *out = green;
    return result;
}

// The object stays, as a context's does.
API(cuGreenCtxDestroy, CUgreenCtx green) {
    ENTER();
    NEED_GREEN(green);
    green->magic = 0;
    context_close(&green->context);
    return primary_release(green->context.device);
}

API(cuCtxFromGreenCtx, CUcontext *out, CUgreenCtx green) {
    ENTER();
    NEED_GREEN(green);
    NEED(out);
    *out = &green->context;
    return CUDA_SUCCESS;
}

API(cuGreenCtxGetDevResource, CUgreenCtx green, CUdevResource *out, int type) {
    ENTER();
    NEED_GREEN(green);
    NEED(out && type == RESOURCE_SM);
    *out = green->resource;
    return CUDA_SUCCESS;
}

API(cuGreenCtxGetId, CUgreenCtx green, unsigned long long *id) {
    ENTER();
    NEED_GREEN(green);
    NEED(id);
    *id = green->context.id;
    return CUDA_SUCCESS;
}

API(cuGreenCtxStreamCreate, CUstream *out, CUgreenCtx green, unsigned flags, int priority) {
    ENTER();
    NEED_GREEN(green);
    return stream_create(out, flags, priority, &green->context);
}

API(cuGreenCtxRecordEvent, CUgreenCtx green, CUevent event) {
    ENTER();
    NEED_GREEN(green);
    NEED(event);
    event_record(event);
    return CUDA_SUCCESS;
}

API(cuGreenCtxWaitEvent, CUgreenCtx green, CUevent event) {
    ENTER();
    NEED_GREEN(green);
    NEED(event);
    return CUDA_SUCCESS;
}
