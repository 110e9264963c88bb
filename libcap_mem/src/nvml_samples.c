// SPDX-License-Identifier: Apache-2.0
/* What NVML lists by process besides memory: samples of utilisation, accounting, sessions of the encoder and
 * of frame capture. The driver lists those of the whole GPU; passed on is what has the PID of one of this
 * container's living processes. A driver that numbers processes as the host does, and not as its caller, has
 * none of these: nothing is shown then. What processes hold is nvml_processes.c's. */
#include "nvml.h"
#include "raw.h"
#include "session.h"

enum { SPARE = 32, ATTEMPTS = 4, STATS = 256 };

/* A list of the driver's. `ask` writes *count entries, or says how many there are. */
struct list {
    nvmlReturn_t (*ask)(const struct list *list, unsigned *count, void *out);
    nvmlDevice_t device;
    unsigned size, pid; /* bytes of an entry, and where its PID lies */
    unsigned version;
    unsigned long long since;
};

static nvmlReturn_t ask_samples(const struct list *list, unsigned *count, void *out) {
    return real_nvmlDeviceGetProcessUtilization(list->device, out, count, list->since);
}

static nvmlReturn_t ask_infos(const struct list *list, unsigned *count, void *out) {
    nvmlProcessesUtilizationInfo_t info = {list->version, *count, list->since, out};
    nvmlReturn_t rc = real_nvmlDeviceGetProcessesUtilizationInfo(list->device, &info);
    *count = info.count;
    return rc;
}

static nvmlReturn_t ask_pids(const struct list *list, unsigned *count, void *out) {
    return real_nvmlDeviceGetAccountingPids(list->device, count, out);
}

static nvmlReturn_t ask_encoder(const struct list *list, unsigned *count, void *out) {
    return real_nvmlDeviceGetEncoderSessions(list->device, count, out);
}

static nvmlReturn_t ask_capture(const struct list *list, unsigned *count, void *out) {
    return real_nvmlDeviceGetFBCSessions(list->device, count, out);
}

/* The driver's whole list, in memory of ours: whoever got `room` bytes unmaps them. It may grow between the
 * asking how long it is and the asking for it. */
static nvmlReturn_t fetch(const struct list *list, unsigned *count, char **all, size_t *room) {
    nvmlReturn_t rc = NVML_ERROR_INSUFFICIENT_SIZE;
    for (int i = 0; i < ATTEMPTS && rc == NVML_ERROR_INSUFFICIENT_SIZE; i++) {
        *count = 0;
        rc = list->ask(list, count, NULL);
        if ((rc && rc != NVML_ERROR_INSUFFICIENT_SIZE) || !*count)
            return rc == NVML_ERROR_INSUFFICIENT_SIZE ? NVML_SUCCESS : rc;
        unsigned places = *count += SPARE;
        *room = (size_t)places * list->size;
        if (!(*all = gp_map(*room)))
            return NVML_ERROR_MEMORY;
        rc = list->ask(list, count, *all);
        *count = *count < places ? *count : places;
        if (rc) {
            gp_unmap(*all, *room);
            *all = NULL;
        }
    }
    return rc;
}

static int has(const struct gp_process *process, unsigned count, unsigned pid) {
    for (unsigned i = 0; i < count; i++)
        if ((unsigned)process[i].pid == pid)
            return 1;
    return 0;
}

/* Moves our own entries to the front; returns how many there are. */
static unsigned keep_own(const struct list *list, char *all, unsigned count) {
    struct gp_process process[GP_CELLS];
    unsigned processes = gp_own_processes(list->device, process), kept = 0;
    for (unsigned i = 0; i < count; i++) {
        const char *entry = all + (size_t)i * list->size;
        unsigned pid;
        __builtin_memcpy(&pid, entry + list->pid, sizeof pid);
        if (has(process, processes, pid))
            __builtin_memmove(all + (size_t)kept++ * list->size, entry, list->size);
    }
    return kept;
}

