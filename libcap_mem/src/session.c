// SPDX-License-Identifier: Apache-2.0
/* Opens the container's account for this process, once. Knows nothing of CUDA. */
#include "session.h"

#include <errno.h>
#include <string.h>

#include "policy_path.h"
#include "raw.h"

struct gp_account gp_account;
static int opener; /* pid of who is at it, or 0: a child forked in the middle starts over */
static const char *problem = "there is no policy for this container";
static const char not_yours[] = "the account of this portion is another user's, who asked for it; run "
                                "gpuportion exec as the user who computes";

static int is_contained(const gp_policy *policy) {
    static const char inside[] = "/.gpuportion/";
    return !strncmp(policy->ledger, inside, sizeof inside - 1);
}

static void open_account(void) {
    int saved = errno;
    const gp_policy *policy = gp_policy_here();
    int failed = !policy || gp_ledger_attach(&gp_account.ledger, policy->ledger, policy->gpus, policy);
    if (failed && policy)
        problem =
            errno == EACCES && !is_contained(policy) ? not_yours : "this container's ledger cannot be opened";
    errno = saved;
    __atomic_store_n(&gp_account.state, failed ? GP_UNUSABLE : GP_OPEN, __ATOMIC_RELEASE);
}

struct gp_ledger *gp_session_first(void) {
    int me = gp_getpid();
    for (uint32_t seen; (seen = __atomic_load_n(&gp_account.state, __ATOMIC_ACQUIRE)) == GP_UNTRIED;) {
        int who = __atomic_load_n(&opener, __ATOMIC_RELAXED);
        if (who == me)
            gp_yield();
        else if (__atomic_compare_exchange_n(&opener, &who, me, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            open_account();
    }
    return gp_account.state == GP_OPEN ? &gp_account.ledger : NULL;
}

const char *gp_session_problem(void) {
    uint32_t seen = __atomic_load_n(&gp_account.state, __ATOMIC_ACQUIRE);
    return seen == GP_OPEN ? gp_ledger_problem(&gp_account.ledger) : problem;
}
