// SPDX-License-Identifier: Apache-2.0
/* Memory of this process that no hooked call shows: loaded code and its variables, a context that is larger
 * than what was charged for it. The daemon measures it on the host and says it in the policy, by cell; the
 * process charges it to itself at its next call, so that it is gone when the process is, with or without a
 * daemon. Knows nothing of how it is measured. */
#ifndef GP_UNSEEN_H
#define GP_UNSEEN_H
#include "cell.h"

/* The policy's word about this process; 0: there is none. Plain loads, none of them a step of the algorithm.
 */
static inline uint64_t gp_unseen_said(const struct gp_ledger *ledger, const struct gp_own *own,
                                      unsigned gpu) {
    return ledger->policy->version > 1 && gpu < ledger->policy->gpus
               ? __atomic_load_n(&ledger->policy->cells[gpu].unseen[own->cell], __ATOMIC_RELAXED)
               : 0;
}

void gp_unseen_charge(struct gp_ledger *ledger, struct gp_own *own, unsigned gpu);

/* 1: it says something that was not done yet. */
static inline int gp_unseen_news(const struct gp_ledger *ledger, const struct gp_own *own, unsigned gpu) {
    return __builtin_expect(
        gp_unseen_said(ledger, own, gpu) != __atomic_load_n(&own->heeded[gpu], __ATOMIC_RELAXED), 0);
}

/* Does what the policy says, if it says something new. */
static inline void gp_unseen_heed(struct gp_ledger *ledger, struct gp_own *own, unsigned gpu) {
    if (gp_unseen_news(ledger, own, gpu))
        gp_unseen_charge(ledger, own, gpu);
}

#endif
