// SPDX-License-Identifier: Apache-2.0
// The kernels of a program, as its stand-ins on the host name them.
#pragma once
#include "runtime.h"

cudaError_t kernel_of(const void *host, CUkernel *kernel);
