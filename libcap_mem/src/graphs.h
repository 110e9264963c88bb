// SPDX-License-Identifier: Apache-2.0
#ifndef GP_GRAPHS_H
#define GP_GRAPHS_H
#include "abi.h"

/* What is charged for an allocation that a graph will make. */
uint64_t gp_graph_charge(int gpu, uint64_t bytes);

/* The driver has (rc) captured an allocation that is charged. */
void gp_graph_captured(CUresult rc, int gpu, uint64_t bytes, CUstream stream, int per_thread);

/* Has a GPU return what graphs that are gone have left there. */
void gp_graphs_trim(int gpu);

#endif
