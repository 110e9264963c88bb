// SPDX-License-Identifier: Apache-2.0
// Event sets: a program can register for what may happen and wait for it. Nothing ever does.
#include "nvml.h"
#include <stdlib.h>
#include <time.h>

enum { ECC_SINGLE = 1, ECC_DOUBLE = 2, PSTATE = 4, XID = 8, CLOCK = 16 };
enum { EVENTS = ECC_SINGLE | ECC_DOUBLE | PSTATE | XID | CLOCK };
#define SET_MAGIC 0x53455445u

typedef struct set {
    unsigned magic;
    unsigned long long types[SIM_DEVICES];
} *nvmlEventSet_t;

static bool is_set(const struct set *set) {
    return set && set->magic == SET_MAGIC;
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
    ENTER();
    NEED(is_device(device) && is_set(set));
    if (types & ~(unsigned long long)EVENTS)
        return NVML_NOT_SUPPORTED;
    set->types[index_of(device)] |= types;
    return NVML_SUCCESS;
}

static int wait(const struct set *set, unsigned milliseconds) {
    ENTER();
    NEED(is_set(set));
    struct timespec rest = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&rest, &rest))
        ;
    return NVML_TIMEOUT;
}

API(nvmlEventSetWait_v2, nvmlEventSet_t set, UNUSED void *data, unsigned milliseconds) {
    return wait(set, milliseconds);
}

API(nvmlEventSetWait, nvmlEventSet_t set, UNUSED void *data, unsigned milliseconds) {
    return wait(set, milliseconds);
}

API(nvmlEventSetFree, nvmlEventSet_t set) {
    ENTER();
    NEED(is_set(set));
    set->magic = 0;
    free(set);
    return NVML_SUCCESS;
}
