// SPDX-License-Identifier: Apache-2.0
// Who holds memory of a device. Every process of a simulated device is a compute process.
#include "nvml.h"
#include <stdlib.h>
#include <time.h>

struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

struct process_v1 {
    unsigned pid;
    unsigned long long used;
};

#define NO_INSTANCE 0xffffffffu

// Adds a slot's share to its owner's line: a process has more than one slot if it shares memory with others.
static unsigned add(struct process *all, unsigned n, unsigned pid, uint64_t used) {
    unsigned i = 0;
    while (i < n && all[i].pid != pid)
        i++;
    if (i == n)
        all[n++] = (struct process){pid, 0, NO_INSTANCE, NO_INSTANCE};
    all[i].used += used;
    return n;
}

static unsigned collect(nvmlDevice_t device, struct process *all) {
    unsigned n = 0, high = (unsigned)atomic_load(&nvml.view.at->high);
    for (unsigned slot = 0; slot < high; slot++) {
        uint64_t held = sim_held(&nvml.view, (int)slot, number_of(device));
        unsigned pid = held && sim_alive(&nvml.view, (int)slot) ? pid_here(slot) : 0;
        if (pid)
            n = add(all, n, pid, held);
    }
    return n;
}

// Writes down as many as there is room for; the count is that of all.
static int report(nvmlDevice_t device, unsigned *count, void *out, size_t size) {
    ENTER_DEVICE(device, count);
    struct process *all = calloc(SIM_SLOTS, sizeof *all);
    unsigned room = *count, n = all ? collect(device, all) : 0;
    *count = n;
    int result = n > room ? NVML_INSUFFICIENT_SIZE : n && !out ? NVML_INVALID_ARGUMENT : NVML_SUCCESS;
    for (unsigned i = 0; i < n && !result; i++)
        memcpy((char *)out + i * size, &all[i], size);
    free(all);
    return result;
}

static int none(nvmlDevice_t device, unsigned *count) {
    ENTER_DEVICE(device, count);
    *count = 0;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetComputeRunningProcesses_v3, nvmlDevice_t device, unsigned *count, struct process *out) {
    return report(device, count, out, sizeof *out);
}

API(nvmlDeviceGetComputeRunningProcesses_v2, nvmlDevice_t device, unsigned *count, struct process *out) {
    return report(device, count, out, sizeof *out);
}

API(nvmlDeviceGetComputeRunningProcesses, nvmlDevice_t device, unsigned *count, struct process_v1 *out) {
    return report(device, count, out, sizeof *out);
}

API(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    return none(device, count);
}

API(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    return none(device, count);
}

API(nvmlDeviceGetGraphicsRunningProcesses, nvmlDevice_t device, unsigned *count,
    UNUSED struct process_v1 *out) {
    return none(device, count);
}

API(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    return none(device, count);
}

API(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlDevice_t device, unsigned *count,
    UNUSED struct process *out) {
    return none(device, count);
}

API(nvmlDeviceGetMPSComputeRunningProcesses, nvmlDevice_t device, unsigned *count,
    UNUSED struct process_v1 *out) {
    return none(device, count);
}

// ------- utilisation: the board's load, shared out evenly; an idle board has no samples

struct sample {
    unsigned pid;
    unsigned long long microseconds;
    unsigned sm, memory, encoder, decoder;
};

static void share_out(unsigned load, const struct process *all, unsigned n, struct sample *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned long long at = (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct sample){all[i].pid, at, load / n, load / 2 / n, 0, 0};
}

API(nvmlDeviceGetProcessUtilization, nvmlDevice_t device, struct sample *out, unsigned *count,
    UNUSED unsigned long long since) {
    ENTER_DEVICE(device, count);
    unsigned load = board_number(device, "board.%u.load");
    struct process *all = calloc(SIM_SLOTS, sizeof *all);
    unsigned n = all ? collect(device, all) : 0, room = out ? *count : 0;
    *count = n;
    int result = !load || !n ? NVML_NOT_FOUND : n > room ? NVML_INSUFFICIENT_SIZE : NVML_SUCCESS;
    if (!result)
        share_out(load, all, n, out);
    free(all);
    return result;
}
