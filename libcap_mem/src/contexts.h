// SPDX-License-Identifier: Apache-2.0
#ifndef GP_CONTEXTS_H
#define GP_CONTEXTS_H
#include "abi.h"

/* Where a call of the current thread allocates. */
struct gp_place {
    CUcontext context;
    int gpu; /* of the policy, or GP_NO_GPU */
};

/* The current context's place. A context that was made behind our back (through an export table of the
 * driver's) is counted now. Returns what the driver says where there is no context. */
CUresult gp_here(struct gp_place *place);

#endif
