// SPDX-License-Identifier: Apache-2.0
/* libnvidia-ml's part of slots.c. */
#include "nvml.h"
#include "slots.h"
#include "symbols_nvml.h"

const unsigned gp_symbols = GP_SYMBOLS;

const char *gp_driver_path(const gp_policy *policy) {
    return policy->libnvml;
}

int gp_symbol_missing(void) {
    return NVML_ERROR_FUNCTION_NOT_FOUND;
}
int gp_library_closed(void) {
    return NVML_ERROR_DRIVER_NOT_LOADED;
}

/* The one function that returns no number: where there is no library, there is no text either. */
GP_EXPORT const char *nvmlErrorString(nvmlReturn_t result) {
    return gp_real(GP_SYM_nvmlErrorString) ? real_nvmlErrorString(result)
                                           : "no GPU is to be had in this process";
}
