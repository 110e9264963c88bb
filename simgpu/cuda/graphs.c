// SPDX-License-Identifier: Apache-2.0
// Graphs: nodes and what they depend on, made and asked about. Knows nothing of how a graph runs.
#include "graphs.h"
#include <stdlib.h>
#include <string.h>

enum { GRAPH_MAGIC = 0x47525048, NODE_MAGIC = 0x4e4f4445 };

bool graph_is(const struct graph *graph) {
    return graph && graph->magic == GRAPH_MAGIC;
}
bool node_is(const struct node *node) {
    return node && node->magic == NODE_MAGIC;
}

bool graph_allocates(const struct graph *graph) {
    for (size_t i = 0; i < graph->count; i++)
        if (graph->node[i]->work.type == NODE_ALLOC || graph->node[i]->work.type == NODE_FREE)
            return true;
    return false;
}

struct graph *graph_new(void) {
    struct graph *graph = calloc(1, sizeof *graph);
    if (graph)
        *graph = (struct graph){.magic = GRAPH_MAGIC, .id = new_id()};
    return graph;
}

static bool append(struct node ***list, size_t *count, struct node *node) {
    struct node **more = realloc(*list, (*count + 1) * sizeof(struct node *));
    if (!more)
        return false;
    more[(*count)++] = node;
    *list = more;
    return true;
}

static void node_free(struct node *node) {
    if (node->work.type == NODE_GRAPH)
        graph_free(node->work.child);
    if (node->work.allocation) {
        lock_acquire(&driver.lock);
        allocation_drop(node->work.allocation);
        lock_release(&driver.lock);
    }
    free(node->after);
    node->after = NULL;
    node->count = 0;
    node->magic = 0; // the object stays: a stale handle is told, not followed
}

// The object stays, as a node's does: instances know it.
void graph_free(struct graph *graph) {
    for (size_t i = 0; i < graph->count; i++)
        node_free(graph->node[i]);
    free(graph->node);
    graph->node = NULL;
    graph->count = 0;
    graph->magic = 0;
}

CUresult graph_add(struct node **out, struct graph *graph, struct node *const *after, size_t count,
                   const struct work *work) {
    struct node *node = calloc(1, sizeof *node);
    NEED(!count || after);
    for (size_t i = 0; i < count; i++)
        NEED(node_is(after[i]) && after[i]->graph == graph);
    if (!node || !append(&graph->node, &graph->count, node))
        return CUDA_ERROR_OUT_OF_MEMORY;
    *node = (struct node){.magic = NODE_MAGIC, .graph = graph, .work = *work};
    for (size_t i = 0; i < count; i++)
        append(&node->after, &node->count, after[i]);
    if (out)
        *out = node;
    return CUDA_SUCCESS;
}

// ------- copies, in an order that all dependencies allow

enum { UNSEEN, BEGUN, DONE };

static CUresult copy_node(struct graph *to, struct node *node) {
    CUresult result = CUDA_SUCCESS;
    if (node->mark == DONE)
        return CUDA_SUCCESS;
    NEED(node->mark == UNSEEN); // else it depends on itself
    node->mark = BEGUN;
    for (size_t i = 0; i < node->count && !result; i++)
        result = copy_node(to, node->after[i]);
    struct work work = node->work;
    if (!result && work.type == NODE_GRAPH)
        result = graph_copy(&work.child, node->work.child);
    if (!result)
        result = graph_add(&node->twin, to, NULL, 0, &work);
    for (size_t i = 0; i < node->count && !result; i++)
        append(&node->twin->after, &node->twin->count, node->after[i]->twin);
    if (!result && work.allocation)
        work.allocation->references++;
    node->mark = DONE;
    return result;
}

CUresult graph_copy(struct graph **out, const struct graph *graph) {
    CUresult result = CUDA_SUCCESS;
    *out = graph_new();
    if (!*out)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < graph->count; i++)
        graph->node[i]->mark = UNSEEN;
    for (size_t i = 0; i < graph->count && !result; i++)
        result = copy_node(*out, graph->node[i]);
    if (result)
        graph_free(*out);
    return result;
}

// ------- the calls

#define NEED_GRAPH(graph)                                                                                    \
    do {                                                                                                     \
        if (!graph_is(graph))                                                                                \
            return CUDA_ERROR_INVALID_VALUE;                                                                 \
    } while (0)

API(cuGraphCreate, CUgraph *out, unsigned flags) {
    ENTER();
    NEED(out && !flags);
    *out = graph_new();
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

API(cuGraphDestroy, CUgraph graph) {
    ENTER();
    NEED_GRAPH(graph);
    graph_free(graph);
    return CUDA_SUCCESS;
}

// Memory has one address, so a graph that allocates has no twin.
API(cuGraphClone, CUgraph *out, CUgraph graph) {
    ENTER();
    NEED_GRAPH(graph);
    NEED(out);
    return graph_allocates(graph) ? CUDA_ERROR_NOT_SUPPORTED : graph_copy(out, graph);
}

API(cuGraphGetNodes, CUgraph graph, CUgraphNode *nodes, size_t *count) {
    ENTER();
    NEED_GRAPH(graph);
    NEED(count);
    for (size_t i = 0; nodes && i < *count; i++)
        nodes[i] = i < graph->count ? graph->node[i] : NULL;
    if (!nodes || *count > graph->count)
        *count = graph->count;
    return CUDA_SUCCESS;
}

API(cuGraphGetRootNodes, CUgraph graph, CUgraphNode *nodes, size_t *count) {
    ENTER();
    NEED_GRAPH(graph);
    NEED(count);
    size_t found = 0;
    for (size_t i = 0; i < graph->count; i++) {
        if (graph->node[i]->count)
            continue;
        if (nodes && found < *count)
            nodes[found] = graph->node[i];
        found++;
    }
    if (!nodes || *count > found)
        *count = found;
    return CUDA_SUCCESS;
}

API(cuGraphNodeGetType, CUgraphNode node, int *type) {
    ENTER();
    NEED(node_is(node) && type);
    *type = (int)node->work.type;
    return CUDA_SUCCESS;
}

API(cuGraphNodeGetDependencies, CUgraphNode node, CUgraphNode *nodes, size_t *count) {
    ENTER();
    NEED(node_is(node) && count);
    for (size_t i = 0; nodes && i < *count; i++)
        nodes[i] = i < node->count ? node->after[i] : NULL;
    if (!nodes || *count > node->count)
        *count = node->count;
    return CUDA_SUCCESS;
}

static CUresult depend(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count) {
    NEED_GRAPH(graph);
    NEED(!count || (from && to));
    for (size_t i = 0; i < count; i++)
        NEED(node_is(from[i]) && node_is(to[i]) && from[i]->graph == graph && to[i]->graph == graph);
    for (size_t i = 0; i < count; i++)
        if (!append(&to[i]->after, &to[i]->count, from[i]))
            return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

API(cuGraphAddDependencies, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count) {
    ENTER();
    return depend(graph, from, to, count);
}

API(cuGraphAddDependencies_v2, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
    UNUSED const void *edges, size_t count) {
    ENTER();
    return depend(graph, from, to, count);
}
