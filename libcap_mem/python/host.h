/* System calls that the daemon needs for a ledger's own file system and that Python has not. Declarations
 * only: cffi reads this file too. Both return 0 or an errno. */

/* A tmpfs of exactly `bytes` on `dir`, for one file, mode 0700; `label`: SELinux label of its files, or "".
 */
int gp_mount_tmpfs(const char *dir, uint64_t bytes, const char *label);

/* Takes it off, at once, also while a container still has the file: what is in use lives on until it is not.
 */
int gp_unmount(const char *dir);
