// SPDX-License-Identifier: Apache-2.0
// Who holds memory of a device. Every process of a simulated device is a compute process.
#include "processes.h"
#include "mig.h"
#include <stdlib.h>

struct process_v1 {
    unsigned pid;
    unsigned long long used;
};

#define NO_INSTANCE 0xffffffffu

// Which compute instance a slot's owner has open there; memory that several share is the first one's.
static unsigned compute_used(unsigned slot, unsigned account) {
    for (unsigned i = 0; i < SIM_NOTED; i++) {
        uint64_t place = atomic_load(&nvml.view.at->slot[slot].place[i]);
        if (place && (place - 1) / SIM_COMPUTES == account)
            return (unsigned)((place - 1) % SIM_COMPUTES);
    }
    return 0;
}

// Adds a slot's share to its owner's line: a process has more than one slot if it shares memory with others.
static unsigned add(struct process *all, unsigned n, const struct process *one) {
    unsigned i = 0;
    while (i < n && (all[i].pid != one->pid || all[i].gpu_instance != one->gpu_instance))
        i++;
    if (i == n) {
        all[n] = *one;
        all[n++].used = 0;
    }
    all[i].used += one->used;
    return n;
}

// Of the slots below `high`.
static unsigned collect_account(unsigned account, unsigned gi, unsigned high, struct process *all,
                                unsigned n) {
    if (!sim_charged(&nvml.view, account))
        return n;
    uint64_t space = pid_space_here();
    for (unsigned slot = 0; slot < high; slot++) {
        uint64_t held = sim_held(&nvml.view, (int)slot, account);
        unsigned pid = held && sim_alive(&nvml.view, (int)slot) ? pid_here(slot, space) : 0;
        struct process one = {pid, held, gi, gi == NO_INSTANCE ? NO_INSTANCE : compute_used(slot, account)};
        if (pid)
            n = add(all, n, &one);
    }
    return n;
}

static unsigned collect_instance(struct part part, unsigned high, struct process *all) {
    unsigned n = 0, found = collect_account(sim_account(part.device, part.gi), part.gi, high, all, 0);
    for (unsigned i = 0; i < found; i++)
        if (all[i].compute_instance == part.ci)
            all[n++] = all[i];
    return n;
}

static unsigned collect_device(unsigned device, unsigned instances, unsigned high, struct process *all) {
    unsigned n = collect_account(device, NO_INSTANCE, high, all, 0);
    for (unsigned gi = 0; gi < instances; gi++)
        n = collect_account(sim_account(device, gi), gi, high, all, n);
    return n;
}

struct process *nvml_holders(nvmlDevice_t device, unsigned *n) {
    struct part part;
    bool is_part = read_handle(MIG_DEVICE, device, &part);
    unsigned instances = !is_part && mig_enabled(number_of(device)) ? SIM_INSTANCES : 0;
    unsigned high = (unsigned)atomic_load(&nvml.view.at->high);
    struct process *all = calloc((size_t)high * (1 + instances) + 1, sizeof *all);
    *n = !all      ? 0
         : is_part ? collect_instance(part, high, all)
                   : collect_device(number_of(device), instances, high, all);
    return all;
}

// Writes down as many as there is room for; the count is that of all.
static int report(nvmlDevice_t device, unsigned *count, void *out, size_t size) {
    NEED((is_device(device) || is_mig_device(device)) && count);
    NEED_PERMISSION(!is_device(device) || may_see_all(number_of(device)));
    if (is_device(device) && nvml_board(device))
        return nvml_board(device);
    unsigned room = *count, n = 0;
    bool silent = is_device(device) && board_number(device, "board.%u.silent");
    struct process *all = silent ? NULL : nvml_holders(device, &n);
    *count = n;
    int result = n > room ? NVML_INSUFFICIENT_SIZE : n && !out ? NVML_INVALID_ARGUMENT : NVML_SUCCESS;
    for (unsigned i = 0; i < n && !result; i++)
        memcpy((char *)out + i * size, &all[i], size < sizeof *all ? size : sizeof *all);
    free(all);
    return result;
}

static int none(nvmlDevice_t device, unsigned *count) {
    NEED((is_device(device) || is_mig_device(device)) && count);
    *count = 0;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetComputeRunningProcesses_v3, nvmlDevice_t device, unsigned *count, struct process *out) {
    ENTER();
    return report(device, count, out, sizeof *out);
}

API(nvmlDeviceGetComputeRunningProcesses_v2, nvmlDevice_t device, unsigned *count, struct process *out) {
    ENTER();
    return report(device, count, out, sizeof *out);
}

API(nvmlDeviceGetComputeRunningProcesses, nvmlDevice_t device, unsigned *count, struct process_v1 *out) {
    ENTER();
    return report(device, count, out, sizeof *out);
}

API(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    ENTER();
    return none(device, count);
}

API(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    ENTER();
    return none(device, count);
}

API(nvmlDeviceGetGraphicsRunningProcesses, nvmlDevice_t device, unsigned *count,
    UNUSED struct process_v1 *out) {
    ENTER();
    return none(device, count);
}

API(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    ENTER();
    return none(device, count);
}

API(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    ENTER();
    return none(device, count);
}

API(nvmlDeviceGetMPSComputeRunningProcesses, nvmlDevice_t device, unsigned *count,
    UNUSED struct process_v1 *out) {
    ENTER();
    return none(device, count);
}

// ------- by mode, in one structure

enum { COMPUTE, GRAPHICS, MPS, MODES };

struct detail {
    struct process process;
    unsigned long long protected_memory;
};

struct details {
    unsigned version, mode, count;
    struct detail *detail;
};

API(nvmlDeviceGetRunningProcessDetailList, nvmlDevice_t device, struct details *list) {
    ENTER();
    NEED(list && list->mode < MODES);
    if (list->version != (sizeof *list | 1u << 24))
        return NVML_VERSION_MISMATCH;
    if (list->detail)
        memset(list->detail, 0, list->count * sizeof *list->detail);
    return list->mode == COMPUTE ? report(device, &list->count, list->detail, sizeof *list->detail)
                                 : none(device, &list->count);
}
