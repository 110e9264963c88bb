// SPDX-License-Identifier: Apache-2.0
// What a board's sensors say: they follow its load, a setting in percent (0: idle), and the board's own
// figures. Nothing measures anything: kernels do nothing.
#include "mig.h"

enum { IDLE_CELSIUS = 34, BUSY_CELSIUS = 40, SHUTDOWN = 0, IDLE_CLOCK = 210 };
enum clock { GRAPHICS, SM, MEMORY, VIDEO, CLOCKS };

static unsigned load_of(nvmlDevice_t device) {
    unsigned load = board_number(device, "board.%u.load");
    return load > 100 ? 100 : load;
}

static unsigned watts_of(nvmlDevice_t device) {
    return board_number(device, "board.%u.watts");
}

API(nvmlDeviceGetUtilizationRates, nvmlDevice_t device, unsigned rates[2]) {
    ENTER_DEVICE(device, rates);
    if (mig_enabled(number_of(device)))
        return NVML_NOT_SUPPORTED; // nothing measures the instances together
    rates[0] = load_of(device);
    rates[1] = rates[0] / 2;
    return NVML_SUCCESS;
}

static int no_video(nvmlDevice_t device, unsigned *percent, unsigned *period) {
    ENTER_DEVICE(device, percent && period);
    *percent = 0;
    *period = 167000;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetEncoderUtilization, nvmlDevice_t device, unsigned *percent, unsigned *period) {
    return no_video(device, percent, period);
}

API(nvmlDeviceGetDecoderUtilization, nvmlDevice_t device, unsigned *percent, unsigned *period) {
    return no_video(device, percent, period);
}

// ------- temperature, fans, power

API(nvmlDeviceGetTemperature, nvmlDevice_t device, int sensor, unsigned *celsius) {
    ENTER_DEVICE(device, celsius);
    NEED(!sensor);
    *celsius = IDLE_CELSIUS + load_of(device) * BUSY_CELSIUS / 100;
    return NVML_SUCCESS;
}

struct temperature {
    unsigned version;
    int sensor;
    int celsius;
};

API(nvmlDeviceGetTemperatureV, nvmlDevice_t device, struct temperature *out) {
    ENTER_DEVICE(device, out);
    if (out->version != (sizeof *out | 1u << 24))
        return NVML_VERSION_MISMATCH;
    return nvmlDeviceGetTemperature(device, out->sensor, (unsigned *)&out->celsius);
}

API(nvmlDeviceGetTemperatureThreshold, nvmlDevice_t device, int which, unsigned *celsius) {
    ENTER_DEVICE(device, celsius);
    NEED(which == 0 || which == 1);
    *celsius = which == SHUTDOWN ? 95 : 92;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetNumFans, nvmlDevice_t device, unsigned *fans) {
    ENTER_DEVICE(device, fans);
    *fans = board_number(device, "board.%u.fans");
    return NVML_SUCCESS;
}

API(nvmlDeviceGetFanSpeed_v2, nvmlDevice_t device, unsigned fan, unsigned *percent) {
    ENTER_DEVICE(device, percent);
    unsigned fans = board_number(device, "board.%u.fans");
    if (!fans)
        return NVML_NOT_SUPPORTED;
    NEED(fan < fans);
    *percent = load_of(device) ? 30 + load_of(device) / 2 : 0;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetFanSpeed, nvmlDevice_t device, unsigned *percent) {
    return nvmlDeviceGetFanSpeed_v2(device, 0, percent);
}

API(nvmlDeviceGetPowerUsage, nvmlDevice_t device, unsigned *milliwatts) {
    ENTER_DEVICE(device, milliwatts);
    unsigned most = watts_of(device) * 1000, idle = most / 8;
    *milliwatts = idle + (most - idle) / 100 * load_of(device);
    return NVML_SUCCESS;
}

