// SPDX-License-Identifier: Apache-2.0
/* The driver opens its devices in cuInit, and frees a process's memory when the kernel closes them. The
 * kernel lets go of a process's descriptors from the highest number down: so our sign of life has its number
 * before the driver has any. */
#include "hooks.h"
#include "session.h"

CUresult cuInit(unsigned flags) {
    struct gp_ledger *ledger = gp_session();
    if (ledger)
        gp_ledger_keep_place(ledger);
    return real_cuInit(flags);
}
