// SPDX-License-Identifier: Apache-2.0
// What the runtime says of a device: a structure whose layout the headers give, and whose numbers the driver
// gives.
#include "runtime.h"
#include <stddef.h>
#include <string.h>

EXPORT cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

static const struct {
    size_t at, bytes;
    CUdevice_attribute attribute;
} properties[] = {
#define PROPERTY(member, attribute)                                                                          \
    {offsetof(struct cudaDeviceProp, member), sizeof((struct cudaDeviceProp *)0)->member,                    \
     CU_DEVICE_ATTRIBUTE_##attribute},
#include "properties.def"
#undef PROPERTY
};

static void set(struct cudaDeviceProp *out, size_t i, int value) {
    char *at = (char *)out + properties[i].at;
    if (properties[i].bytes == sizeof(size_t))
        *(size_t *)(void *)at = (size_t)value;
    else
        *(int *)(void *)at = value;
}

// A macro of CUDA 12's headers gives this function its second name.
EXPORT cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    START();
    if (device < 0 || device >= driver.devices)
        return keep(cudaErrorInvalidDevice);
    memset(out, 0, sizeof *out);
    cudaError_t error = CALL(cuDeviceGetName, out->name, sizeof out->name, device);
    if (!error)
        error = CALL(cuDeviceGetUuid, (CUuuid *)&out->uuid, device);
    if (!error)
        error = CALL(cuDeviceTotalMem, &out->totalGlobalMem, device);
    for (size_t i = 0; !error && i < sizeof properties / sizeof *properties; i++) {
        int value = 0; // what an older driver does not know is none
        CALL(cuDeviceGetAttribute, &value, properties[i].attribute, device);
        set(out, i, value);
    }
    return keep(error);
}

EXPORT cudaError_t cudaProfilerStart(void) {
    return cudaSuccess;
}

EXPORT cudaError_t cudaProfilerStop(void) {
    return cudaSuccess;
}
