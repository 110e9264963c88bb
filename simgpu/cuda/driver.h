// SPDX-License-Identifier: Apache-2.0
// What the parts of the simulated driver share: the gate that every call passes, the process's view of the
// devices, and the objects behind the handles.
#pragma once
#include "../state/lock.h"
#include "../state/state.h"
#include "abi.h"

// Defines an exported driver function. The generator finds these by name: one a line.
#define API(name, ...)                                                                                       \
    __attribute__((visibility("default"))) CUresult name(__VA_ARGS__);                                       \
    CUresult name(__VA_ARGS__)

#define MIB ((uint64_t)1 << 20)
#define UNUSED __attribute__((unused))

#pragma GCC visibility push(hidden)

// The gate: one byte says whether the driver is initialised, nobody traces and no call is to fail, so that
// all this costs one comparison.
enum gate { GATE_CLOSED = 0, GATE_OPEN = 1, GATE_TRACED = 2, GATE_FAULTS = 4 };
extern _Atomic unsigned char gate;
CUresult gate_ask(const char *name, const void *caller);
CUresult gate_pass(const char *name, const void *caller); // for calls that work before cuInit
CUresult fault_of(const char *name);                      // what the call is to answer; may take its time
void faults_add(const char *rules);
void trace_call(const char *name, const void *caller);
void trace_open(void);
CUresult not_supported(const char *name, const void *caller); // what the generated stubs answer
#define GATE_IS_OPEN() __builtin_expect(atomic_load_explicit(&gate, memory_order_relaxed) == GATE_OPEN, 1)

// For calls that work before cuInit.
#define ENTER_ANYTIME()                                                                                      \
    do {                                                                                                     \
        CUresult refused_ =                                                                                  \
            GATE_IS_OPEN() ? CUDA_SUCCESS : gate_pass(__func__, __builtin_return_address(0));                \
        if (refused_)                                                                                        \
            return refused_;                                                                                 \
    } while (0)
// For calls that need cuInit.
#define ENTER()                                                                                              \
    do {                                                                                                     \
        CUresult refused_ = GATE_IS_OPEN() ? CUDA_SUCCESS : gate_ask(__func__, __builtin_return_address(0)); \
        if (refused_)                                                                                        \
            return refused_;                                                                                 \
    } while (0)
// For calls that need a current context, which they find in `ctx`.
#define ENTER_CONTEXT()                                                                                      \
    ENTER();                                                                                                 \
    UNUSED struct context *ctx = context_current();                                                          \
    if (!ctx)                                                                                                \
        return CUDA_ERROR_INVALID_CONTEXT;                                                                   \
    if (!ctx->alive)                                                                                         \
    return CUDA_ERROR_CONTEXT_IS_DESTROYED
#define NEED(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return CUDA_ERROR_INVALID_VALUE;                                                                 \
    } while (0)
#define NEED_DEVICE(ordinal)                                                                                 \
    do {                                                                                                     \
        if ((ordinal) < 0 || (unsigned)(ordinal) >= driver.count)                                            \
            return CUDA_ERROR_INVALID_DEVICE;                                                                \
    } while (0)

struct costs {
    uint64_t granularity; // of a large block, and of virtual memory
    uint64_t small;       // blocks up to this size share slabs
    uint64_t slab;
    uint64_t pool_chunk;
    uint64_t context;
    uint64_t module;
    uint64_t green;                 // a green context
    uint64_t array;                 // of an array
    uint64_t array_row, array_rows; // bytes and rows to which its planes are padded
};

struct block;
struct slab;
struct pool;

struct context {
    uint32_t magic;
    int device; // ordinal
    unsigned flags, references, api_version;
    bool primary, alive;
    uint64_t id;
    size_t limit[CU_LIMITS];
    uint64_t cost, grown;  // charged for itself; for raised limits
    bool raised;           // limits, beyond what is charged for them
    unsigned peers;        // whose memory it may use: a bit for each device
    struct green *green;   // its green context, if it is one's
    struct block *blocks;  // what dies with the context
    struct block *managed; // ... and this, kept apart
    struct slab *slabs;    // those with room
};

struct device {
    unsigned number; // of its account in the state: of a board, or of a GPU instance
    unsigned board;  // the board's number in the state
    bool mig;        // a MIG device: a compute instance, in ...
    unsigned gi, ci; // ... a GPU instance
    CUuuid uuid, board_uuid;
    uint64_t total;
    unsigned sms;
    char name[96];
    struct context primary;
    struct pool *default_pool, *pool;
};

struct driver {
    struct sim_view view;
    unsigned count;
    struct device device[SIM_DEVICES];
    struct costs costs;
    int version;
    lock_t lock; // guards everything below the handles
    uint64_t ids;
};
extern struct driver driver;

static inline uint64_t round_up(uint64_t n, uint64_t to) {
    return (n + to - 1) / to * to;
}
static inline uint64_t new_id(void) {
    return __atomic_add_fetch(&driver.ids, 1, __ATOMIC_RELAXED);
}
// With the lock held. What is resident of managed memory makes room.
bool charge(int device, uint64_t bytes);
bool charge_slot(int slot, int device,
                 uint64_t bytes); // a slot of the state: this process's, or a shared one
void uncharge(int device, uint64_t bytes);

// visible.c
void devices_find(void); // those that this process sees: driver.device and its count
void devices_open(void); // from now on nobody takes them away

// contexts.c
struct context *context_current(void);
bool context_is(const struct context *context);
void contexts_after_fork(void);

CUresult context_open(struct context *ctx, uint64_t cost); // charged, alive
void context_close(struct context *ctx);

CUresult primary_retain(CUcontext *out, CUdevice device);
CUresult primary_release(CUdevice device);

// limits.c
void limits_reset(struct context *ctx);
CUresult context_launched(struct context *ctx); // a kernel is about to run

// devices.c
bool peers_reach(int device, int peer);

// multicast.c
bool multicast_works(int device);

// pools.c
CUresult pools_start(struct device *device, int ordinal);
void pools_settle(int device); // a point of synchronisation: unused chunks go back
CUresult pool_free(struct block *block);
int pool_device(const struct pool *pool); // -1: none

// managed.c
bool managed_evict(int device); // one block; false: none is there
void managed_launched(struct context *ctx);

// modules.c
void modules_drop(struct context *context);

#pragma GCC visibility pop
