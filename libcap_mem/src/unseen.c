// SPDX-License-Identifier: Apache-2.0
/* One thread at a time does what the policy says; the others go on. The word is marked as heeded first: what
 * is charged here comes by this way again. A word of another generation is about the cell's last owner. */
#include "unseen.h"

/* It exists already, so the limit is not asked: what is over it is refused to the next who asks. */
static int charge(struct gp_ledger *ledger, unsigned gpu, uint64_t was, uint64_t bytes) {
    if (bytes > was)
        return gp_charge(ledger, gpu, bytes - was) == GP_GRANTED;
    gp_release(ledger, gpu, was - bytes);
    return 1;
}

void gp_unseen_charge(struct gp_ledger *ledger, struct gp_own *own, unsigned gpu) {
    if (__atomic_exchange_n(&own->heeding, 1, __ATOMIC_ACQUIRE))
        return;
    uint64_t said = gp_unseen_said(ledger, own, gpu), bytes = gp_unseen_bytes(said);
    __atomic_store_n(&own->heeded[gpu], said, __ATOMIC_RELAXED);
    if (said >> 48 == (own->generation & 0xffff) && charge(ledger, gpu, own->unseen[gpu], bytes)) {
        own->unseen[gpu] = bytes;
        __atomic_store_n(&ledger->file->gpu[gpu].share[own->cell].unseen, bytes, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&own->heeding, 0, __ATOMIC_RELEASE);
}
