// SPDX-License-Identifier: Apache-2.0
#ifndef GP_GRAPHS_H
#define GP_GRAPHS_H
#include "abi.h"

/* Room for an allocation that a graph will make; CUDA_SUCCESS, or the refusal. */
CUresult gp_graph_admit(int gpu, uint64_t bytes, const char *api);

/* The driver has (rc) captured an allocation that gp_graph_admit let in. */
void gp_graph_captured(CUresult rc, int gpu, uint64_t bytes, CUstream stream, int per_thread);

/* Has a GPU return what graphs that are gone have left there. */
void gp_graphs_trim(int gpu);

#endif
