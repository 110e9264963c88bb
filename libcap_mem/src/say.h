// SPDX-License-Identifier: Apache-2.0
#ifndef GP_SAY_H
#define GP_SAY_H
#include "ledger.h"

/* Once a process: why no GPU is to be had. */
void gp_say_closed(const char *what, const char *detail);

/* GP201, at most once a second; those kept back are counted in the next one. */
void gp_say_refused(const struct gp_ledger *ledger, unsigned gpu, uint64_t bytes);

/* The same, where there is no share to speak of: the accounting does not work, or the GPU is none of ours. */
void gp_say_unusable(uint64_t bytes, const char *why);

#endif
