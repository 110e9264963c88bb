// SPDX-License-Identifier: Apache-2.0
// Finds the driver as NVIDIA's runtime was seen to: libcuda.so.1 by its soname, cuGetProcAddress by dlsym,
// all else through that. And the context of each call: the current one, else the primary one of the thread's
// device.
#include "runtime.h"
#include <dlfcn.h>
#include <pthread.h>

enum { MOST_DEVICES = 64 };

struct driver driver;
static cudaError_t started;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static CUcontext primary[MOST_DEVICES];
static __thread int chosen;

static const struct {
    const char *name;
    int since;
    void *at;
} wanted[] = {
#define DRIVER(name, since) {#name, since, &driver.at_##name},
#include "driver.def"
#undef DRIVER
};

static void find_all(void) {
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        CUdriverProcAddressQueryResult answer;
        driver.find(wanted[i].name, wanted[i].at, wanted[i].since, 0, &answer);
    }
}

static void find_driver(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    started = cudaErrorInsufficientDriver;
    if (library)
        *(void **)&driver.find = dlsym(library, "cuGetProcAddress_v2");
    if (!driver.find)
        return;
    find_all();
    started = CALL(cuInit, 0);
    if (!started)
        started = CALL(cuDeviceGetCount, &driver.devices);
    if (driver.devices > MOST_DEVICES)
        driver.devices = MOST_DEVICES;
}

cudaError_t start(void) {
    pthread_once(&once, find_driver);
    return started;
}

static cudaError_t bind_primary(int device) {
    pthread_mutex_lock(&lock);
    cudaError_t error =
        primary[device] ? cudaSuccess : CALL(cuDevicePrimaryCtxRetain, &primary[device], device);
    CUcontext context = primary[device];
    pthread_mutex_unlock(&lock);
    return error ? error : CALL(cuCtxSetCurrent, context);
}

cudaError_t enter(void) {
    CUcontext context = NULL;
    cudaError_t error = start();
    if (!error)
        error = CALL(cuCtxGetCurrent, &context);
    return error || context ? error : bind_primary(chosen);
}

cudaError_t current_device(int *device) {
    CUcontext context = NULL;
    *device = chosen;
    cudaError_t error = start();
    if (!error && !CALL(cuCtxGetCurrent, &context) && context)
        error = CALL(cuCtxGetDevice, device);
    return error;
}

EXPORT cudaError_t cudaGetDevice(int *device) {
    return keep(current_device(device));
}

EXPORT cudaError_t cudaSetDevice(int device) {
    START();
    if (device < 0 || device >= driver.devices)
        return keep(cudaErrorInvalidDevice);
    chosen = device;
    return keep(bind_primary(device));
}

EXPORT cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    START();
    *count = driver.devices;
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceReset(void) {
    int device;
    cudaError_t error = current_device(&device);
    if (error)
        return keep(error);
    pthread_mutex_lock(&lock);
    error = CALL(cuDevicePrimaryCtxReset, device);
    primary[device] = NULL;
    pthread_mutex_unlock(&lock);
    CALL(cuCtxSetCurrent, NULL);
    return keep(error);
}

EXPORT cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
    int device;
    ENTER();
    if (peer < 0 || peer >= driver.devices)
        return keep(cudaErrorInvalidDevice);
    CUcontext here;
    cudaError_t error = CALL(cuCtxGetCurrent, &here);
    if (!error && !(error = current_device(&device)) && device != peer)
        error = bind_primary(peer);
    CALL(cuCtxSetCurrent, here);
    return keep(error ? error : CALL(cuCtxEnablePeerAccess, primary[peer], flags));
}

EXPORT cudaError_t cudaDeviceDisablePeerAccess(int peer) {
    ENTER();
    if (peer < 0 || peer >= driver.devices || !primary[peer])
        return keep(cudaErrorInvalidDevice);
    return keep(CALL(cuCtxDisablePeerAccess, primary[peer]));
}

// Some programs get the driver's functions from the runtime; PyTorch gets its cuMemCreate so.
static cudaError_t find(const char *name, void **function, unsigned version, unsigned long long flags,
                        enum cudaDriverEntryPointQueryResult *answer) {
    START();
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SUCCESS;
    cudaError_t error = (cudaError_t)driver.find(name, function, (int)version, flags, &status);
    if (answer)
        *answer = (enum cudaDriverEntryPointQueryResult)status;
    // That the driver has no such function is an answer, not an error.
    if (error == cudaErrorSymbolNotFound && answer)
        error = cudaSuccess;
    if (status)
        *function = NULL;
    return keep(error);
}

#if CUDART_VERSION < 13000
EXPORT cudaError_t cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags,
                                           enum cudaDriverEntryPointQueryResult *answer) {
    return find(name, function, CUDART_VERSION, flags, answer);
}
#endif
#if CUDART_VERSION >= 12050
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                                    unsigned long long flags,
                                                    enum cudaDriverEntryPointQueryResult *answer) {
    return find(name, function, version, flags, answer);
}
#endif
