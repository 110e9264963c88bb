// SPDX-License-Identifier: Apache-2.0
// Calls that fail or take long, as told by rules that lie apart by commas:
//
//     cuMemAlloc_v2@3=2                 the third call of this function answers 2, and does nothing
//     cuMemAlloc_v2=2                   every call does
//     nvmlGpuInstanceDestroy@1-4=19     the first four do
//     cuMemcpyHtoD_v2+500us             every call begins 500 microseconds late; @ and = can stand before
//
// The first rule that fits counts. Knows no function by name.
#pragma once
#include <stdbool.h>

#pragma GCC visibility push(hidden)
bool sim_faults_add(const char *rules); // whether there are any now
int sim_fault(const char *name);        // what the call is to answer; may take its time
#pragma GCC visibility pop
