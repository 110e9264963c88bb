// SPDX-License-Identifier: Apache-2.0
#ifndef GP_SLOTS_H
#define GP_SLOTS_H
#include "region.h"

/* What differs between the two libraries: slots_cuda.c, slots_nvml.c. */
extern const unsigned gp_symbols;                    /* how many */
const char *gp_driver_path(const gp_policy *policy); /* which of the policy's files is the real one */
int gp_symbol_missing(void); /* stands in for a function that the real library lacks */
int gp_library_closed(void); /* stands in for all of them when it cannot be had */

/* The address of symbol number `index` in the real library, never NULL: the one it has, or a stand-in. */
void *gp_resolve(unsigned index);

/* The same, NULL where the real library lacks it. */
void *gp_real(unsigned index);

#endif
