// SPDX-License-Identifier: Apache-2.0
// Calls that fail or take long, as told: by the setting `faults` of the state, read by cuInit, and by
// GPUPORTION_SIM_FAULTS, read when the library is loaded (state/faults.h has the rules). Off, a call pays
// nothing for it.
#include "../state/faults.h"
#include "driver.h"
#include <stdlib.h>

void faults_add(const char *text) {
    if (sim_faults_add(text))
        atomic_fetch_or(&gate, GATE_FAULTS);
}

__attribute__((constructor)) static void read_environment(void) {
    faults_add(secure_getenv("GPUPORTION_SIM_FAULTS"));
}

CUresult fault_of(const char *name) {
    return (CUresult)sim_fault(name);
}
