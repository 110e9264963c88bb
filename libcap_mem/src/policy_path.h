// SPDX-License-Identifier: Apache-2.0
#ifndef GP_POLICY_PATH_H
#define GP_POLICY_PATH_H
#include "region.h"

/* The policy that governs this process, mapped; NULL (and one line on stderr, once) where there is none. */
const gp_policy *gp_policy_here(void);

#endif
