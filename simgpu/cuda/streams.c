// SPDX-License-Identifier: Apache-2.0
// Streams and events. A stream runs nothing: all work is done when the call that gives it returns, so waiting
// only settles the pools.
#include "streams.h"
#include "graphs.h"
#include <stdlib.h>

enum { STREAM_MAGIC = 0x5354524d, EVENT_MAGIC = 0x45564e54, LEGACY = 1, PER_THREAD = 2, FLAGS_ALL = 1 };

// The default streams have numbers for handles: they belong to the current context.
bool stream_is_default(CUstream stream) {
    return (uintptr_t)stream <= PER_THREAD;
}
bool stream_is(CUstream stream) {
    return stream_is_default(stream) || stream->magic == STREAM_MAGIC;
}
static bool is_event(CUevent event) {
    return event && event->magic == EVENT_MAGIC;
}

#define NEED_HANDLE(condition)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return CUDA_ERROR_INVALID_HANDLE;                                                                \
    } while (0)

CUresult stream_create(CUstream *out, unsigned flags, int priority, struct context *ctx) {
    NEED(out && !(flags & ~(unsigned)FLAGS_ALL));
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return CUDA_ERROR_OUT_OF_MEMORY;
    priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
    *stream = (struct stream){STREAM_MAGIC, ctx, flags, priority, new_id()};
    *out = stream;
    return CUDA_SUCCESS;
}

API(cuStreamCreate, CUstream *out, unsigned flags) {
    ENTER_CONTEXT();
    return stream_create(out, flags, 0, ctx);
}

API(cuStreamCreateWithPriority, CUstream *out, unsigned flags, int priority) {
    ENTER_CONTEXT();
    return stream_create(out, flags, priority, ctx);
}

static CUresult destroy_stream(CUstream stream) {
    NEED_HANDLE(!stream_is_default(stream) && stream_is(stream));
    capture_left(stream);
    stream->magic = 0;
    free(stream);
    return CUDA_SUCCESS;
}

API(cuStreamDestroy_v2, CUstream stream) {
    ENTER();
    return destroy_stream(stream);
}

API(cuStreamDestroy, CUstream stream) {
    ENTER();
    return destroy_stream(stream);
}

API(cuStreamSynchronize, CUstream stream) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    CUresult forbidden = capture_forbids(stream);
    if (forbidden)
        return forbidden;
    pools_settle(stream_is_default(stream) ? ctx->device : stream->context->device);
    return CUDA_SUCCESS;
}

API(cuStreamQuery, CUstream stream) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    CUresult forbidden = capture_forbids(stream);
    if (forbidden)
        return forbidden;
    return CUDA_SUCCESS;
}

API(cuStreamWaitEvent, CUstream stream, CUevent event, UNUSED unsigned flags) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream) && is_event(event));
    CUresult result = CUDA_SUCCESS;
    capture_wait(stream, event, &result);
    return result;
}

API(cuStreamGetPriority, CUstream stream, int *priority) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    NEED(priority);
    *priority = stream_is_default(stream) ? 0 : stream->priority;
    return CUDA_SUCCESS;
}

API(cuStreamGetFlags, CUstream stream, unsigned *flags) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    NEED(flags);
    *flags = stream_is_default(stream) ? 0 : stream->flags;
    return CUDA_SUCCESS;
}

API(cuStreamGetId, CUstream stream, unsigned long long *id) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    NEED(id);
    *id = stream_is_default(stream) ? (uintptr_t)stream : stream->id;
    return CUDA_SUCCESS;
}

API(cuStreamGetCtx, CUstream stream, CUcontext *out) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    NEED(out);
    *out = stream_is_default(stream) ? ctx : stream->context;
    return CUDA_SUCCESS;
}

API(cuStreamGetCtx_v2, CUstream stream, CUcontext *out, void **green) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    if (out)
        *out = stream_is_default(stream) ? ctx : stream->context;
    if (green)
        *green = stream_is_default(stream) ? ctx->green : stream->context->green;
    return CUDA_SUCCESS;
}

API(cuStreamGetDevice, CUstream stream, CUdevice *device) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    NEED(device);
    *device = stream_is_default(stream) ? ctx->device : stream->context->device;
    return CUDA_SUCCESS;
}

API(cuStreamAddCallback, CUstream stream, void (*callback)(CUstream, CUresult, void *), void *data,
    UNUSED unsigned flags) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    NEED(callback);
    callback(stream, CUDA_SUCCESS, data);
    return CUDA_SUCCESS;
}

