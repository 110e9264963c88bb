// SPDX-License-Identifier: Apache-2.0
/* An NVML for what the simulated one does not have: sessions of the encoder and of frame capture, protected
 * memory, limits of the driver's own. One device, which a stranger uses as well as the calling process. */
#include "nvml.h"

#include <string.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

enum { STRANGER = 41, MANY = 50, WORDS = 12 };

PUBLIC nvmlReturn_t nvmlInit_v2(void) {
    return NVML_SUCCESS;
}
PUBLIC nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    strncpy(uuid, "GPU-11111111-1111-1111-1111-111111111111", length);
    return device ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

/* Sessions of `words` numbers, the second of which is the PID. Every fifth is the caller's; the first asking
 * tells of one, and there are many by the second. */
static nvmlReturn_t sessions(unsigned *asked, unsigned words, nvmlDevice_t device, unsigned *count,
                             void *out) {
    unsigned there = (*asked)++ ? MANY : 1, room = *count;
    if (!device)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = there;
    if (out && room < there)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there && out; i++) {
        unsigned one[WORDS] = {i, i % 5 ? STRANGER : (unsigned)getpid()};
        memcpy((char *)out + i * words * sizeof *one, one, words * sizeof *one);
    }
    return NVML_SUCCESS;
}
PUBLIC nvmlReturn_t nvmlDeviceGetEncoderSessions(nvmlDevice_t device, unsigned *count, void *out) {
    static unsigned asked;
    return sessions(&asked, 8, device, count, out);
}
PUBLIC nvmlReturn_t nvmlDeviceGetFBCSessions(nvmlDevice_t device, unsigned *count, void *out) {
    static unsigned asked;
    return sessions(&asked, 12, device, count, out);
}
PUBLIC nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, nvmlMemory_t *memory) {
    *memory = (nvmlMemory_t){.total = 64ull << 30, .used = 10ull << 30, .free = 54ull << 30};
    return device ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}
PUBLIC nvmlReturn_t nvmlDeviceGetMemoryLimits_v1(nvmlDevice_t device, nvmlGetMemoryLimits_v1_t *limits) {
    limits->soft = limits->hard = 64ull << 30;
    limits->used = 10ull << 30;
    return device ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}
