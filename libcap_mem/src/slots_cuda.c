// SPDX-License-Identifier: Apache-2.0
/* libcuda's part of slots.c. */
#include "abi.h"
#include "slots.h"
#include "symbols_cuda.h"

const unsigned gp_symbols = GP_SYMBOLS;

/* The place where a newer libcuda of the image (cuda-compat) would be preferred. */
const char *gp_driver_path(const gp_policy *policy) {
    return policy->libcuda;
}

int gp_symbol_missing(void) {
    return CUDA_ERROR_NOT_SUPPORTED;
}
int gp_library_closed(void) {
    return CUDA_ERROR_NO_DEVICE;
}
