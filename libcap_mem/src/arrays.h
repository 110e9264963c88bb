// SPDX-License-Identifier: Apache-2.0
#ifndef GP_ARRAYS_H
#define GP_ARRAYS_H
#include "blocks.h"

/* An array is gone from the driver: gives back what it was charged. */
void gp_array_gone(const struct gp_block *array);

#endif
