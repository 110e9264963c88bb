// SPDX-License-Identifier: Apache-2.0
// Capture: a stream's work becomes nodes of a graph instead of being done. Other streams join by waiting for
// an event that was recorded in the capture. The default streams cannot be captured.
#include "graphs.h"
#include "streams.h"
#include <stdlib.h>
#include <string.h>

enum { NONE = 0, ACTIVE = 1, INVALIDATED = 2, MODES = 3, SET = 1 };

struct capture {
    struct graph *graph;
    struct stream *origin;
    uint64_t id;
    unsigned streams; // that take part
    bool invalid, own_graph, over;
};

static _Atomic unsigned running; // captures; while there is none, a call pays a comparison

struct capture *capture_of(CUstream stream) {
    if (!atomic_load_explicit(&running, memory_order_relaxed) || stream_is_default(stream) ||
        !stream_is(stream))
        return NULL;
    if (stream->capture && stream->capture->over)
        stream->capture = NULL; // it had joined one that has ended
    return stream->capture;
}

static bool set_last(struct node ***list, size_t *count, struct node *const *nodes, size_t n) {
    struct node **copy = malloc((n + 1) * sizeof(struct node *));
    if (!copy)
        return false;
    if (n)
        memcpy(copy, nodes, n * sizeof(struct node *));
    free(*list);
    *list = copy;
    *count = n;
    return true;
}

static bool add_last(struct stream *stream, struct node *const *nodes, size_t n) {
    struct node **more = realloc(stream->last, (stream->last_count + n + 1) * sizeof(struct node *));
    if (!more)
        return false;
    if (n)
        memcpy(more + stream->last_count, nodes, n * sizeof(struct node *));
    stream->last = more;
    stream->last_count += n;
    return true;
}

