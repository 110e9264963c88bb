// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "json_write.h"

static void two_digits(struct bytes *out, char before, int value) {
    const char text[] = {before, (char)('0' + value / 10), (char)('0' + value % 10)};
    bytes_add(out, text, sizeof text);
}

// RFC 3339. gmtime() would read /etc/localtime. The calendar is Howard Hinnant's days_from_civil, turned
// around: years begin in March, so that a leap day comes last.
static void add_time(struct bytes *out, time_t at) {
    long days = at / 86400 + 719468, second = at % 86400;
    long era = days / 146097, of_era = days % 146097;
    long year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    long of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    long march_month = (5 * of_year + 2) / 153;
    long day = of_year - (153 * march_month + 2) / 5 + 1,
         month = march_month < 10 ? march_month + 3 : march_month - 9;
    bytes_number(out, era * 400 + year_of_era + (month <= 2));
    two_digits(out, '-', (int)month);
    two_digits(out, '-', (int)day);
    two_digits(out, 'T', (int)(second / 3600));
    two_digits(out, ':', (int)(second / 60 % 60));
    two_digits(out, ':', (int)(second % 60));
    bytes_text(out, "Z");
}

void report_line(struct bytes *out, const char *format, const char *text, size_t n, time_t at) {
    bool plain = format != NULL && strcmp(format, "text") == 0;
    bytes_text(out, plain ? "time=\"" : "{\"level\":\"error\",\"time\":\"");
    add_time(out, at);
    bytes_text(out, plain ? "\" level=error msg=" : "\",\"msg\":");
    json_quote(out, text, n);
    bytes_text(out, plain ? "\n" : "}\n");
}

static void write_all(int fd, const char *at, size_t n) {
    while (n > 0) {
        ssize_t put = write(fd, at, n);
        if (put <= 0 && errno != EINTR)
            return;
        at += put > 0 ? put : 0;
        n -= put > 0 ? (size_t)put : 0;
    }
}

// crun: "file:" before the path, and two kinds of log that are no file.
static const char *log_path(const char *log, enum dialect dialect) {
    if (log == NULL || *log == '\0' || dialect == DIALECT_GO)
        return log;
    if (strncmp(log, "journald:", 9) == 0 || strncmp(log, "syslog:", 7) == 0)
        return NULL;
    return strncmp(log, "file:", 5) == 0 ? log + 5 : log;
}

static void append_to_log(const struct command *command, const char *path, const struct bytes *text) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
    if (fd < 0)
        return;
    struct bytes line = {0};
    report_line(&line, command->log_format, text->at, text->n, time(NULL));
    write_all(fd, line.at, line.n);
    bytes_free(&line);
    close(fd);
}

void report(const struct command *command, enum dialect dialect, struct bytes *text) {
    while (text->n > 0 && text->at[text->n - 1] == '\n')
        text->n--;
    const char *path = log_path(command->log, dialect);
    if (path != NULL && *path != '\0')
        append_to_log(command, path, text);
    bytes_add(text, "\n", 1);
    write_all(STDERR_FILENO, text->at, text->n);
}
