// SPDX-License-Identifier: Apache-2.0
#ifndef GP_CONTEXTS_H
#define GP_CONTEXTS_H
#include "abi.h"

/* Where a call of the current thread is. */
struct gp_place {
    CUcontext context;
    CUdevice device; /* its ordinal */
    int gpu;         /* of the policy, or GP_NO_GPU */
};

/* The current context's place, for a call that allocates. A context that was made behind our back (through an
 * export table of the driver's) is counted now; CUDA_ERROR_OUT_OF_MEMORY, once, if it does not fit into the
 * grant. Returns what the driver says where there is no context. */
CUresult gp_here(struct gp_place *place);

/* The same for a call that allocates nothing: that a context does not fit is no error of its. */
CUresult gp_whereabouts(struct gp_place *place);

#endif