static CUresult append(struct stream *stream, const struct work *work) {
    struct node *node;
    if (stream->capture->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    CUresult result = graph_add(&node, stream->capture->graph, stream->last, stream->last_count, work);
    if (!result && !set_last(&stream->last, &stream->last_count, &node, 1))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    return result;
}

bool captured(CUstream stream, const struct work *work, CUresult *result) {
    if (!capture_of(stream))
        return false;
    *result = append(stream, work);
    return true;
}

bool captured_copy(CUstream stream, uintptr_t to, uintptr_t from, size_t size, CUresult *result) {
    struct work work = {.type = NODE_MEMCPY,
                        .copy = {.srcMemoryType = CU_MEMORYTYPE_UNIFIED,
                                 .srcDevice = from,
                                 .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
                                 .dstDevice = to,
                                 .WidthInBytes = size,
                                 .Height = 1,
                                 .Depth = 1}};
    return captured(stream, &work, result);
}

static CUresult append_memory(struct stream *stream, struct work *work) {
    CUresult result = CUDA_SUCCESS;
    lock_acquire(&driver.lock);
    if (work->type == NODE_ALLOC)
        result = allocation_new(work, stream->context);
    else if ((work->allocation = allocation_at(work->free)))
        work->allocation->references++;
    else if (place_find(work->free).kind != KIND_POOL)
        result = CUDA_ERROR_INVALID_VALUE;
    lock_release(&driver.lock);
    return result ? result : append(stream, work);
}

bool captured_alloc(CUstream stream, CUdeviceptr *out, size_t size, CUmemoryPool pool, CUresult *result) {
    if (!capture_of(stream))
        return false;
    CUmemLocation location = {CU_MEM_LOCATION_DEVICE, stream->context->device};
    if (pool)
        location.id = pool_device(pool);
    struct work work = {
        .type = NODE_ALLOC,
        .alloc = {.pool = {.allocType = CU_MEM_ALLOCATION_PINNED, .location = location}, .size = size}};
    *result = out ? append_memory(stream, &work) : CUDA_ERROR_INVALID_VALUE;
    if (!*result)
        *out = work.alloc.at;
    return true;
}

bool captured_free(CUstream stream, CUdeviceptr at, CUresult *result) {
    if (!capture_of(stream))
        return false;
    struct work work = {.type = NODE_FREE, .free = at};
    *result = append_memory(stream, &work);
    return true;
}

CUresult capture_forbids(CUstream stream) {
    struct capture *capture = capture_of(stream);
    if (!capture)
        return CUDA_SUCCESS;
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

// ------- events: by them other streams join, and come back

bool capture_record(CUevent event, CUstream stream) {
    struct capture *capture = capture_of(stream);
    event->capture = capture;
    return capture && set_last(&event->after, &event->after_count, stream->last, stream->last_count);
}

static void join(struct stream *stream, struct capture *capture) {
    stream->capture = capture;
    stream->last_count = 0;
    capture->streams++;
}

bool capture_wait(CUstream stream, CUevent event, CUresult *result) {
    struct capture *capture = event->capture, *here = capture_of(stream);
    if (!capture || capture->over)
        return here != NULL &&
               (*result = append(stream, &(struct work){.type = NODE_WAIT_EVENT, .event = event}), true);
    if (stream_is_default(stream) || (here && here != capture)) {
        *result = here ? CUDA_ERROR_STREAM_CAPTURE_MERGE : CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        return true;
    }
    if (!here)
        join(stream, capture);
    *result = add_last(stream, event->after, event->after_count) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    return true;
}

void capture_left(struct stream *stream) {
    if (stream->capture)
        stream->capture->invalid = true;
    if (stream->capture && stream->capture->origin == stream) {
        stream->capture->over = true;
        running--;
    }
    free(stream->last);
}

// ------- begin and end

static CUresult begin(CUstream stream, int mode, CUgraph graph, const CUgraphNode *after, size_t count) {
    NEED(mode >= 0 && mode < MODES);
    if (stream_is_default(stream))
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    NEED(stream_is(stream) && !capture_of(stream));
    struct capture *capture = calloc(1, sizeof *capture);
    if (!capture)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *capture = (struct capture){
        .graph = graph ? graph : graph_new(), .origin = stream, .id = new_id(), .own_graph = !graph};
    if (!capture->graph || !set_last(&stream->last, &stream->last_count, after, count))
        return CUDA_ERROR_OUT_OF_MEMORY;
    running++;
    stream->capture = capture;
    capture->streams = 1;
    return CUDA_SUCCESS;
}

API(cuStreamBeginCapture_v2, CUstream stream, int mode) {
    ENTER_CONTEXT();
    return begin(stream, mode, NULL, NULL, 0);
}

API(cuStreamBeginCapture, CUstream stream) {
    ENTER_CONTEXT();
    return begin(stream, 0, NULL, NULL, 0);
}

API(cuStreamBeginCaptureToGraph, CUstream stream, CUgraph graph, const CUgraphNode *after,
    UNUSED const void *edges, size_t count, int mode) {
    ENTER_CONTEXT();
    NEED(graph_is(graph) && (!count || after));
    return begin(stream, mode, graph, after, count);
}

// Every node without a successor must be the origin's last: else another stream's work was not joined.
static bool joined(const struct capture *capture) {
    const struct graph *graph = capture->graph;
    for (size_t i = 0; i < graph->count; i++)
        graph->node[i]->mark = 0;
    for (size_t i = 0; i < graph->count; i++)
        for (size_t k = 0; k < graph->node[i]->count; k++)
            graph->node[i]->after[k]->mark = 1;
    for (size_t i = 0; i < capture->origin->last_count; i++)
        capture->origin->last[i]->mark = 1;
    for (size_t i = 0; i < graph->count; i++)
        if (!graph->node[i]->mark && capture->streams > 1)
            return false;
    return true;
}

API(cuStreamEndCapture, CUstream stream, CUgraph *out) {
    ENTER_CONTEXT();
    NEED(out);
    struct capture *capture = capture_of(stream);
    if (!capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (capture->origin != stream)
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    CUresult result = capture->invalid  ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                      : joined(capture) ? CUDA_SUCCESS
                                        : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    stream->capture = NULL;
    capture->over = true; // the object stays: events and joined streams know it
    running--;
    *out = result ? NULL : capture->graph;
    if (result && capture->own_graph)
        graph_free(capture->graph);
    return result;
}

struct info {
    int *status;
    uint64_t *id;
    CUgraph *graph;
    const CUgraphNode **last;
    size_t *count;
};

static CUresult tell(CUstream stream, struct info out) {
    if (!stream_is(stream))
        return CUDA_ERROR_INVALID_HANDLE;
    NEED(out.status);
    const struct capture *capture = capture_of(stream);
    *out.status = !capture ? NONE : capture->invalid ? INVALIDATED : ACTIVE;
    if (!capture)
        return CUDA_SUCCESS;
    if (out.id)
        *out.id = capture->id;
    if (out.graph)
        *out.graph = capture->graph;
    if (out.last)
        *out.last = stream->last;
    if (out.count)
        *out.count = stream->last_count;
    return CUDA_SUCCESS;
}

API(cuStreamIsCapturing, CUstream stream, int *status) {
    ENTER_CONTEXT();
    return tell(stream, (struct info){.status = status});
}

API(cuStreamGetCaptureInfo, CUstream stream, int *status, uint64_t *id) {
    ENTER_CONTEXT();
    return tell(stream, (struct info){status, id});
}

API(cuStreamGetCaptureInfo_v2, CUstream stream, int *status, uint64_t *id, CUgraph *graph,
    const CUgraphNode **last, size_t *count) {
    ENTER_CONTEXT();
    return tell(stream, (struct info){status, id, graph, last, count});
}

API(cuStreamGetCaptureInfo_v3, CUstream stream, int *status, uint64_t *id, CUgraph *graph,
    const CUgraphNode **last, const void **edges, size_t *count) {
    ENTER_CONTEXT();
    if (edges)
        *edges = NULL;
    return tell(stream, (struct info){status, id, graph, last, count});
}

static CUresult depend(CUstream stream, CUgraphNode *nodes, size_t count, unsigned flags) {
    NEED(flags <= SET && (!count || nodes));
    if (!capture_of(stream))
        return CUDA_ERROR_ILLEGAL_STATE;
    bool done = flags == SET ? set_last(&stream->last, &stream->last_count, nodes, count)
                             : add_last(stream, nodes, count);
    return done ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

API(cuStreamUpdateCaptureDependencies, CUstream stream, CUgraphNode *nodes, size_t count, unsigned flags) {
    ENTER_CONTEXT();
    return depend(stream, nodes, count, flags);
}

API(cuStreamUpdateCaptureDependencies_v2, CUstream stream, CUgraphNode *nodes, UNUSED const void *edges,
    size_t count, unsigned flags) {
    ENTER_CONTEXT();
    return depend(stream, nodes, count, flags);
}
