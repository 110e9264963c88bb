// SPDX-License-Identifier: Apache-2.0
#ifndef GP_CONTEXT_LIMITS_H
#define GP_CONTEXT_LIMITS_H
#include <stdint.h>

/* Forgets what was charged for a context's limits, and adds it up by GPU. */
void gp_limits_forget(uint64_t context, uint64_t *bytes);

#endif
