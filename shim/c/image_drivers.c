// SPDX-License-Identifier: Apache-2.0
#include "image_drivers.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "image_root.h"
#include "json_scan.h"
#include "json_write.h"
#include "real_path.h"
#include "sentence.h"

enum { PAGE = 32 << 10, PAGES = 512, LOOKS = 4096, CONF_MAX = 64 << 10, SEEN = 64 };

// An image says where to look, and the host pays for it: PAGES of names and LOOKS (folders, files of folders,
// files of a driver by name) are for the whole search.

// As the kernel has it (linux/dirent.h has no struct for programs).
struct entry {
    uint64_t inode, offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

struct search {
    int root;
    struct bytes root_path, *found;
    int files, pages, looks;
    bool too_many;
    struct stat seen[SEEN]; // folders, under whatever name: /lib is a link to /usr/lib, ld.so.conf names both
    int folders;
};

typedef void visit(struct search *s, const char *folder, const char *name);

static const char *const folders[] = {
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib64",
    "/opt/conda/cuda-compat",
};
// Below each /usr/local/cuda*; the last two are of NVIDIA's framework images, which link one to the other.
static const char *const compat[] = {"/compat", "/compat/lib", "/compat/lib.real"};
static const char *const names[] = {"libcuda.so", "libcudadebugger.so", "libnvidia-"};

static bool begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

static void join(struct bytes *path, const char *folder, const char *more, const char *name) {
    bytes_text(path, folder);
    bytes_text(path, more);
    bytes_text(path, name);
}

static visit see_driver;

static bool may_look(struct search *s) {
    s->too_many = s->too_many || ++s->looks > LOOKS;
    return !s->too_many;
}

static bool seen_before(struct search *s, int fd) {
    struct stat is;
    if (fstat(fd, &is) != 0)
        return true;
    for (int i = 0; i < s->folders; i++)
        if (s->seen[i].st_dev == is.st_dev && s->seen[i].st_ino == is.st_ino)
            return true;
    if (s->folders < SEEN)
        s->seen[s->folders++] = is;
    return false;
}

static void each_entry(struct search *s, const char *folder, visit *see) {
    _Alignas(struct entry) char page[PAGE];
    int fd = may_look(s) ? image_reopen(image_find(s->root, folder), S_IFDIR) : -1;
    bool again = fd >= 0 && see == see_driver && seen_before(s, fd);
    while (fd >= 0 && !again && !s->too_many) {
        long n = syscall(SYS_getdents64, fd, page, sizeof page);
        if (n <= 0)
            break;
        s->too_many = ++s->pages > PAGES;
        for (const char *at = page; at < page + n && !s->too_many; at += ((const struct entry *)at)->size)
            see(s, folder, ((const struct entry *)at)->name);
    }
    if (fd >= 0)
        close(fd);
}

// Where `path`, an open file, lies within the image; NULL where that can't be told.
static const char *within(struct search *s, int path, struct bytes *link, struct bytes *real) {
    descriptor_path(link, path);
    real_path(real, bytes_c(link));
    size_t n = s->root_path.n;
    const char *text = bytes_c(real);
    if (n == 1)
        return text; // the root is the host's own
    return real->n > n && memcmp(text, s->root_path.at, n) == 0 && text[n] == '/' ? text + n : NULL;
}

static void add(struct search *s, const char *name, const char *path) {
    struct bytes member = {0};
    json_put_text(&member, "path", path);
    bytes_text(&member, "}");
    if (strstr(bytes_c(s->found), bytes_c(&member)) == NULL) {
        s->too_many = s->too_many || ++s->files > IMAGE_DRIVERS_MAX;
        bytes_text(s->found, s->files > 1 ? ",{" : "{");
        json_put_text(s->found, "name", name);
        bytes_text(s->found, ",");
        bytes_add(s->found, member.at, member.n);
    }
    bytes_free(&member);
}

static void see_driver(struct search *s, const char *folder, const char *name) {
    struct bytes path = {0}, link = {0}, real = {0};
    struct stat is;
    bool wanted = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        wanted = wanted || begins(name, names[i]);
    if (!wanted || strstr(name, ".so") == NULL || !may_look(s))
        return;
    join(&path, folder, "/", name);
    int fd = image_find(s->root, bytes_c(&path));
    const char *at =
        fd >= 0 && fstat(fd, &is) == 0 && S_ISREG(is.st_mode) ? within(s, fd, &link, &real) : NULL;
    if (at != NULL)
        add(s, name, at);
    if (fd >= 0)
        close(fd);
    bytes_free(&path);
    bytes_free(&link);
    bytes_free(&real);
}

static void see_toolkit(struct search *s, const char *folder, const char *name) {
    for (size_t i = 0; begins(name, "cuda") && i < sizeof compat / sizeof *compat; i++) {
        struct bytes path = {0};
        join(&path, folder, "/", name);
        bytes_text(&path, compat[i]);
        each_entry(s, bytes_c(&path), see_driver);
        bytes_free(&path);
    }
}

// The absolute paths of a text, parted by any of `separators`.
static void look_in_each(struct search *s, const char *text, const char *separators) {
    while (*text != '\0' && !s->too_many) {
        size_t n = strcspn(text, separators);
        struct bytes folder = {0};
        bytes_add(&folder, text, n);
        if (n > 0 && *text == '/')
            each_entry(s, bytes_c(&folder), see_driver);
        bytes_free(&folder);
        text += n + (text[n] != '\0');
    }
}

static void see_conf(struct search *s, const char *folder, const char *name) {
    struct bytes path = {0}, text = {0};
    size_t n = strlen(name);
    bool conf = n > 5 && strcmp(name + n - 5, ".conf") == 0;
    join(&path, folder, "/", name);
    int fd = conf && may_look(s) ? image_reopen(image_find(s->root, bytes_c(&path)), S_IFREG) : -1;
    if (fd >= 0 && image_read(fd, CONF_MAX, &text))
        look_in_each(s, bytes_c(&text), " \t\r\n:,");
    if (fd >= 0)
        close(fd);
    bytes_free(&path);
    bytes_free(&text);
}

static void look_in_library_path(struct search *s, const struct bundle *b) {
    static const char variable[] = "LD_LIBRARY_PATH=";
    struct json rest, value;
    struct bytes entry = {0};
    if (!json_document((struct json){b->text.at, b->text.at + b->text.n}, &rest) ||
        !json_member(rest, "process", &rest) || !json_member(rest, "env", &rest))
        return;
    while (json_next(&rest, &value))
        if (json_string(value, &entry) && begins(bytes_c(&entry), variable))
            look_in_each(s, bytes_c(&entry) + sizeof variable - 1, ":;");
    bytes_free(&entry);
}

bool image_drivers_find(const struct bundle *b, int root, struct bytes *out, struct bytes *problem) {
    struct search s = {.root = root, .found = out};
    struct bytes link = {0};
    descriptor_path(&link, root);
    real_path(&s.root_path, bytes_c(&link));
    bytes_text(out, "[");
    each_entry(&s, "/usr/local", see_toolkit);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        each_entry(&s, folders[i], see_driver);
    see_conf(&s, "/etc", "ld.so.conf");
    each_entry(&s, "/etc/ld.so.conf.d", see_conf);
    look_in_library_path(&s, b);
    bytes_text(out, "]");
    bytes_free(&link);
    bytes_free(&s.root_path);
    if (s.too_many)
        sentence_why(
            problem, "GP311",
            WHY("the image holds more than 256 files of NVIDIA drivers, or it names more than 4096 places "
                "to look for them (LD_LIBRARY_PATH, /etc/ld.so.conf*) or folders with more than 16 MB of "
                "names. Use an image without them"));
    return !s.too_many;
}
