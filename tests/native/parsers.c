// SPDX-License-Identifier: Apache-2.0
// Lets Python tests ask the parsers of the launcher and the hook, many thousand times in one process. Uses
// nothing that those programs do not, so that it is built as they are, too.
//
// stdin: cases, each a u32 number of fields, then each field as a u32 length and its bytes; the first is what
// to ask. stdout: for each case a u32 length and the answer, "+..." or "-...".
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "argv.h"
#include "json_scan.h"
#include "json_write.h"
#include "low_level.h"
#include "report.h"
#include "request_keys.h"
#include "state.h"

enum { MOST_FIELDS = 64 };

static size_t n_fields;
static struct bytes fields[MOST_FIELDS];

static void fail(struct bytes *out, const char *why) {
    bytes_text(out, "-");
    bytes_text(out, why);
}

// A copy without a byte to spare: what is read beyond the end is seen by the sanitizer.
static struct json exact(int field, char **copy) {
    size_t n = fields[field].n;
    *copy = realloc(NULL, n > 0 ? n : 1);
    if (n > 0)
        memcpy(*copy, fields[field].at, n);
    return (struct json){*copy, *copy + n};
}

static void ask_json(struct bytes *out, const char *kind) {
    char *copy;
    struct json value;
    struct bytes decoded = {0};
    int64_t number;
    bool good = json_document(exact(1, &copy), &value);
    for (size_t i = 2; i < n_fields && good; i++)
        good = json_member(value, bytes_c(&fields[i]), &value);
    bytes_text(out, good ? "+" : "-");
    if (good && strcmp(kind, "raw") == 0)
        bytes_add(out, value.at, (size_t)(value.end - value.at));
    else if (good && strcmp(kind, "string") == 0 && json_string(value, &decoded))
        bytes_add(out, decoded.at, decoded.n);
    else if (good && strcmp(kind, "integer") == 0 && json_integer(value, &number))
        bytes_number(out, number);
    else if (good) {
        out->n = 0;
        bytes_text(out, "-other");
    }
    bytes_free(&decoded);
    free(copy);
}

static void put_optional(struct bytes *out, const char *name, const char *text) {
    if (text != NULL)
        json_put_text(out, name, text);
}

static void ask_argv(struct bytes *out) {
    static const char *const verbs[] = {"none", "other", "create", "run", "restore", "delete"};
    char *argv[MOST_FIELDS] = {(char *)"runtime"};
    int argc = 1;
    for (size_t i = 2; i < n_fields; i++)
        argv[argc++] = (char *)bytes_c(&fields[i]);
    struct command c =
        argv_parse(argc, argv, strcmp(bytes_c(&fields[1]), "crun") == 0 ? DIALECT_GETOPT : DIALECT_GO);
    bytes_text(out, "+{");
    json_put_text(out, "verb", verbs[c.verb]);
    put_optional(out, "root", c.root);
    put_optional(out, "log", c.log);
    put_optional(out, "log_format", c.log_format);
    put_optional(out, "bundle", c.bundle);
    put_optional(out, "config", c.config);
    put_optional(out, "id", c.id);
    for (int i = 0; i < 4; i++)
        if ((bool[]){c.version, c.help, c.unsure, c.broken}[i])
            json_put_text(out, (const char *[]){"version", "help", "unsure", "broken"}[i], "yes");
    bytes_text(out, "}");
}

static void ask_low_level(struct bytes *out) {
    struct bytes path = {0}, problem = {0};
    if (low_level_find(bytes_c(&fields[1]), bytes_c(&fields[2]), &path, &problem)) {
        bytes_text(out, "+");
        bytes_text(out, bytes_c(&path));
    } else {
        fail(out, bytes_c(&problem));
    }
    bytes_free(&path);
    bytes_free(&problem);
}

static void ask_state(struct bytes *out) {
    struct state state;
    struct bytes problem = {0};
    if (state_parse(fields[1].at, fields[1].n, bytes_c(&fields[2]), &state, &problem)) {
        bytes_text(out, "+");
        bytes_number(out, state.pid);
    } else {
        fail(out, bytes_c(&problem));
    }
    bytes_free(&problem);
}

static int64_t seconds(int field) {
    int64_t at = 0;
    json_integer((struct json){fields[field].at, fields[field].at + fields[field].n}, &at);
    return at;
}

static void answer(struct bytes *out) {
    const char *what = bytes_c(&fields[0]);
    if (strcmp(what, "argv") == 0)
        ask_argv(out);
    else if (strcmp(what, "low-level") == 0)
        ask_low_level(out);
    else if (strcmp(what, "state") == 0)
        ask_state(out);
    else if (strcmp(what, "keys") == 0)
        bytes_text(out, request_keys_possible(fields[1].at, fields[1].n) ? "+" : "-");
    else if (strcmp(what, "quote") == 0)
        bytes_text(out, "+"), json_quote(out, fields[1].at, fields[1].n);
    else if (strcmp(what, "log-line") == 0)
        bytes_text(out, "+"),
            report_line(out, bytes_c(&fields[1]), fields[2].at, fields[2].n, (time_t)seconds(3));
    else
        ask_json(out, what);
}

static void read_exactly(void *at, size_t n) {
    for (char *to = at; n > 0;) {
        ssize_t got = read(STDIN_FILENO, to, n);
        if (got <= 0)
            _exit(0); // the tests have ended
        to += got;
        n -= (size_t)got;
    }
}

static void write_exactly(const void *at, size_t n) {
    for (const char *from = at; n > 0;) {
        ssize_t put = write(STDOUT_FILENO, from, n);
        if (put <= 0)
            _exit(1);
        from += put;
        n -= (size_t)put;
    }
}

static uint32_t read_number(void) {
    uint32_t n;
    read_exactly(&n, sizeof n);
    return n;
}

static void read_field(struct bytes *field) {
    uint32_t n = read_number();
    field->n = 0;
    bytes_reserve(field, n);
    read_exactly(field->at, n);
    field->n = n;
    bytes_c(field);
}

int main(void) {
    for (;;) {
        struct bytes out = {0};
        n_fields = read_number();
        if (n_fields == 0 || n_fields > MOST_FIELDS)
            return 1;
        for (size_t i = 0; i < n_fields; i++)
            read_field(&fields[i]);
        answer(&out);
        uint32_t n = (uint32_t)out.n;
        write_exactly(&n, sizeof n);
        write_exactly(out.at, out.n);
        bytes_free(&out);
    }
}
