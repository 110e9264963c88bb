// SPDX-License-Identifier: Apache-2.0
// From nothing to an initialised driver: the state file, the visible devices, this process's slot; and the
// gate that every call passes.
#include "../state/mig.h"
#include "driver.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct driver driver;
_Atomic unsigned char gate;
static bool forked; // initialised by a parent: a device's descriptors do not serve two processes

bool charge_slot(int slot, int device, uint64_t bytes) {
    while (bytes && !sim_take(&driver.view, slot, driver.device[device].number, bytes))
        if (!managed_evict(device))
            return false;
    return true;
}

bool charge(int device, uint64_t bytes) {
    return charge_slot(driver.view.self, device, bytes);
}

void uncharge(int device, uint64_t bytes) {
    if (bytes)
        sim_give(&driver.view, driver.view.self, driver.device[device].number, bytes);
}

CUresult gate_pass(const char *name, const void *caller) {
    trace_call(name, caller);
    return fault_of(name);
}

CUresult gate_ask(const char *name, const void *caller) {
    trace_call(name, caller);
    return atomic_load(&gate) & GATE_OPEN ? fault_of(name) : CUDA_ERROR_NOT_INITIALIZED;
}

static void after_fork(void) {
    forked = true;
    atomic_fetch_and(&gate, (unsigned char)~GATE_OPEN);
    contexts_after_fork();
}

// A state of before there was a setting does not have it.
static uint64_t cost(const char *key, uint64_t otherwise) {
    uint64_t value = sim_number(&driver.view, key, 0);
    return value ? value : otherwise;
}

static void read_costs(void) {
    const struct sim_view *view = &driver.view;
    driver.costs = (struct costs){
        .granularity = sim_number(view, "cost.granularity", 0),
        .small = sim_number(view, "cost.small", 0),
        .slab = sim_number(view, "cost.slab", 0),
        .pool_chunk = sim_number(view, "cost.pool_chunk", 0),
        .context = sim_number(view, "cost.context", 0),
        .module = sim_number(view, "cost.module", 0),
        .green = sim_number(view, "cost.green", 0),
        .array = cost("cost.array", SIM_UNIT),
        .array_row = cost("cost.array_row", 512),
        .array_rows = cost("cost.array_rows", 16),
    };
}

// Nobody may remove an instance between its being found and its being open.
static bool enter(void) {
    int lock = sim_mig_lock(&driver.view);
    if (lock < 0)
        return false;
    devices_find();
    bool entered = !driver.count || !sim_enter(&driver.view);
    if (entered && driver.count)
        devices_open();
    close(lock);
    return entered;
}

static CUresult start(void) {
    if (sim_open(&driver.view))
        return CUDA_ERROR_NO_DEVICE;
    char faults[1024];
    sim_text(&driver.view, "faults", 0, faults, sizeof faults);
    faults_add(faults);
    read_costs();
    if (!enter())
        return CUDA_ERROR_OPERATING_SYSTEM;
    for (unsigned i = 0; i < driver.count; i++) {
        driver.device[i].primary = (struct context){.device = (int)i, .primary = true};
        if (pools_start(&driver.device[i], (int)i))
            return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_atfork(NULL, NULL, after_fork);
    atomic_fetch_or(&gate, GATE_OPEN);
    return driver.count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

API(cuInit, unsigned flags) {
    static bool tried;
    static CUresult result;
    ENTER_ANYTIME();
    NEED(!flags);
    if (forked)
        return CUDA_ERROR_NOT_INITIALIZED;
    lock_acquire(&driver.lock);
    if (!tried)
        result = start();
    tried = true;
    lock_release(&driver.lock);
    return result;
}

API(cuDriverGetVersion, int *version) {
    ENTER_ANYTIME();
    NEED(version);
    *version = SIM_CUDA;
    return CUDA_SUCCESS;
}

struct result {
    CUresult number;
    const char *name, *text;
};

static const struct result results[] = {
#define RESULT(name, number, string) {number, #name, string},
#include "results.def"
#undef RESULT
};

static const struct result *result_of(CUresult number) {
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (results[i].number == number)
            return &results[i];
    return NULL;
}

API(cuGetErrorName, CUresult error, const char **text) {
    ENTER_ANYTIME();
    NEED(text);
    const struct result *found = result_of(error);
    *text = found ? found->name : NULL;
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API(cuGetErrorString, CUresult error, const char **text) {
    ENTER_ANYTIME();
    NEED(text);
    const struct result *found = result_of(error);
    *text = found ? found->text : NULL;
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// The private tables that NVIDIA's own libraries authenticate the driver by: this is another driver, and says
// so.
API(cuGetExportTable, const void **table, UNUSED const CUuuid *id) {
    ENTER_ANYTIME();
    NEED(table);
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}
