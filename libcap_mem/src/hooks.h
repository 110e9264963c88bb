// SPDX-License-Identifier: Apache-2.0
/* What hooks.def makes: for each hooked function our export and, as real_X, the driver's own. real_X is a
 * forwarder (generate.py): where the driver lacks X it returns CUDA_ERROR_NOT_SUPPORTED. */
#ifndef GP_HOOKS_H
#define GP_HOOKS_H
#include "abi.h"

#define GP_EXPORT __attribute__((visibility("default")))

#define HOOK(symbol, name, since, flag, params)                                                              \
    GP_EXPORT CUresult symbol params;                                                                        \
    CUresult real_##symbol params;
#define REAL(symbol, params) CUresult real_##symbol params;
#include "../hooks.def"
#undef HOOK
#undef REAL

#endif
