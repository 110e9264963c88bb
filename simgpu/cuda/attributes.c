// SPDX-License-Identifier: Apache-2.0
// cuDeviceGetAttribute. What differs between boards comes from the state; the rest is what boards since
// Ampere say.
#include "driver.h"

enum { MULTIPROCESSORS = 16, MULTICAST = 132, ATTRIBUTES = 162 };

// By number, as in NVIDIA's documentation; 0 where nothing stands: "no", or "none".
static const int common[ATTRIBUTES] = {
    [1] = 1024,        // max threads per block
    [2] = 1024,        // max block dimensions: x
    [3] = 1024,        // ... y
    [4] = 64,          // ... z
    [5] = 2147483647,  // max grid dimensions: x
    [6] = 65535,       // ... y
    [7] = 65535,       // ... z
    [8] = 49152,       // shared memory per block
    [9] = 65536,       // constant memory
    [10] = 32,         // warp size
    [11] = 2147483647, // max pitch
    [12] = 65536,      // registers per block
    [13] = 1410000,    // clock rate, kHz
    [14] = 512,        // texture alignment
    [15] = 1,          // copies overlap kernels
    [19] = 1,          // can map host memory
    [21] = 131072,     // texture 1D width
    [22] = 131072,     // texture 2D width
    [23] = 65536,      // ... height
    [24] = 16384,      // texture 3D width
    [25] = 16384,      // ... height
    [26] = 16384,      // ... depth
    [27] = 32768,      // texture 2D layered width
    [28] = 32768,      // ... height
    [29] = 2048,       // ... layers
    [30] = 512,        // surface alignment
    [31] = 1,          // concurrent kernels
    [32] = 1,          // ECC
    [36] = 1215000,    // memory clock rate, kHz
    [37] = 5120,       // memory bus width
    [38] = 41943040,   // L2 cache size
    [39] = 2048,       // threads per multiprocessor
    [40] = 3,          // copy engines
    [41] = 1,          // unified addressing
    [42] = 32768,      // texture 1D layered width
    [43] = 2048,       // ... layers
    [45] = 32768,      // texture 2D gather width
    [46] = 32768,      // ... height
    [47] = 8192,       // texture 3D alternate width
    [48] = 8192,       // ... height
    [49] = 32768,      // ... depth
    [51] = 32,         // texture pitch alignment
    [52] = 32768,      // texture cubemap width
    [53] = 32768,      // texture cubemap layered width
    [54] = 2046,       // ... layers
    [55] = 32768,      // surface 1D width
    [56] = 131072,     // surface 2D width
    [57] = 65536,      // ... height
    [58] = 16384,      // surface 3D width
    [59] = 16384,      // ... height
    [60] = 16384,      // ... depth
    [61] = 32768,      // surface 1D layered width
    [62] = 2048,       // ... layers
    [63] = 32768,      // surface 2D layered width
    [64] = 32768,      // ... height
    [65] = 2048,       // ... layers
    [66] = 32768,      // surface cubemap width
    [67] = 32768,      // surface cubemap layered width
    [68] = 2046,       // ... layers
    [69] = 268435456,  // texture 1D linear width
    [70] = 131072,     // texture 2D linear width
    [71] = 65000,      // ... height
    [72] = 2097120,    // ... pitch
    [73] = 32768,      // texture 2D mipmapped width
    [74] = 32768,      // ... height
    [77] = 32768,      // texture 1D mipmapped width
    [78] = 1,          // stream priorities
    [79] = 1,          // caches globals in L1
    [80] = 1,          // caches locals in L1
    [81] = 167936,     // shared memory per multiprocessor
    [82] = 65536,      // registers per multiprocessor
    [83] = 1,          // managed memory
    [87] = 2,          // single to double precision ratio
    [89] = 1,          // concurrent managed access
    [90] = 1,          // compute preemption
    [91] = 1,          // host pointers of registered memory
    [95] = 1,          // cooperative launch
    [97] = 166912,     // shared memory per block, opt-in
    [98] = 1,          // flush of remote writes
    [99] = 1,          // host register
    [102] = 1,         // virtual memory management
    [103] = 1,         // handles as file descriptors
    [106] = 32,        // blocks per multiprocessor
    [108] = 31457280,  // persisting L2
    [109] = 134213632, // access policy window
    [111] = 1024,      // reserved shared memory per block
    [115] = 1,         // memory pools
    [129] = 1,         // unified function pointers
    [131] = -1,        // NUMA node of the memory
    [134] = -1,        // NUMA node of the host
};

// Those that differ between boards: the key in the state.
static const char *const of_board[ATTRIBUTES] = {
    [33] = "board.%u.pci_bus",  [34] = "board.%u.pci_device", [50] = "board.%u.pci_domain",
    [75] = "board.%u.cc_major", [76] = "board.%u.cc_minor",   [139] = "board.%u.pci_identity",
};

API(cuDeviceGetAttribute, int *value, int attribute, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED(value && attribute > 0 && attribute < ATTRIBUTES);
    const char *key = of_board[attribute];
    *value = attribute == MULTIPROCESSORS ? (int)driver.device[device].sms
             : attribute == MULTICAST     ? multicast_works(device)
             : key                        ? (int)sim_number(&driver.view, key, driver.device[device].board)
                                          : common[attribute];
    return CUDA_SUCCESS;
}
