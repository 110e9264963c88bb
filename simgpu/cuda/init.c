// SPDX-License-Identifier: Apache-2.0
// From nothing to an initialised driver: the state file, the visible devices, this process's slot; and the
// gate that every call passes.
#include "driver.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

// "GPU-" and 32 hex digits with dashes; reads as many as are there.
static int parse_uuid(const char *text, unsigned char *bytes) {
    int digits = 0;
    for (text += 4; *text && *text != ',' && digits < 32; text++) {
        if (*text == '-')
            continue;
        int value = hex(*text);
        if (value < 0)
            return -1;
        bytes[digits / 2] = (unsigned char)(digits % 2 ? bytes[digits / 2] | value : value << 4);
        digits++;
    }
    return digits;
}

static bool uuid_begins(const CUuuid *uuid, const unsigned char *bytes, int digits) {
    if (memcmp(uuid->bytes, bytes, (size_t)digits / 2))
        return false;
    return digits % 2 == 0 || uuid->bytes[digits / 2] >> 4 == bytes[digits / 2] >> 4;
}

// One entry of CUDA_VISIBLE_DEVICES: an index, or the beginning of a UUID that only one device has. -1: no
// such.
static int find_wanted(const char *text, const struct device *all, unsigned n) {
    unsigned char bytes[16] = {0};
    int found = -1;
    if (strncmp(text, "GPU-", 4)) {
        unsigned index = 0;
        if (*text < '0' || *text > '9')
            return -1;
        for (; *text >= '0' && *text <= '9' && index < 1000; text++)
            index = index * 10 + (unsigned)(*text - '0');
        return index < n ? (int)index : -1;
    }
    int digits = parse_uuid(text, bytes);
    for (unsigned i = 0; digits > 0 && i < n; i++)
        if (uuid_begins(&all[i].uuid, bytes, digits)) {
            if (found >= 0)
                return -1;
            found = (int)i;
        }
    return found;
}

// As the real driver reads it: the first entry that is wrong ends the list, and so does one named twice.
static void keep_wanted(const char *wanted) {
    static struct device all[SIM_DEVICES];
    unsigned n = driver.count, seen = 0;
    memcpy(all, driver.device, sizeof all);
    driver.count = 0;
    for (const char *entry = wanted; entry; entry = strchr(entry, ',')) {
        entry += entry != wanted;
        while (*entry == ' ')
            entry++;
        int i = find_wanted(entry, all, n);
        if (i < 0 || seen & 1u << i)
            break;
        seen |= 1u << i;
        driver.device[driver.count++] = all[i];
    }
}

static void describe_devices(void) {
    for (unsigned i = 0; i < driver.view.visible; i++) {
        struct device *device = &driver.device[i];
        char uuid[64];
        device->number = driver.view.device[i];
        device->total = driver.view.capacity[device->number];
        sim_text(&driver.view, "board.%u.name", device->number, device->name, sizeof device->name);
        sim_text(&driver.view, "board.%u.uuid", device->number, uuid, sizeof uuid);
        if (strlen(uuid) > 4)
            parse_uuid(uuid, device->uuid.bytes);
    }
    driver.count = driver.view.visible;
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    if (wanted)
        keep_wanted(wanted);
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

static CUresult start(void) {
    if (sim_open(&driver.view))
        return CUDA_ERROR_NO_DEVICE;
    char faults[1024];
    sim_text(&driver.view, "faults", 0, faults, sizeof faults);
    faults_add(faults);
    describe_devices();
    read_costs();
    if (driver.count && sim_enter(&driver.view))
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

API(cuGetErrorName, CUresult error, const char **text) {
    ENTER_ANYTIME();
    NEED(text);
    *text = NULL;
    switch (error) {
#define RESULT(name, number, string)                                                                         \
    case number:                                                                                             \
        *text = #name;                                                                                       \
        break;
#include "results.def"
#undef RESULT
    }
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API(cuGetErrorString, CUresult error, const char **text) {
    ENTER_ANYTIME();
    NEED(text);
    *text = NULL;
    switch (error) {
#define RESULT(name, number, string)                                                                         \
    case number:                                                                                             \
        *text = string;                                                                                      \
        break;
#include "results.def"
#undef RESULT
    }
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// The private tables that NVIDIA's own libraries authenticate the driver by: this is another driver, and says
// so.
API(cuGetExportTable, const void **table, UNUSED const CUuuid *id) {
    ENTER_ANYTIME();
    NEED(table);
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}
