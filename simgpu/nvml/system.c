// SPDX-License-Identifier: Apache-2.0
// Initialisation, versions, errors.
#include "../state/faults.h"
#include "../state/lock.h"
#include "nvml.h"
#include <stdlib.h>

struct nvml nvml;

int nvml_copy(const char *text, char *out, unsigned room) {
    size_t n = strlen(text) + 1;
    if (n > room)
        return NVML_INSUFFICIENT_SIZE;
    memcpy(out, text, n);
    return NVML_SUCCESS;
}

int nvml_setting(nvmlDevice_t device, const char *key, char *out, unsigned room) {
    char text[128];
    sim_text(&nvml.view, key, number_of(device), text, sizeof text);
    return *text ? nvml_copy(text, out, room) : NVML_NOT_SUPPORTED;
}

static void read_faults(void) {
    char rules[1024];
    sim_faults_add(secure_getenv("GPUPORTION_SIM_FAULTS"));
    sim_text(&nvml.view, "faults", 0, rules, sizeof rules);
    sim_faults_add(rules);
}

static char loaded[64]; // this library is of the driver that was there when it was loaded

// Opened once and kept: initialising again after a shutdown is common, and finds the same devices.
static bool open_state(void) {
    static bool open;
    static lock_t lock;
    lock_acquire(&lock);
    if (!open) {
        open = !sim_open(&nvml.view);
        if (open) {
            read_faults();
            sim_text(&nvml.view, "driver.version", 0, loaded, sizeof loaded);
        }
    }
    lock_release(&lock);
    return open;
}

API(nvmlInit_v2, void) {
    if (!open_state())
        return NVML_DRIVER_NOT_LOADED;
    char now[sizeof loaded];
    sim_text(&nvml.view, "driver.version", 0, now, sizeof now);
    int ailing = nvml_driver();
    if (ailing || strcmp(now, loaded))
        return ailing ? ailing : NVML_MISMATCH;
    nvml.loads = nvml_loads();
    nvml.users++;
    return NVML_SUCCESS;
}

API(nvmlInit, void) {
    return nvmlInit_v2();
}

API(nvmlInitWithFlags, UNUSED unsigned flags) {
    return nvmlInit_v2();
}

API(nvmlShutdown, void) {
    if (!nvml.users)
        return NVML_UNINITIALIZED;
    nvml.users--;
    return NVML_SUCCESS;
}

static const char *const error_text[] = {
    [0] = "Success",
    [1] = "Uninitialized",
    [2] = "Invalid Argument",
    [3] = "Not Supported",
    [4] = "Insufficient Permissions",
    [5] = "Already Initialized",
    [6] = "Not Found",
    [7] = "Insufficient Size",
    [8] = "Insufficient External Power",
    [9] = "Driver Not Loaded",
    [10] = "Timeout",
    [12] = "NVML Shared Library Not Found",
    [13] = "Function Not Found",
    [15] = "GPU is lost",
    [16] = "GPU requires reset",
    [17] = "The operating system has blocked the request",
    [18] = "Driver/library version mismatch",
    [19] = "In use by another client",
    [23] = "Insufficient Resources",
    [25] = "Argument version mismatch",
};

__attribute__((visibility("default"))) const char *nvmlErrorString(int error);
const char *nvmlErrorString(int error) {
    unsigned n = sizeof error_text / sizeof *error_text;
    return error >= 0 && (unsigned)error < n && error_text[error] ? error_text[error] : "Unknown Error";
}

API(nvmlSystemGetDriverVersion, char *version, unsigned room) {
    char text[64];
    ENTER();
    NEED(version);
    sim_text(&nvml.view, "driver.version", 0, text, sizeof text);
    return nvml_copy(text, version, room);
}

API(nvmlSystemGetNVMLVersion, char *version, unsigned room) {
    char text[80] = "13.";
    ENTER();
    NEED(version);
    sim_text(&nvml.view, "driver.version", 0, text + 3, sizeof text - 3);
    return nvml_copy(text, version, room);
}

API(nvmlSystemGetCudaDriverVersion_v2, int *version) {
    ENTER();
    NEED(version);
    *version = SIM_CUDA;
    return NVML_SUCCESS;
}

API(nvmlSystemGetCudaDriverVersion, int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

API(nvmlSystemGetProcessName, UNUSED unsigned pid, UNUSED char *name, UNUSED unsigned room) {
    ENTER();
    return NVML_NOT_FOUND;
}
