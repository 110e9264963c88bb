// SPDX-License-Identifier: Apache-2.0
// The functions that are one call of the driver, as forwards.def lists them.
#include "runtime.h"

// CALL would not do: the names go through one macro more here, where those of CUDA's headers would change
// them.
#define ANYTIME(name, parameters, function, ...)                                                             \
    EXPORT cudaError_t name parameters {                                                                     \
        START();                                                                                             \
        return keep(ANSWER(driver.at_##function, ##__VA_ARGS__));                                            \
    }
#define FORWARD(name, parameters, function, ...)                                                             \
    EXPORT cudaError_t name parameters {                                                                     \
        ENTER();                                                                                             \
        return keep(ANSWER(driver.at_##function, ##__VA_ARGS__));                                            \
    }
#include "forwards.def"
