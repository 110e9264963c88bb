// SPDX-License-Identifier: Apache-2.0
// The thread's last error, and what errors are called. The sentences are the driver's.
#include "runtime.h"

static __thread cudaError_t last;

static const struct {
    int number;
    const char *name;
} names[] = {
#define ERROR(number, name) {number, #name},
#include "error_names.h"
#undef ERROR
};

cudaError_t keep(cudaError_t error) {
    if (error)
        last = error;
    return error;
}

EXPORT cudaError_t cudaGetLastError(void) {
    cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

EXPORT cudaError_t cudaPeekAtLastError(void) {
    return last;
}

EXPORT const char *cudaGetErrorName(cudaError_t error) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == (int)error)
            return names[i].name;
    return "unrecognized error code";
}

EXPORT const char *cudaGetErrorString(cudaError_t error) {
    const char *text = NULL;
    start(); // without a driver, the name has to do
    return !CALL(cuGetErrorString, (CUresult)error, &text) && text ? text : cudaGetErrorName(error);
}
