// SPDX-License-Identifier: Apache-2.0
// Event sets: a program registers for what may happen and waits for it. What happens is an XID:
// simgpu/sickness.py counts a board's up in the state's text, beside the number of the last one.
#include "nvml.h"
#include <stdlib.h>
#include <time.h>

enum { ECC_SINGLE = 1, ECC_DOUBLE = 2, PSTATE = 4, XID = 8, CLOCK = 16 };
enum { EVENTS = ECC_SINGLE | ECC_DOUBLE | PSTATE | XID | CLOCK };
#define SET_MAGIC 0x53455445u
#define NO_INSTANCE 0xffffffffu

typedef struct set {
    unsigned magic;
    unsigned long long types[SIM_DEVICES];
    unsigned seen[SIM_DEVICES];
} *nvmlEventSet_t;

struct event {
    nvmlDevice_t device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

static bool is_set(const struct set *set) {
    return set && set->magic == SET_MAGIC;
}

static unsigned happened(unsigned index) {
    return board_number(handle_of(index), "board.%u.xids");
}

API(nvmlDeviceGetSupportedEventTypes, nvmlDevice_t device, unsigned long long *types) {
    ENTER_DEVICE(device, types);
    *types = EVENTS;
    return NVML_SUCCESS;
}

API(nvmlEventSetCreate, nvmlEventSet_t *out) {
    ENTER();
    NEED(out);
    *out = calloc(1, sizeof **out);
    if (!*out)
        return NVML_INSUFFICIENT_RESOURCES;
    (*out)->magic = SET_MAGIC;
    return NVML_SUCCESS;
}

API(nvmlDeviceRegisterEvents, nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    ENTER_DEVICE(device, is_set(set));
    if (types & ~(unsigned long long)EVENTS)
        return NVML_NOT_SUPPORTED;
    set->types[index_of(device)] |= types;
    set->seen[index_of(device)] = happened(index_of(device));
    return NVML_SUCCESS;
}

static bool find(struct set *set, struct event *out) {
    for (unsigned i = 0; i < nvml.view.visible; i++) {
        unsigned count = happened(i);
        if (!(set->types[i] & XID) || count == set->seen[i])
            continue;
        set->seen[i] = count;
        unsigned xid = board_number(handle_of(i), "board.%u.xid");
        *out = (struct event){handle_of(i), XID, xid, NO_INSTANCE, NO_INSTANCE};
        return true;
    }
    return false;
}

static int wait(struct set *set, struct event *out, unsigned milliseconds) {
    ENTER();
    NEED(is_set(set) && out);
    for (unsigned waited = 0; !find(set, out); waited += 10) {
        if (waited >= milliseconds)
            return NVML_TIMEOUT;
        struct timespec rest = {0, 10000000};
        nanosleep(&rest, NULL);
    }
    return NVML_SUCCESS;
}

API(nvmlEventSetWait_v2, nvmlEventSet_t set, struct event *data, unsigned milliseconds) {
    return wait(set, data, milliseconds);
}

API(nvmlEventSetWait, nvmlEventSet_t set, struct event *data, unsigned milliseconds) {
    return wait(set, data, milliseconds);
}

API(nvmlEventSetFree, nvmlEventSet_t set) {
    if (!nvml.users)
        return NVML_UNINITIALIZED;
    NEED(is_set(set));
    set->magic = 0;
    free(set);
    return NVML_SUCCESS;
}
