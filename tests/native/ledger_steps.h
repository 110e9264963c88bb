// SPDX-License-Identifier: Apache-2.0
/* Included before every source of the accounting by the storm: each access to a word that processes share
 * counts, so that what a call took can be told without a clock. */
#ifndef LEDGER_STEPS_H
#define LEDGER_STEPS_H

extern _Thread_local unsigned long ledger_steps;
#define GP_STEP(access) ((void)++ledger_steps)

#endif