API(cuLaunchHostFunc, CUstream stream, void (*function)(void *), void *data) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    NEED(function);
    OR_CAPTURE(stream, .type = NODE_HOST, .host = {function, data});
    function(data);
    return CUDA_SUCCESS;
}

API(cuStreamAttachMemAsync, CUstream stream, UNUSED CUdeviceptr at, UNUSED size_t size,
    UNUSED unsigned flags) {
    ENTER_CONTEXT();
    NEED_HANDLE(stream_is(stream));
    return CUDA_SUCCESS;
}

API(cuThreadExchangeStreamCaptureMode, int *mode) {
    static __thread int current;
    ENTER();
    NEED(mode && *mode >= 0 && *mode <= 2);
    int old = current;
    current = *mode;
    *mode = old;
    return CUDA_SUCCESS;
}

// ------- events

API(cuEventCreate, CUevent *out, unsigned flags) {
    ENTER_CONTEXT();
    NEED(out);
    struct event *event = calloc(1, sizeof *event);
    if (!event)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *event = (struct event){.magic = EVENT_MAGIC, .context = ctx, .flags = flags};
    *out = event;
    return CUDA_SUCCESS;
}

static CUresult destroy_event(CUevent event) {
    NEED_HANDLE(is_event(event));
    event->magic = 0;
    free(event->after);
    free(event);
    return CUDA_SUCCESS;
}

API(cuEventDestroy_v2, CUevent event) {
    ENTER();
    return destroy_event(event);
}

API(cuEventDestroy, CUevent event) {
    ENTER();
    return destroy_event(event);
}

void event_record(CUevent event) {
    clock_gettime(CLOCK_MONOTONIC, &event->at);
    event->recorded = true;
}

API(cuEventRecord, CUevent event, CUstream stream) {
    ENTER_CONTEXT();
    NEED_HANDLE(is_event(event) && stream_is(stream));
    if (!capture_record(event, stream))
        event_record(event);
    return CUDA_SUCCESS;
}

API(cuEventRecordWithFlags, CUevent event, CUstream stream, UNUSED unsigned flags) {
    ENTER();
    return cuEventRecord(event, stream);
}

API(cuEventQuery, CUevent event) {
    ENTER();
    NEED_HANDLE(is_event(event));
    return CUDA_SUCCESS;
}

API(cuEventSynchronize, CUevent event) {
    ENTER();
    NEED_HANDLE(is_event(event));
    if (event->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    pools_settle(event->context->device);
    return CUDA_SUCCESS;
}

API(cuEventElapsedTime_v2, float *milliseconds, CUevent start, CUevent end) {
    ENTER();
    NEED(milliseconds);
    NEED_HANDLE(is_event(start) && is_event(end) && start->recorded && end->recorded);
    NEED_HANDLE(!((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING));
    *milliseconds = (float)(end->at.tv_sec - start->at.tv_sec) * 1e3f +
                    (float)(end->at.tv_nsec - start->at.tv_nsec) / 1e6f;
    return CUDA_SUCCESS;
}

API(cuEventElapsedTime, float *milliseconds, CUevent start, CUevent end) {
    ENTER();
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

// ------- events between processes: all that was recorded has happened, so the time is all there is to hand
// on

#define IPC_EVENT 0x746e6576652d6370u
enum { INTERPROCESS = 4 };

typedef struct {
    uint64_t magic;
    struct timespec at;
    unsigned char reserved[40];
} CUipcEventHandle;
_Static_assert(sizeof(CUipcEventHandle) == 64, "ABI");

API(cuIpcGetEventHandle, CUipcEventHandle *out, CUevent event) {
    ENTER_CONTEXT();
    NEED_HANDLE(is_event(event));
    NEED(out && event->flags & INTERPROCESS && event->flags & CU_EVENT_DISABLE_TIMING);
    *out = (CUipcEventHandle){.magic = IPC_EVENT, .at = event->at};
    return CUDA_SUCCESS;
}

API(cuIpcOpenEventHandle, CUevent *out, CUipcEventHandle handle) {
    ENTER_CONTEXT();
    NEED_HANDLE(handle.magic == IPC_EVENT);
    CUresult result = cuEventCreate(out, INTERPROCESS | CU_EVENT_DISABLE_TIMING);
    if (!result)
        (*out)->at = handle.at;
    return result;
}
