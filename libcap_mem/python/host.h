/* System calls that the daemon needs for a grant's pages and that Python has not, or not in one go: each time
 * that Python lets other threads run between two of them, it has to wait for its turn again. Declarations
 * only: cffi reads this file too. int: 0 or an errno. */

/* A tmpfs of exactly `bytes` on `dir`, for one file, mode 0700; `label`: SELinux label of its files, or "".
 */
int gp_mount_tmpfs(const char *dir, uint64_t bytes, const char *label);

/* A new file with these `bytes` of data, of this mode whatever the umask; `owner`: -1 for this process's;
 * `size`: that much of it has its room, 0 for what the data takes. What fails half way is left there. */
int gp_write_file(const char *path, uint32_t mode, int64_t owner, const char *data, uint64_t bytes,
                  uint64_t size);

/* Takes off all that is mounted at each of `n` places, at once, also while a container still has the file:
 * what is in use lives on until it is not. The paths lie one behind the other, each with its 0; `problems`
 * gets an errno for each: 0 as well where nothing is mounted, or nothing is there, or this process may not
 * mount. */
void gp_unmount(const char *dirs, int n, int *problems);

/* Removes each of these folders that has no problem yet, with all that is in it; follows no link and enters
 * no other file system. 0 as well where it is not there. */
void gp_remove_folders(const char *dirs, int n, int *problems);
