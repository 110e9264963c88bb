// SPDX-License-Identifier: Apache-2.0
// The devices: how many, their names, numbers, sizes and links.
#include "driver.h"
#include <stdio.h>
#include <string.h>

API(cuDeviceGetCount, int *count) {
    ENTER();
    NEED(count);
    *count = (int)driver.count;
    return CUDA_SUCCESS;
}

API(cuDeviceGet, CUdevice *device, int ordinal) {
    ENTER();
    NEED(device);
    NEED_DEVICE(ordinal);
    *device = ordinal;
    return CUDA_SUCCESS;
}

API(cuDeviceGetName, char *name, int room, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(name && room > 0);
    snprintf(name, (size_t)room, "%s", driver.device[device].name);
    return CUDA_SUCCESS;
}

// This one does not know MIG devices: it says which board.
API(cuDeviceGetUuid, CUuuid *uuid, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(uuid);
    *uuid = driver.device[device].board_uuid;
    return CUDA_SUCCESS;
}

API(cuDeviceGetUuid_v2, CUuuid *uuid, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(uuid);
    *uuid = driver.device[device].uuid;
    return CUDA_SUCCESS;
}

API(cuDeviceTotalMem_v2, size_t *bytes, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(bytes);
    *bytes = driver.device[device].total;
    return CUDA_SUCCESS;
}

// Its result has 32 bits: as much as fits.
API(cuDeviceTotalMem, unsigned *bytes, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(bytes);
    *bytes = driver.device[device].total > UINT32_MAX ? UINT32_MAX : (unsigned)driver.device[device].total;
    return CUDA_SUCCESS;
}

API(cuDeviceComputeCapability, int *major, int *minor, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(major && minor);
    *major = (int)sim_number(&driver.view, "board.%u.cc_major", driver.device[device].board);
    *minor = (int)sim_number(&driver.view, "board.%u.cc_minor", driver.device[device].board);
    return CUDA_SUCCESS;
}

static void bus_id(CUdevice device, char *text, size_t room) {
    unsigned number = driver.device[device].board;
    snprintf(text, room, "%04X:%02X:%02X.0",
             (unsigned)sim_number(&driver.view, "board.%u.pci_domain", number),
             (unsigned)sim_number(&driver.view, "board.%u.pci_bus", number), 0u);
}

API(cuDeviceGetPCIBusId, char *text, int room, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(text && room > 12);
    bus_id(device, text, (size_t)room);
    return CUDA_SUCCESS;
}

// "domain:bus:device.function", or less: numbers in hex, the domain and the function may be left out.
static bool same_bus(const char *text, const char *ours) {
    unsigned field[4], n = 0;
    for (const char *at = text; n < 4; n++, at++) {
        field[n] = 0;
        for (; (*at >= '0' && *at <= '9') || ((*at | 32) >= 'a' && (*at | 32) <= 'f'); at++)
            field[n] = field[n] * 16 + (unsigned)(*at <= '9' ? *at - '0' : (*at | 32) - 'a' + 10);
        if (*at != ':' && *at != '.') {
            n++;
            break;
        }
    }
    char theirs[16];
    bool with_domain = n >= 3 && strchr(text, ':') != strrchr(text, ':');
    if (n < 2)
        return false;
    snprintf(theirs, sizeof theirs, "%04X:%02X:%02X.0", with_domain ? field[0] & 0xffff : 0,
             (with_domain ? field[1] : field[0]) & 0xff, (with_domain ? field[2] : field[1]) & 0xff);
    return !strcmp(theirs, ours);
}

API(cuDeviceGetByPCIBusId, CUdevice *device, const char *text) {
    ENTER();
    NEED(device && text);
    for (unsigned i = 0; i < driver.count; i++) {
        char ours[16];
        bus_id((CUdevice)i, ours, sizeof ours);
        if (same_bus(text, ours)) {
            *device = (CUdevice)i;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_DEVICE;
}

API(cuDeviceGetProperties, CUdevprop *properties, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(properties);
    *properties = (CUdevprop){
        1024, {1024, 1024, 64}, {2147483647, 65535, 65535}, 49152, 65536, 32, 2147483647, 65536, 1410000,
        512};
    return CUDA_SUCCESS;
}

// Every two whole devices reach each other, unless the settings say that none do.
bool peers_reach(int device, int peer) {
    return device != peer && !driver.device[device].mig && !driver.device[peer].mig &&
           !sim_number(&driver.view, "no_peers", 0);
}

API(cuDeviceCanAccessPeer, int *can, CUdevice device, CUdevice peer) {
    ENTER();
    NEED_DEVICE(device);
    NEED_DEVICE(peer);
    NEED(can);
    *can = peers_reach(device, peer);
    return CUDA_SUCCESS;
}

API(cuDeviceGetP2PAttribute, int *value, int attribute, CUdevice device, CUdevice peer) {
    enum { PERFORMANCE_RANK = 1, ACCESS = 2, NATIVE_ATOMIC = 3, ARRAY_ACCESS = 4 };
    ENTER();
    NEED_DEVICE(device);
    NEED_DEVICE(peer);
    NEED(value && attribute >= PERFORMANCE_RANK);
    if (device == peer)
        return CUDA_ERROR_INVALID_DEVICE;
    *value = (attribute == ACCESS || attribute == ARRAY_ACCESS) && peers_reach(device, peer);
    return CUDA_SUCCESS;
}

API(cuDeviceGetExecAffinitySupport, int *supported, UNUSED int type, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(supported);
    *supported = 0;
    return CUDA_SUCCESS;
}

API(cuDeviceGetTexture1DLinearMaxWidth, size_t *width, UNUSED int format, UNUSED unsigned channels,
    CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(width);
    *width = (size_t)1 << 28;
    return CUDA_SUCCESS;
}
