// SPDX-License-Identifier: Apache-2.0
// What the parts of the simulated NVML share: results, the process's view of the devices, handles.
#pragma once
#include "../state/faults.h"
#include "../state/state.h"
#include <string.h>

// Defines an exported NVML function. The generator finds these by name: one a line.
#define API(name, ...)                                                                                       \
    __attribute__((visibility("default"))) int name(__VA_ARGS__);                                            \
    int name(__VA_ARGS__)

#define UNUSED __attribute__((unused))

enum {
    NVML_SUCCESS = 0,
    NVML_UNINITIALIZED = 1,
    NVML_INVALID_ARGUMENT = 2,
    NVML_NOT_SUPPORTED = 3,
    NVML_NO_PERMISSION = 4,
    NVML_NOT_FOUND = 6,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_DRIVER_NOT_LOADED = 9,
    NVML_TIMEOUT = 10,
    NVML_FUNCTION_NOT_FOUND = 13,
    NVML_RESET_REQUIRED = 16,
    NVML_MISMATCH = 18, // of library and kernel module
    NVML_IN_USE = 19,
    NVML_INSUFFICIENT_RESOURCES = 23,
    NVML_VERSION_MISMATCH = 25,
    NVML_UNKNOWN = 999,
};

// A handle is the device's place among the visible ones, from 1; those of MIG devices are in mig.h.
typedef struct nvml_device *nvmlDevice_t;

struct pci_info {
    char legacy_id[16];
    unsigned domain, bus, device, identity, subsystem;
    char id[32];
};

#pragma GCC visibility push(hidden)
struct nvml {
    _Atomic int users;      // nvmlInit without nvmlShutdown
    _Atomic unsigned loads; // how often the driver had been loaded when the last session began
    struct sim_view view;
};
extern struct nvml nvml;

static inline bool is_device(nvmlDevice_t device) {
    return (uintptr_t)device >= 1 && (uintptr_t)device <= nvml.view.visible;
}
static inline unsigned index_of(nvmlDevice_t device) {
    return (unsigned)(uintptr_t)device - 1;
}
static inline unsigned number_of(nvmlDevice_t device) {
    return nvml.view.device[index_of(device)];
}
static inline nvmlDevice_t handle_of(unsigned index) {
    return (nvmlDevice_t)(uintptr_t)(index + 1);
}
bool is_mig_device(nvmlDevice_t device);
int nvml_pci(nvmlDevice_t device, struct pci_info *info);
int nvml_copy(const char *text, char *out, unsigned room);
unsigned board_number(nvmlDevice_t device, const char *key);
int nvml_setting(nvmlDevice_t device, const char *key, char *out, unsigned room);

// What ails the driver (of a session, or of none yet) and a board: health.c. 0: nothing.
int nvml_session(void);
int nvml_driver(void);
unsigned nvml_loads(void);
int nvml_board(nvmlDevice_t device);

// Host pids as the caller sees them: processes.c asks, pids.c answers. 0: not visible from here. `here`: the
// pid namespace that the caller is in.
uint64_t pid_space_here(void);
unsigned pid_here(unsigned slot, uint64_t here);
#pragma GCC visibility pop

#define ENTER()                                                                                              \
    do {                                                                                                     \
        int ailing_ = nvml_session();                                                                        \
        ailing_ = ailing_ ? ailing_ : sim_fault(__func__);                                                   \
        if (ailing_)                                                                                         \
            return ailing_;                                                                                  \
    } while (0)
#define NEED(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return NVML_INVALID_ARGUMENT;                                                                    \
    } while (0)
#define ENTER_DEVICE(device, out)                                                                            \
    ENTER();                                                                                                 \
    NEED_BOARD(device, out)
// A whole device that is well.
#define NEED_BOARD(device, out)                                                                              \
    if (is_mig_device(device))                                                                               \
        return NVML_NOT_SUPPORTED;                                                                           \
    NEED(is_device(device) && (out));                                                                        \
    if (nvml_board(device))                                                                                  \
    return nvml_board(device)
