// SPDX-License-Identifier: Apache-2.0
// Graphs that run: instantiated, updated, uploaded, launched. A run does its nodes one after the other before
// the call returns.
#include "graphs.h"
#include "streams.h"
#include <stdlib.h>

enum { INSTANCE_MAGIC = 0x45584543, AUTO_FREE = 1, UPLOAD = 2, FLAGS_ALL = 15 };
enum update { UPDATED = 0, UPDATE_ERROR = 1, TOPOLOGY_CHANGED = 2, TYPE_CHANGED = 3, UPDATE_UNSUPPORTED = 6 };

struct instance {
    uint32_t magic;
    struct graph *source, *graph; // what it was made of, and its own copy
    unsigned long long flags;
};

typedef struct {
    unsigned long long flags;
    CUstream upload_stream;
    CUgraphNode bad;
    int result;
} CUDA_GRAPH_INSTANTIATE_PARAMS;

typedef struct {
    int result;
    CUgraphNode node, from;
} CUgraphExecUpdateResultInfo;

static bool is_instance(const struct instance *instance) {
    return instance && instance->magic == INSTANCE_MAGIC;
}

static CUresult reserve(struct instance *instance) {
    lock_acquire(&driver.lock);
    CUresult result = allocations_reserve(instance->graph->node, instance->graph->count);
    lock_release(&driver.lock);
    return result;
}

static void destroy(struct instance *instance) {
    instance->source->instances--;
    instance->magic = 0;
    graph_free(instance->graph);
}

static CUresult instantiate(CUgraphExec *out, CUgraph graph, unsigned long long flags) {
    NEED(out && graph_is(graph) && !(flags & ~(unsigned long long)FLAGS_ALL));
    if (graph->instances && graph_allocates(graph))
        return CUDA_ERROR_NOT_SUPPORTED; // its memory has one address
    struct instance *instance = calloc(1, sizeof *instance);
    if (!instance)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *instance = (struct instance){.magic = INSTANCE_MAGIC, .source = graph, .flags = flags};
    CUresult result = graph_copy(&instance->graph, graph);
    if (result) {
        free(instance);
        return result;
    }
    graph->instances++;
    if (flags & UPLOAD && (result = reserve(instance)))
        destroy(instance);
    else
        *out = instance;
    return result;
}

API(cuGraphInstantiate, CUgraphExec *out, CUgraph graph, UNUSED CUgraphNode *bad, UNUSED char *log,
    UNUSED size_t room) {
    ENTER_CONTEXT();
    return instantiate(out, graph, 0);
}

API(cuGraphInstantiate_v2, CUgraphExec *out, CUgraph graph, UNUSED CUgraphNode *bad, UNUSED char *log,
    UNUSED size_t room) {
    ENTER_CONTEXT();
    return instantiate(out, graph, 0);
}

API(cuGraphInstantiateWithFlags, CUgraphExec *out, CUgraph graph, unsigned long long flags) {
    ENTER_CONTEXT();
    return instantiate(out, graph, flags);
}

API(cuGraphInstantiateWithParams, CUgraphExec *out, CUgraph graph,
    CUDA_GRAPH_INSTANTIATE_PARAMS *parameters) {
    ENTER_CONTEXT();
    NEED(parameters);
    CUresult result = instantiate(out, graph, parameters->flags);
    parameters->bad = NULL;
    parameters->result = result ? 1 : 0;
    return result;
}

API(cuGraphExecGetFlags, CUgraphExec instance, unsigned long long *flags) {
    ENTER();
    NEED(is_instance(instance) && flags);
    *flags = instance->flags;
    return CUDA_SUCCESS;
}

API(cuGraphExecDestroy, CUgraphExec instance) {
    ENTER();
    NEED(is_instance(instance));
    destroy(instance);
    return CUDA_SUCCESS;
}

// ------- updates: other parameters for the same nodes

static enum update update(struct graph *to, const struct graph *from) {
    if (to->count != from->count)
        return TOPOLOGY_CHANGED;
    for (size_t i = 0; i < to->count; i++)
        if (to->node[i]->work.type != from->node[i]->work.type)
            return TYPE_CHANGED;
    if (graph_allocates(to))
        return UPDATE_UNSUPPORTED;
    for (size_t i = 0; i < to->count; i++)
        if (to->node[i]->work.type != NODE_GRAPH)
            to->node[i]->work = from->node[i]->work;
    return UPDATED;
}