static int power_limit(nvmlDevice_t device, unsigned *milliwatts) {
    ENTER_DEVICE(device, milliwatts);
    *milliwatts = watts_of(device) * 1000;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetEnforcedPowerLimit, nvmlDevice_t device, unsigned *milliwatts) {
    return power_limit(device, milliwatts);
}

API(nvmlDeviceGetPowerManagementLimit, nvmlDevice_t device, unsigned *milliwatts) {
    return power_limit(device, milliwatts);
}

API(nvmlDeviceGetPowerManagementDefaultLimit, nvmlDevice_t device, unsigned *milliwatts) {
    return power_limit(device, milliwatts);
}

API(nvmlDeviceGetPowerManagementLimitConstraints, nvmlDevice_t device, unsigned *least, unsigned *most) {
    ENTER_DEVICE(device, least && most);
    *most = watts_of(device) * 1000;
    *least = *most / 4;
    return NVML_SUCCESS;
}

// ------- clocks, in MHz

static int clock_of(nvmlDevice_t device, int which, unsigned *megahertz) {
    static const char *const key[CLOCKS] = {"board.%u.clock", "board.%u.clock", "board.%u.memory_clock",
                                            "board.%u.clock"};
    ENTER_DEVICE(device, megahertz);
    NEED(which >= GRAPHICS && which < CLOCKS);
    *megahertz = board_number(device, key[which]);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetMaxClockInfo, nvmlDevice_t device, int which, unsigned *megahertz) {
    return clock_of(device, which, megahertz);
}

API(nvmlDeviceGetApplicationsClock, nvmlDevice_t device, int which, unsigned *megahertz) {
    return clock_of(device, which, megahertz);
}

API(nvmlDeviceGetClockInfo, nvmlDevice_t device, int which, unsigned *megahertz) {
    int result = clock_of(device, which, megahertz);
    if (!result && which != MEMORY && !load_of(device))
        *megahertz = IDLE_CLOCK;
    return result;
}

API(nvmlDeviceGetClock, nvmlDevice_t device, int which, UNUSED int id, unsigned *megahertz) {
    return nvmlDeviceGetClockInfo(device, which, megahertz);
}

API(nvmlDeviceGetCurrentClocksThrottleReasons, nvmlDevice_t device, unsigned long long *reasons) {
    ENTER_DEVICE(device, reasons);
    *reasons = !load_of(device); // idle, or none
    return NVML_SUCCESS;
}

API(nvmlDeviceGetCurrentClocksEventReasons, nvmlDevice_t device, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons);
}

// ------- errors, none; and of the values by number what is to be done about the board

API(nvmlDeviceGetEccMode, nvmlDevice_t device, int *current, int *pending) {
    ENTER_DEVICE(device, current && pending);
    *current = *pending = !board_number(device, "board.%u.fans"); // boards for desktops have fans and no ECC
    return NVML_SUCCESS;
}

API(nvmlDeviceGetTotalEccErrors, nvmlDevice_t device, UNUSED int kind, UNUSED int counter,
    unsigned long long *errors) {
    ENTER_DEVICE(device, errors);
    *errors = 0;
    return board_number(device, "board.%u.fans") ? NVML_NOT_SUPPORTED : NVML_SUCCESS;
}

enum { RECOVERY_ACTION = 230, UNTOLD = 99, UNSIGNED_INT = 1 };

struct field {
    unsigned id, scope;
    long long timestamp, latency;
    int type, result;
    unsigned long long value;
};

API(nvmlDeviceGetFieldValues, nvmlDevice_t device, int count, struct field *fields) {
    ENTER_DEVICE(device, fields && count > 0);
    unsigned action = board_number(device, "board.%u.action");
    for (int i = 0; i < count; i++) {
        bool told = fields[i].id == RECOVERY_ACTION && action != UNTOLD;
        fields[i].result = told ? NVML_SUCCESS : NVML_NOT_SUPPORTED;
        fields[i].type = UNSIGNED_INT;
        fields[i].value = told ? action : 0;
    }
    return NVML_SUCCESS;
}
