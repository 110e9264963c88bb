// SPDX-License-Identifier: Apache-2.0
#include "low_level.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "real_path.h"
#include "sentence.h"

static const char *const FOLDERS[] = {"/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/",
                                      "/usr/bin/",        "/sbin/",          "/bin/"};
static const char *const NAMES[] = {"runc", "crun"};
enum { N_FOLDERS = sizeof FOLDERS / sizeof *FOLDERS, N_NAMES = sizeof NAMES / sizeof *NAMES };
enum { CONFIG_MAX = 4096 };

static const char *basename_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

enum dialect low_level_dialect(const char *path) {
    return strstr(basename_of(path), "crun") != NULL ? DIALECT_GETOPT : DIALECT_GO;
}

static bool refuse(struct bytes *problem, const char *const *why) {
    sentence_why(problem, "GP310", why);
    return false;
}

static bool is_this_program(const struct stat *other) {
    struct stat self;
    return stat("/proc/self/exe", &self) == 0 && self.st_dev == other->st_dev && self.st_ino == other->st_ino;
}

// By its real name, too: a runc that is a link to it is it.
static bool is_nvidia_runtime(const char *path) {
    static const char name[] = "nvidia-container-runtime";
    struct bytes real = {0};
    real_path(&real, path);
    bool found = strncmp(basename_of(path), name, sizeof name - 1) == 0 ||
                 strncmp(basename_of(bytes_c(&real)), name, sizeof name - 1) == 0;
    bytes_free(&real);
    return found;
}

static bool check(const char *path, const char *source, struct bytes *problem) {
    struct stat is;
    if (path[0] != '/')
        return refuse(problem, WHY(source, " names \"", path, "\", which is not an absolute path"));
    if (is_nvidia_runtime(path))
        return refuse(problem,
                      WHY(source, " names ", path,
                          ": the NVIDIA runtime would hand over whole GPUs beside the grant. gpuportion "
                          "brings in the driver itself"));
    if (stat(path, &is) != 0 || !S_ISREG(is.st_mode) || access(path, X_OK) != 0)
        return refuse(problem, WHY(source, " names ", path, ", which is not a program that can be started"));
    if (is_this_program(&is))
        return refuse(problem, WHY(source, " names ", path, ", which is gpuportion-runtime itself"));
    return true;
}

static bool search(struct bytes *path, struct bytes *problem) {
    for (int i = 0; i < N_FOLDERS * N_NAMES; i++) {
        struct stat is;
        path->n = 0;
        bytes_text(path, FOLDERS[i / N_NAMES]);
        bytes_text(path, NAMES[i % N_NAMES]);
        const char *at = bytes_c(path);
        if (stat(at, &is) == 0 && S_ISREG(is.st_mode) && access(at, X_OK) == 0 && !is_this_program(&is) &&
            !is_nvidia_runtime(at))
            return true;
    }
    return refuse(problem,
                  WHY("neither runc nor crun is in /usr/local/sbin, /usr/local/bin, /usr/sbin, /usr/bin, "
                      "/sbin or /bin"));
}

static bool take_line(char *line, const char *config, struct bytes *path, struct bytes *problem) {
    line += strspn(line, " \t");
    size_t n = strcspn(line, "\r");
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    line[n] = '\0';
    if (*line == '\0' || *line == '#')
        return true;
    if (strncmp(line, "runtime=", 8) != 0)
        return refuse(problem,
                      WHY(config, " has the line \"", line, "\"; it knows only runtime=/path/of/runc"));
    path->n = 0;
    bytes_text(path, line + 8);
    return true;
}

static bool take_lines(char *text, const char *config, struct bytes *path, struct bytes *problem) {
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;)
        if (!take_line(line, config, path, problem))
            return false;
    return true;
}

// What it names is run as root: a file that someone else can write is worth nothing.
static bool only_roots(const struct stat *is) {
    return S_ISREG(is->st_mode) && is->st_uid == 0 && (is->st_mode & 022) == 0;
}

static bool read_config(int fd, const char *config, struct bytes *path, struct bytes *problem) {
    struct stat is;
    char text[CONFIG_MAX + 1];
    if (fstat(fd, &is) != 0 || !only_roots(&is))
        return refuse(problem, WHY(config, " is not a file that only root can write"));
    ssize_t n = read(fd, text, sizeof text);
    if (n < 0 || n > CONFIG_MAX)
        return refuse(problem, WHY(config, " cannot be read or is larger than 4096 bytes"));
    text[n] = '\0';
    return take_lines(text, config, path, problem);
}

bool low_level_find(const char *named, const char *config, struct bytes *path, struct bytes *problem) {
    if (named != NULL && *named != '\0') {
        bytes_text(path, named);
        return check(named, "GPUPORTION_RUNTIME", problem);
    }
    int fd = open(config, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno != ENOENT && errno != ENOTDIR)
        return refuse(problem, WHY(config, " cannot be opened"));
    bool good = fd < 0 || read_config(fd, config, path, problem);
    if (fd >= 0)
        close(fd);
    if (!good)
        return false;
    return path->n > 0 ? check(bytes_c(path), config, problem) : search(path, problem);
}