/* *count is how many there is room for in `out`, then how many there are. `empty`: the result where there are
 * none; `untold`: where there is nowhere to write them. */
static nvmlReturn_t pass_on(const struct list *list, unsigned *count, void *out, nvmlReturn_t empty,
                            nvmlReturn_t untold) {
    char *all = NULL;
    size_t bytes = 0;
    unsigned found = 0;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t rc = fetch(list, &found, &all, &bytes);
    if (rc)
        return rc;
    unsigned own = all ? keep_own(list, all, found) : 0, room = *count;
    *count = own;
    rc = !own ? empty : !out ? untold : own > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    if (!rc && own && out)
        __builtin_memcpy(out, all, (size_t)own * list->size);
    if (all)
        gp_unmap(all, bytes);
    return rc;
}

GP_EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, void *samples, unsigned *count,
                                                       unsigned long long since) {
    const struct list list = {.ask = ask_samples, .device = device, .size = 32, .pid = 0, .since = since};
    return pass_on(&list, count, samples, NVML_ERROR_NOT_FOUND, NVML_ERROR_INSUFFICIENT_SIZE);
}

GP_EXPORT nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                             nvmlProcessesUtilizationInfo_t *info) {
    if (!info)
        return NVML_ERROR_INVALID_ARGUMENT;
    const struct list list = {ask_infos, device, .size = 40, .pid = 8, info->version, info->since};
    return pass_on(&list, &info->count, info->samples, NVML_ERROR_NOT_FOUND, NVML_ERROR_INSUFFICIENT_SIZE);
}

GP_EXPORT nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t device, unsigned *count, unsigned *pids) {
    const struct list list = {.ask = ask_pids, .device = device, .size = 4, .pid = 0};
    return pass_on(&list, count, pids, NVML_SUCCESS, NVML_ERROR_INSUFFICIENT_SIZE);
}

GP_EXPORT nvmlReturn_t nvmlDeviceGetEncoderSessions(nvmlDevice_t device, unsigned *count, void *sessions) {
    const struct list list = {.ask = ask_encoder, .device = device, .size = 32, .pid = 4};
    return pass_on(&list, count, sessions, NVML_SUCCESS, NVML_SUCCESS);
}

GP_EXPORT nvmlReturn_t nvmlDeviceGetFBCSessions(nvmlDevice_t device, unsigned *count, void *sessions) {
    const struct list list = {.ask = ask_capture, .device = device, .size = 48, .pid = 4};
    return pass_on(&list, count, sessions, NVML_SUCCESS, NVML_SUCCESS);
}

static int is_own(nvmlDevice_t device, unsigned pid) {
    struct gp_process process[GP_CELLS];
    return has(process, gp_own_processes(device, process), pid);
}

/* A stranger's are asked for all the same, so that the driver's errors are the caller's; and thrown away. */
GP_EXPORT nvmlReturn_t nvmlDeviceGetAccountingStats(nvmlDevice_t device, unsigned pid, void *stats) {
    uint64_t unseen[STATS / sizeof(uint64_t)] = {0};
    if (!stats || is_own(device, pid))
        return real_nvmlDeviceGetAccountingStats(device, pid, stats);
    nvmlReturn_t rc = real_nvmlDeviceGetAccountingStats(device, pid, unseen);
    return rc ? rc : NVML_ERROR_NOT_FOUND;
}

GP_EXPORT nvmlReturn_t nvmlDeviceGetAccountingStats_v2(nvmlDevice_t device, unsigned *pid_and_stats) {
    uint64_t unseen[STATS / sizeof(uint64_t)] = {0};
    if (!pid_and_stats || is_own(device, *pid_and_stats))
        return real_nvmlDeviceGetAccountingStats_v2(device, pid_and_stats);
    __builtin_memcpy(unseen, pid_and_stats, sizeof *pid_and_stats);
    nvmlReturn_t rc = real_nvmlDeviceGetAccountingStats_v2(device, (unsigned *)unseen);
    return rc ? rc : NVML_ERROR_NOT_FOUND;
}
