// SPDX-License-Identifier: Apache-2.0
// What the parts of the stand-in runtime share: the driver's functions, the context that a call needs, and
// the thread's last error.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cudaTypedefs.h>

#define EXPORT __attribute__((visibility("default")))

struct driver {
#define DRIVER(name, since) PFN_##name##_v##since at_##name;
#include "driver.def"
#undef DRIVER
    PFN_cuGetProcAddress_v12000 find;
    int devices;
};
extern struct driver driver;

// The driver is found and initialised.
cudaError_t start(void);
// ... and a context is current: the thread's own, or the primary one of its device.
cudaError_t enter(void);
// The device on which the thread's calls act.
cudaError_t current_device(int *device);
// Remembered for cudaGetLastError, if it is one.
cudaError_t keep(cudaError_t error);

// Since CUDA 10.1 the driver's results and the runtime's errors have the same numbers. What the driver lacks
// is not supported.
#define ANSWER(function, ...) ((function) ? (cudaError_t)(function)(__VA_ARGS__) : cudaErrorNotSupported)
#define CALL(name, ...) ANSWER(driver.at_##name, ##__VA_ARGS__)
#define START()                                                                                              \
    do {                                                                                                     \
        cudaError_t failed_ = start();                                                                       \
        if (failed_)                                                                                         \
            return keep(failed_);                                                                            \
    } while (0)
#define ENTER()                                                                                              \
    do {                                                                                                     \
        cudaError_t failed_ = enter();                                                                       \
        if (failed_)                                                                                         \
            return keep(failed_);                                                                            \
    } while (0)
