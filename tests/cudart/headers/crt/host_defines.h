// SPDX-License-Identifier: Apache-2.0
// The words of the CUDA compiler that NVIDIA's runtime headers use, as a C compiler is to read them: as
// nothing. The wheel that carries those headers leaves them to the compiler's package, which is large.
#pragma once
#define __host__
#define __device__
#define __cudart_builtin__
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define CUDARTAPI
#define CUDARTAPI_CDECL
