// SPDX-License-Identifier: Apache-2.0
/* Which processes NVML lists: this container's own, by the PIDs of its own namespace, with what the ledger
 * holds for them. All of them are compute processes. The real library is asked first, with no room for an
 * answer, so that its errors (no such device, not initialised) are the caller's. */
#include "nvml.h"
#include "session.h"

typedef nvmlReturn_t list_call(nvmlDevice_t device, unsigned *count, void *infos);

static nvmlReturn_t ask(list_call *real, nvmlDevice_t device) {
    unsigned none = 0;
    nvmlReturn_t rc = real(device, &none, NULL);
    return rc == NVML_ERROR_INSUFFICIENT_SIZE ? NVML_SUCCESS : rc;
}

unsigned gp_own_processes(nvmlDevice_t device, struct gp_process *out) {
    int gpu = gp_gpu_of_handle(device);
    const struct gp_ledger *ledger = gp_session();
    int count = gpu >= 0 && ledger ? gp_processes(ledger, (unsigned)gpu, out, GP_CELLS) : 0;
    return count > 0 ? (unsigned)count : 0;
}

/* 1: `found` fit into the caller's array of *count; either way *count is how many there are. */
static int fits(unsigned *count, unsigned found) {
    unsigned room = *count;
    *count = found;
    return found <= room;
}

static void put_v1(void *infos, unsigned at, const struct gp_process *process) {
    ((nvmlProcessInfo_v1_t *)infos)[at] = (nvmlProcessInfo_v1_t){(unsigned)process->pid, process->bytes};
}

static void put_v2(void *infos, unsigned at, const struct gp_process *process) {
    ((nvmlProcessInfo_v2_t *)infos)[at] = (nvmlProcessInfo_v2_t){
        (unsigned)process->pid, process->bytes, (unsigned)NVML_NO_INSTANCE, (unsigned)NVML_NO_INSTANCE};
}

static nvmlReturn_t compute(list_call *real, nvmlDevice_t device, unsigned *count, void *infos,
                            void (*put)(void *, unsigned, const struct gp_process *)) {
    struct gp_process process[GP_CELLS];
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t rc = ask(real, device);
    if (rc)
        return rc;
    unsigned found = gp_own_processes(device, process);
    if (!fits(count, found))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    if (found && !infos)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < found; i++)
        put(infos, i, &process[i]);
    return NVML_SUCCESS;
}

static nvmlReturn_t nobody(list_call *real, nvmlDevice_t device, unsigned *count) {
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t rc = ask(real, device);
    if (!rc)
        *count = 0;
    return rc;
}

#define COMPUTE(symbol, put)                                                                                 \
    GP_EXPORT nvmlReturn_t symbol(nvmlDevice_t device, unsigned *count, void *infos) {                       \
        return compute(real_##symbol, device, count, infos, put);                                            \
    }
#define NOBODY(symbol)                                                                                       \
    GP_EXPORT nvmlReturn_t symbol(nvmlDevice_t device, unsigned *count, void *infos) {                       \
        (void)infos;                                                                                         \
        return nobody(real_##symbol, device, count);                                                         \
    }

COMPUTE(nvmlDeviceGetComputeRunningProcesses, put_v1)
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v2, put_v2)
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v3, put_v2)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v2)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v3)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses_v2)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses_v3)

GP_EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device,
                                                             nvmlProcessDetailList_t *list) {
    struct gp_process process[GP_CELLS];
    if (!list)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlProcessDetailList_t asked = {.version = list->version, .mode = list->mode};
    nvmlReturn_t rc = real_nvmlDeviceGetRunningProcessDetailList(device, &asked);
    if (rc && rc != NVML_ERROR_INSUFFICIENT_SIZE)
        return rc;
    unsigned found = list->mode == NVML_PROCESS_MODE_COMPUTE ? gp_own_processes(device, process) : 0;
    if (!fits(&list->count, found))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    if (found && !list->detail)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < found; i++)
        list->detail[i] = (nvmlProcessDetail_v1_t){.pid = (unsigned)process[i].pid,
                                                   .used = process[i].bytes,
                                                   .gpu_instance = (unsigned)NVML_NO_INSTANCE,
                                                   .compute_instance = (unsigned)NVML_NO_INSTANCE};
    return NVML_SUCCESS;
}
