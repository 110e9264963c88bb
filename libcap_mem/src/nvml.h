// SPDX-License-Identifier: Apache-2.0
/* As much of NVML's binary interface as the hooks touch, and what nvml.def makes of it. */
#ifndef GP_NVML_H
#define GP_NVML_H
#include <stdint.h>

typedef int nvmlReturn_t;
typedef struct nvmlDevice_st *nvmlDevice_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_MEMORY = 20,
};

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    const char *name_space;
    unsigned long long soft, hard, used;
} nvmlGetMemoryLimits_v1_t;

typedef struct {
    unsigned pid;
    unsigned long long used;
} nvmlProcessInfo_v1_t;

typedef struct { /* of _v2 and _v3 alike */
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} nvmlProcessInfo_v2_t;

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
    unsigned long long used_protected;
} nvmlProcessDetail_v1_t;

typedef struct {
    unsigned version, mode, count;
    nvmlProcessDetail_v1_t *detail;
} nvmlProcessDetailList_t;

typedef struct { /* of a process, since `since`; samples of 40 bytes */
    unsigned version, count;
    unsigned long long since;
    void *samples;
} nvmlProcessesUtilizationInfo_t;

enum { NVML_PROCESS_MODE_COMPUTE = 0 };
enum { NVML_NO_INSTANCE = -1 };

_Static_assert(sizeof(nvmlMemory_v2_t) == 40, "ABI");
_Static_assert(sizeof(nvmlGetMemoryLimits_v1_t) == 32, "ABI");
_Static_assert(sizeof(nvmlProcessesUtilizationInfo_t) == 24, "ABI");
_Static_assert(sizeof(nvmlProcessInfo_v1_t) == 16, "ABI");
_Static_assert(sizeof(nvmlProcessInfo_v2_t) == 24, "ABI");
_Static_assert(sizeof(nvmlProcessDetail_v1_t) == 32, "ABI");
_Static_assert(sizeof(nvmlProcessDetailList_t) == 24, "ABI");

#define GP_EXPORT __attribute__((visibility("default")))

#define HOOK(symbol, result, params)                                                                         \
    GP_EXPORT result symbol params;                                                                          \
    result real_##symbol params;
#define REAL(symbol, params) nvmlReturn_t real_##symbol params;
#include "../nvml.def"
#undef HOOK
#undef REAL

enum { GP_NO_GPU = -1 };

/* The policy's entry for a device (or MIG device), found by UUID; GP_NO_GPU for a stranger. */
int gp_gpu_of_handle(nvmlDevice_t device);

/* This container's living processes on a device, into out[GP_CELLS], largest first; returns how many. */
struct gp_process;
unsigned gp_own_processes(nvmlDevice_t device, struct gp_process *out);

#endif
