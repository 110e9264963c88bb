// SPDX-License-Identifier: Apache-2.0
#ifndef GP_SESSION_H
#define GP_SESSION_H
#include "ledger.h"

/* For gp_session alone: every allocation passes there, so it is no call. */
enum gp_account_state { GP_UNTRIED, GP_OPEN, GP_UNUSABLE };
extern struct gp_account {
    uint32_t state;
    struct gp_ledger ledger;
} gp_account __attribute__((visibility("hidden")));
struct gp_ledger *gp_session_first(void);

/* The account of this container, opened at the first call; NULL where it cannot be used: whoever allocates
 * refuses then. What is left to say is gp_session_problem(). */
static inline struct gp_ledger *gp_session(void) {
    return __builtin_expect(__atomic_load_n(&gp_account.state, __ATOMIC_ACQUIRE) == GP_OPEN, 1)
               ? &gp_account.ledger
               : gp_session_first();
}

const char *gp_session_problem(void);

#endif
