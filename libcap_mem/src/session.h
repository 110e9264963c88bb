// SPDX-License-Identifier: Apache-2.0
#ifndef GP_SESSION_H
#define GP_SESSION_H
#include "ledger.h"

/* The account of this container, opened at the first call; NULL where it cannot be used: whoever allocates
 * refuses then. What is left to say is gp_session_problem(). */
struct gp_ledger *gp_session(void);
const char *gp_session_problem(void);

#endif
