// SPDX-License-Identifier: Apache-2.0
// Graphs of work: what a node is, what lies in a graph, and the memory that graphs allocate.
#pragma once
#include "copies.h"

typedef struct graph *CUgraph;
typedef struct node *CUgraphNode;
typedef struct instance *CUgraphExec;

enum node_type {
    NODE_KERNEL,
    NODE_MEMCPY,
    NODE_MEMSET,
    NODE_HOST,
    NODE_GRAPH,
    NODE_EMPTY,
    NODE_WAIT_EVENT,
    NODE_RECORD_EVENT,
    NODE_ALLOC = 10,
    NODE_FREE = 11,
};

typedef struct {
    CUfunction function;
    unsigned grid[3], block[3], shared;
    void **arguments, **extra;
    CUkernel kernel; // from here on only in the second version
    CUcontext context;
} CUDA_KERNEL_NODE_PARAMS;

typedef struct {
    CUdeviceptr at;
    size_t pitch;
    unsigned value, element;
    size_t width, height;
} CUDA_MEMSET_NODE_PARAMS;

typedef struct {
    void (*function)(void *);
    void *data;
} CUDA_HOST_NODE_PARAMS;

typedef struct {
    CUmemPoolProps pool;
    const CUmemAccessDesc *access;
    size_t access_count, size;
    CUdeviceptr at;
} CUDA_MEM_ALLOC_NODE_PARAMS;

// What a node does.
struct work {
    enum node_type type;
    union {
        CUDA_KERNEL_NODE_PARAMS kernel;
        CUDA_MEMCPY3D copy;
        CUDA_MEMSET_NODE_PARAMS fill;
        CUDA_HOST_NODE_PARAMS host;
        CUDA_MEM_ALLOC_NODE_PARAMS alloc;
        CUdeviceptr free;
        CUevent event;
        CUgraph child;
    };
    struct allocation *allocation; // of NODE_ALLOC, and of NODE_FREE if a graph allocates it
};

struct node {
    uint32_t magic;
    struct graph *graph;
    struct work work;
    struct node **after; // which must have run before
    size_t count;
    struct node *twin; // its copy, while a graph is copied
    unsigned mark;     // while a graph is put in order
};

struct graph {
    uint32_t magic;
    struct node **node;
    size_t count;
    uint64_t id;
    unsigned instances; // of a graph that allocates there is one at most
};

// Memory of a graph: its address is fixed when its node is made, the device is charged when it runs.
struct allocation {
    struct block *block;
    uint64_t cost;
    int device;
    bool live;           // allocated by a run, not freed yet
    unsigned references; // nodes and instances
};

#pragma GCC visibility push(hidden)
// graphs.c; a graph belongs to one thread at a time
bool graph_is(const struct graph *graph);
bool node_is(const struct node *node);
bool graph_allocates(const struct graph *graph);
struct graph *graph_new(void);
void graph_free(struct graph *graph);
CUresult graph_add(struct node **out, struct graph *graph, struct node *const *after, size_t count,
                   const struct work *work);
CUresult graph_copy(struct graph **out, const struct graph *graph); // in the order in which it can run

// graph_memory.c; with the driver's lock held
CUresult allocation_new(struct work *work, struct context *ctx);
struct allocation *allocation_at(uintptr_t address);
void allocation_drop(struct allocation *allocation); // one reference
CUresult allocations_reserve(struct node *const *node, size_t count);
CUresult allocation_start(struct allocation *allocation);
void allocation_end(struct allocation *allocation);

// graph_runs.c
CUresult graph_launch(struct instance *instance, struct context *ctx);

// capture.c: true if the stream is being captured, and then *result is the call's
bool captured(CUstream stream, const struct work *work, CUresult *result);
bool captured_copy(CUstream stream, uintptr_t to, uintptr_t from, size_t size, CUresult *result);
bool captured_alloc(CUstream stream, CUdeviceptr *out, size_t size, CUmemoryPool pool, CUresult *result);
bool captured_free(CUstream stream, CUdeviceptr at, CUresult *result);
#pragma GCC visibility pop

// At the head of a call that gives a stream work: what a captured stream gets is a node.
#define OR_CAPTURE(stream, ...)                                                                              \
    do {                                                                                                     \
        CUresult captured_;                                                                                  \
        const struct work work_ = {__VA_ARGS__};                                                             \
        if (captured(stream, &work_, &captured_))                                                            \
            return captured_;                                                                                \
    } while (0)
