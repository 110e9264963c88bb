/* What the daemon does with files for a grant, each in one call: every time that Python lets other threads
 * run between two system calls, it has to wait for its turn again. Declarations only: cffi reads this file
 * too. A problem is 0 or an errno. */

/* The steps in which a grant's pages are made, in their order. */
typedef enum {
    GP_FOLDER_MADE = 1,
    GP_LEDGER_FOLDER_MADE,
    GP_LEDGER_MOUNTED,
    GP_LEDGER_WRITTEN,
    GP_PRELOAD_WRITTEN,
    GP_POLICY_WRITTEN,
} gp_step;

typedef struct {
    int problem;
    int step;            /* the last one that was begun */
    int own_file_system; /* the ledger has one; 0 where this process may not mount */
} gp_made;

/* Makes `folder` with a ledger for so many GPUs, an ld.so.preload (none for 0 bytes) and, as the last, a
 * policy of these bytes. Modes do not depend on the umask; a folder that is there keeps its own. `label`:
 * SELinux label of the ledger's file system, or "". `owner`: -1, or the user who alone opens the ledger, by
 * its path. `stop`: 0, or the step after which no other is begun. What is made stays there, also after a
 * problem. */
gp_made gp_make_pages(const char *folder, uint32_t gpus, int64_t owner, const char *label,
                      const char *preload, uint64_t preload_bytes, const char *policy, uint64_t policy_bytes,
                      int stop);

/* Takes off what is mounted on `ledger` in each of `n` folders, at once, also while a container still has the
 * file: what is in use lives on until it is not. The paths lie one behind the other, each with its 0;
 * `problems` gets an errno for each: 0 as well where nothing is mounted, or nothing is there, or this process
 * may not mount. */
void gp_unmount_ledgers(const char *folders, int n, int *problems);

/* Removes each of these folders that has no problem yet, with all that is in it, and after it the note of the
 * same number ("" for none); follows no link and enters no other file system. 0 as well for what is not
 * there. */
void gp_remove_pages(const char *folders, const char *notes, int n, int *problems);

/* A file with these bytes, 0600, in place of any that is there. One that was there is changed at one moment;
 * a new one is not whole until this has returned, and is removed where it can't be. */
int gp_write_note(const char *path, const char *data, uint64_t bytes);
