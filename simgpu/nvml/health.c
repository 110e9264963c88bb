// SPDX-License-Identifier: Apache-2.0
// What ails the driver and the boards, as the state's text says at this moment (simgpu/sickness.py writes
// it): a driver that was loaded anew, fails or hangs, and boards that answer nothing but an error.
#include "nvml.h"
#include <time.h>

static unsigned number(const char *key) {
    return (unsigned)sim_number(&nvml.view, key, 0);
}

static void rest(void) {
    struct timespec moment = {0, 10000000};
    nanosleep(&moment, NULL);
}

unsigned nvml_loads(void) {
    return number("driver.loads");
}

int nvml_driver(void) {
    while (number("driver.hangs"))
        rest();
    return (int)number("driver.error");
}

// A session outlives the driver that it was begun with as a session with nobody.
int nvml_session(void) {
    if (!nvml.users)
        return NVML_UNINITIALIZED;
    int told = nvml_driver();
    return told ? told : nvml.loads != nvml_loads() ? NVML_UNKNOWN : NVML_SUCCESS;
}

int nvml_board(nvmlDevice_t device) {
    return (int)board_number(device, "board.%u.error");
}
