// SPDX-License-Identifier: Apache-2.0
// Copies, for those who give them in other forms: arrays, the interface of 32 bits, graphs. And fills.
#pragma once
#include "arrays.h"

#pragma GCC visibility push(hidden)
CUresult copy(uintptr_t to, uintptr_t from, size_t size);
CUresult copy_2d(const CUDA_MEMCPY2D *box);
CUresult copy_3d(const CUDA_MEMCPY3D *box);
CUresult copy_array(CUarray array, size_t offset, size_t size, uintptr_t *at); // where these bytes lie
CUresult fill(uintptr_t at, const void *value, size_t width, size_t n);
CUresult fill_2d(uintptr_t at, size_t pitch, const void *value, size_t size, size_t width, size_t height);
#pragma GCC visibility pop
