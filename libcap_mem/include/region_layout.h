/* The pages that the daemon and a container's processes share, written down once: C includes this file
 * (through region.h) and cffi parses it. Declarations only: no #if, #include or asserts here. Any change to
 * what is below bumps GP_LAYOUT_VERSION.
 *
 * Policy: written by the daemon, read-only in the container. gp_policy_size(gpus) bytes.
 * Ledger: written by the container, hostile to the daemon, which only ever preads it.
 */
#define GP_POLICY_MAGIC 0x31594c4f50505047
#define GP_LEDGER_MAGIC 0x315244454c505047
#define GP_LAYOUT_VERSION 3
#define GP_KEEPING_LAYOUT 3 /* from here on lanes keep bytes; before, that word is zero */
#define GP_OLDEST_LAYOUT 1  /* that this one reads: it has no `cells` in the policy, and no `unseen` */
#define GP_MAX_GPUS 16
#define GP_CELLS 256
#define GP_LANES 8
#define GP_KEPT_UNIT 4096 /* bytes */
#define GP_PATH 256
#define GP_REFUSALS 16
#define GP_API 24

typedef struct {
    uint8_t uuid[16]; /* as cuDeviceGetUuid gives it */
    uint64_t limit;   /* bytes; changed live by one aligned 8-byte store, read at every grant */
    uint64_t context; /* bytes charged for a process's first context on this GPU; learned by the daemon from
                         NVML */
    uint64_t reserved[4];
} gp_policy_gpu;

/* Bytes that a process holds on a GPU by NVML's account and that no call shows (code and its variables, a
 * context larger than what was charged for it), by the process's cell: the low 16 bits of the cell's
 * generation << 48 | pages of 4096 bytes. One aligned 8-byte store changes it. The process charges itself. */
typedef struct {
    uint64_t unseen[GP_CELLS];
} gp_policy_cells;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t gpus;       /* entries of gpu[] that count; ledger GPU index = index here */
    uint64_t generation; /* bumped after every change */
    uint8_t reserved[104];
    char container[128];   /* name or id, for messages */
    char libcuda[GP_PATH]; /* the real driver, as seen where the library runs */
    char libnvml[GP_PATH];
    char ledger[GP_PATH];
    gp_policy_gpu gpu[GP_MAX_GPUS];
    gp_policy_cells cells[]; /* one a GPU */
} gp_policy;

/* Ledger: gp_ledger_size(gpus) bytes; all zero after the header is an empty one.
 *
 *   0      header, ring of the last refusals (one page)
 *   4096   one cell a process
 *   12288  one block a GPU: the total; then, by cell, what it keeps apart from its share; then the shares, by
 * lane
 *
 * Locks (open file description, exclusive) say who owns and who lives: byte c of the file is the right to
 * cell c, byte GP_CELLS + c lasts as long as what cell c holds.
 *
 * A tag names the change that made a total what it is: number << 16 | cell << 8 | lane. Lane GP_VOID: the
 * change took out all that the cell held, and the number is the generation of the owner who left it. Lane
 * GP_DRAINED | l: the change took out what lane l kept, and the number is that of the lane's own last change.
 */
#define GP_VOID 255
#define GP_DRAINED 64

typedef struct {
    uint64_t used; /* bytes */
    uint64_t tag;  /* never the same twice; changed only together with `used` */
} gp_total;

typedef struct {
    uint64_t done;    /* number of this lane's last change that counts */
    uint64_t held[2]; /* bytes after change n: held[n & 1]; the other one is being prepared, or past */
    uint64_t kept;    /* of these, what nobody uses: see kept.h */
} gp_lane;

typedef struct {
    uint64_t voided; /* up to this generation the cell's lanes do not count */
    uint64_t peak;   /* of this owner, bytes */
    uint64_t refusals;
    uint64_t unseen; /* of what it holds, what the policy told it to charge */
} gp_share;

typedef struct {
    uint64_t generation; /* counts owners; 0: never owned */
    uint64_t pid;        /* of the owner, as the container numbers it */
    uint64_t reserved[2];
} gp_cell;

typedef struct {
    uint64_t number; /* counts refusals from 1; 0 while it is written */
    uint64_t time;   /* seconds since 1970 */
    uint64_t bytes;  /* asked for */
    uint64_t used;   /* by the container, then */
    uint64_t limit;
    uint32_t pid;
    uint32_t gpu;
    char api[GP_API];
} gp_refusal;

typedef struct {
    gp_total total;
    uint64_t reserved0[14]; /* a line of its own: everybody writes it */
    uint64_t peak;          /* of the container, bytes */
    uint64_t refusals;
    uint64_t mended; /* how often the total was not the sum of the shares: somebody scribbled */
    uint64_t shut;   /* so many lanes may not be opened: counted down by their owners */
    uint64_t reserved1[12];
    gp_share share[GP_CELLS];
    gp_lane lane[GP_CELLS][GP_LANES];
} gp_ledger_gpu;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t gpus;
    uint32_t cells;
    uint32_t lanes;
    uint64_t refusals; /* how many were ever noted: number n lies in refusal[(n - 1) % GP_REFUSALS] */
    uint64_t reserved0[12];
    gp_refusal refusal[GP_REFUSALS];
    uint8_t reserved1[2816];
    gp_cell cell[GP_CELLS];
    gp_ledger_gpu gpu[];
} gp_ledger_file;

/* What needs bytes only: the daemon makes pages with these, and reads copies of pages that are not to be
 * trusted. */
uint64_t gp_policy_size(uint32_t version, uint32_t gpus);
uint64_t gp_ledger_size(uint32_t gpus);
/* Writes an empty ledger's header; the rest of the file is zeros. 0, or -1: no such number of GPUs. */
int gp_ledger_format(gp_ledger_file *header, uint32_t gpus);
/* 1 when these bytes are a ledger of this layout for so many GPUs. */
int gp_ledger_sound(const gp_ledger_file *copy, uint64_t bytes, uint32_t gpus);
/* Bytes that a cell holds, whether its owner lives or not. 0 for what makes no sense. */
uint64_t gp_ledger_share(const gp_ledger_file *copy, uint32_t gpu, uint32_t cell);
/* Cells that hold something on this GPU, in order, into cells[GP_CELLS]; returns how many. */
int gp_ledger_holding(const gp_ledger_file *copy, uint32_t gpu, uint32_t *cells);
/* A live resize: one aligned 8-byte store, then the generation. `page` is mapped from the policy's file. */
void gp_policy_set_limit(gp_policy *page, uint32_t gpu, uint64_t bytes);
/* Tells the owner of a cell what it holds unseen, rounded up to 4096. Nothing happens where that process is
 * gone, or the page is of a layout without the word. */
void gp_policy_set_unseen(gp_policy *page, uint32_t gpu, uint32_t cell, uint64_t generation, uint64_t bytes);