static CUresult exec_update(CUgraphExec instance, CUgraph graph, int *outcome) {
    NEED(is_instance(instance) && graph_is(graph));
    struct graph *ordered;
    CUresult result = graph_copy(&ordered, graph);
    if (result)
        return result;
    *outcome = (int)update(instance->graph, ordered);
    graph_free(ordered);
    return *outcome ? CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE : CUDA_SUCCESS;
}

API(cuGraphExecUpdate, CUgraphExec instance, CUgraph graph, CUgraphNode *node, int *outcome) {
    ENTER();
    NEED(outcome);
    if (node)
        *node = NULL;
    return exec_update(instance, graph, outcome);
}

API(cuGraphExecUpdate_v2, CUgraphExec instance, CUgraph graph, CUgraphExecUpdateResultInfo *info) {
    ENTER();
    NEED(info);
    *info = (CUgraphExecUpdateResultInfo){UPDATE_ERROR, NULL, NULL};
    return exec_update(instance, graph, &info->result);
}

// ------- runs

static CUresult run_fill(const CUDA_MEMSET_NODE_PARAMS *fill) {
    return fill_2d(fill->at, fill->pitch, &fill->value, fill->element, fill->width,
                   fill->height ? fill->height : 1);
}

static CUresult run_alloc(struct allocation *allocation) {
    lock_acquire(&driver.lock);
    CUresult result = allocation_start(allocation);
    lock_release(&driver.lock);
    return result;
}

static CUresult run_free(const struct work *work) {
    if (!work->allocation)
        return memory_free(work->free); // from a pool
    lock_acquire(&driver.lock);
    allocation_end(work->allocation);
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

static CUresult run_all(struct graph *graph, struct context *ctx);

static CUresult run(struct work *work, struct context *ctx) {
    switch (work->type) {
    case NODE_KERNEL:
        return context_launched(ctx);
    case NODE_MEMCPY:
        return copy_3d(&work->copy);
    case NODE_MEMSET:
        return run_fill(&work->fill);
    case NODE_HOST:
        work->host.function(work->host.data);
        return CUDA_SUCCESS;
    case NODE_GRAPH:
        return run_all(work->child, ctx);
    case NODE_RECORD_EVENT:
        event_record(work->event);
        return CUDA_SUCCESS;
    case NODE_ALLOC:
        return run_alloc(work->allocation);
    case NODE_FREE:
        return run_free(work);
    default:
        return CUDA_SUCCESS;
    }
}

static CUresult run_all(struct graph *graph, struct context *ctx) {
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < graph->count && !result; i++)
        result = run(&graph->node[i]->work, ctx);
    return result;
}

// What the last run left allocated must have been freed, or is now, as the instance was told.
static CUresult clear(struct instance *instance) {
    CUresult result = CUDA_SUCCESS;
    lock_acquire(&driver.lock);
    for (size_t i = 0; i < instance->graph->count; i++) {
        struct work *work = &instance->graph->node[i]->work;
        if (work->type != NODE_ALLOC || !work->allocation->live)
            continue;
        if (instance->flags & AUTO_FREE)
            allocation_end(work->allocation);
        else
            result = CUDA_ERROR_INVALID_VALUE;
    }
    lock_release(&driver.lock);
    return result;
}

CUresult graph_launch(struct instance *instance, struct context *ctx) {
    CUresult result = clear(instance);
    if (!result)
        result = reserve(instance);
    return result ? result : run_all(instance->graph, ctx);
}

API(cuGraphUpload, CUgraphExec instance, UNUSED CUstream stream) {
    ENTER_CONTEXT();
    NEED(is_instance(instance));
    return reserve(instance);
}

API(cuGraphLaunch, CUgraphExec instance, CUstream stream) {
    ENTER_CONTEXT();
    NEED(is_instance(instance));
    if (capture_of(stream)) {
        struct work work = {.type = NODE_GRAPH};
        if (graph_allocates(instance->graph))
            return CUDA_ERROR_NOT_SUPPORTED;
        CUresult result = graph_copy(&work.child, instance->graph);
        if (!result)
            captured(stream, &work, &result);
        return result;
    }
    return graph_launch(instance, ctx);
}
