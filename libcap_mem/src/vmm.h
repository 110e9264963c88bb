// SPDX-License-Identifier: Apache-2.0
#ifndef GP_VMM_H
#define GP_VMM_H
#include "abi.h"

/* Physical memory, and multicast objects, by numbers of ours; 0 is none that we know. */
uint64_t gp_physical_of(CUmemHandle handle);
uint64_t gp_physical_at(uint64_t address); /* mapped there */

/* One more that keeps it, 0 if it is gone; and one less: with the last the charge goes. */
int gp_physical_join(uint64_t physical);
void gp_physical_leave(uint64_t physical);

/* A multicast object has a handle, mappings and exports as memory has, and no size. */
void gp_physical_of_multicast(CUmemHandle handle);
/* multicast.c: the last of them is gone. */
void gp_multicast_gone(uint64_t object);

#endif
