/* The pages that the daemon and a container's processes share, written down once: C includes this file (through
 * region.h) and cffi parses it. Declarations only: no #if, #include or asserts here. Any change to what is below
 * bumps GP_LAYOUT_VERSION.
 *
 * Policy: written by the daemon, read-only in the container. One page.
 * Ledger: written by the container, hostile to the daemon, which only ever preads it.
 */
#define GP_POLICY_MAGIC 0x31594c4f50505047
#define GP_LEDGER_MAGIC 0x315244454c505047
#define GP_LAYOUT_VERSION 1
#define GP_MAX_GPUS 16
#define GP_CELLS 256
#define GP_LANES 8
#define GP_PATH 256

typedef struct {
    uint8_t uuid[16];    /* as cuDeviceGetUuid gives it */
    uint64_t limit;      /* bytes; changed live by one aligned 8-byte store, read at every grant */
    uint64_t context;    /* bytes charged for a process's first context on this GPU; learned by the daemon from NVML */
    uint64_t reserved[4];
} gp_policy_gpu;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t gpus;           /* entries of gpu[] that count; ledger GPU index = index here */
    uint64_t generation;     /* bumped after every change */
    uint8_t reserved[104];
    char container[128];     /* name or id, for messages */
    char libcuda[GP_PATH];   /* the real driver, as seen where the library runs */
    char libnvml[GP_PATH];
    char ledger[GP_PATH];
    gp_policy_gpu gpu[GP_MAX_GPUS];
} gp_policy;
