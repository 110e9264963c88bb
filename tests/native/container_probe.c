// SPDX-License-Identifier: Apache-2.0
// The only program in the containers of the launcher's tests and of bench/launch.py: static, so that a root
// filesystem is this one file. Says what a container was given: `probe true | env | fds | cat FILE | wait`.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static int say_fds(void) {
    for (int fd = 0; fd < 64; fd++)
        if (fcntl(fd, F_GETFD) != -1)
            printf("%d\n", fd);
    return 0;
}

static int say_env(void) {
    for (char **at = environ; *at != NULL; at++)
        puts(*at);
    return 0;
}

static int say_file(const char *path) {
    char text[65536];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && (n = read(fd, text, sizeof text)) > 0;)
        fwrite(text, 1, (size_t)n, stdout);
    return fd < 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "true";
    if (strcmp(what, "env") == 0)
        return say_env();
    if (strcmp(what, "fds") == 0)
        return say_fds();
    if (strcmp(what, "cat") == 0 && argc > 2)
        return say_file(argv[2]);
    while (strcmp(what, "wait") == 0)
        pause();
    return 0;
}
