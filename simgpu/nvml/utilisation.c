// SPDX-License-Identifier: Apache-2.0
// How busy each process keeps a device: the board's load, shared out evenly among those that hold memory; an
// idle board has no samples. And accounting, where it is switched on: of the living alone, nothing is kept of
// the dead.
#include "mig.h"
#include "processes.h"
#include <stdlib.h>
#include <time.h>

enum { ACCOUNTED = 4000 };

struct sample {
    unsigned pid;
    unsigned long long microseconds;
    unsigned sm, memory, encoder, decoder;
};

struct sample_info {
    unsigned long long microseconds;
    unsigned pid, sm, memory, encoder, decoder, jpeg, flow;
};

struct samples {
    unsigned version, count;
    unsigned long long since;
    struct sample_info *sample;
};

static unsigned long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return (unsigned long long)at.tv_sec * 1000000 + (unsigned long long)at.tv_nsec / 1000;
}

static void put(void *out, unsigned i, unsigned pid, unsigned share) {
    ((struct sample *)out)[i] = (struct sample){pid, now(), share, share / 2, 0, 0};
}

static void put_info(void *out, unsigned i, unsigned pid, unsigned share) {
    ((struct sample_info *)out)[i] = (struct sample_info){now(), pid, share, share / 2, 0, 0, 0, 0};
}

static int samples(nvmlDevice_t device, unsigned *count, void *out,
                   void (*write)(void *, unsigned, unsigned, unsigned)) {
    ENTER_DEVICE(device, count);
    NEED_PERMISSION(may_see_all(number_of(device)));
    unsigned load = board_number(device, "board.%u.load");
    unsigned n, room = out ? *count : 0;
    struct process *all = nvml_holders(device, &n);
    *count = n;
    int result = !load || !n ? NVML_NOT_FOUND : n > room ? NVML_INSUFFICIENT_SIZE : NVML_SUCCESS;
    for (unsigned i = 0; i < n && !result; i++)
        write(out, i, all[i].pid, load / n);
    free(all);
    return result;
}

API(nvmlDeviceGetProcessUtilization, nvmlDevice_t device, struct sample *out, unsigned *count,
    UNUSED unsigned long long since) {
    return samples(device, count, out, put);
}

API(nvmlDeviceGetProcessesUtilizationInfo, nvmlDevice_t device, struct samples *info) {
    ENTER_DEVICE(device, info);
    if (info->version != (sizeof *info | 1u << 24))
        return NVML_VERSION_MISMATCH;
    return samples(device, &info->count, info->sample, put_info);
}

// ------- accounting

struct stats {
    unsigned gpu, memory;
    unsigned long long most, time, start;
    unsigned running, reserved[5];
};

struct stats_v2 {
    unsigned pid, running, gpu, memory;
    unsigned long long most;
    unsigned samples;
    unsigned long long sum_gpu, sum_memory, time, start;
};

static bool accounts(nvmlDevice_t device) {
    return board_number(device, "board.%u.accounting") && !mig_enabled(number_of(device));
}

API(nvmlDeviceGetAccountingMode, nvmlDevice_t device, int *mode) {
    ENTER_DEVICE(device, mode);
    *mode = accounts(device);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetAccountingBufferSize, nvmlDevice_t device, unsigned *entries) {
    ENTER_DEVICE(device, entries);
    *entries = ACCOUNTED;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetAccountingPids, nvmlDevice_t device, unsigned *count, unsigned *pids) {
    ENTER_DEVICE(device, count);
    if (!accounts(device))
        return NVML_NOT_SUPPORTED;
    unsigned n, room = pids ? *count : 0;
    struct process *all = nvml_holders(device, &n);
    *count = n;
    for (unsigned i = 0; i < n && n <= room; i++)
        pids[i] = all[i].pid;
    free(all);
    return n > room ? NVML_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

// What a process holds now is the most that it ever held, as far as is known.
static int stats_of(nvmlDevice_t device, unsigned pid, struct stats *out) {
    ENTER_DEVICE(device, out);
    if (!accounts(device))
        return NVML_NOT_SUPPORTED;
    unsigned n, i = 0;
    struct process *all = nvml_holders(device, &n);
    while (i < n && all[i].pid != pid)
        i++;
    if (i < n) {
        unsigned share = board_number(device, "board.%u.load") / n;
        *out = (struct stats){.gpu = share, .memory = share / 2, .most = all[i].used, .running = 1};
    }
    free(all);
    return i < n ? NVML_SUCCESS : NVML_NOT_FOUND;
}

API(nvmlDeviceGetAccountingStats, nvmlDevice_t device, unsigned pid, struct stats *out) {
    return stats_of(device, pid, out);
}

API(nvmlDeviceGetAccountingStats_v2, nvmlDevice_t device, struct stats_v2 *out) {
    struct stats stats;
    ENTER();
    NEED(out);
    int result = stats_of(device, out->pid, &stats);
    if (!result)
        *out = (struct stats_v2){
            .pid = out->pid, .running = 1, .gpu = stats.gpu, .memory = stats.memory, .most = stats.most};
    return result;
}
