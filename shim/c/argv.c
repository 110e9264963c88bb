// SPDX-License-Identifier: Apache-2.0
#include "argv.h"

#include <stddef.h>
#include <string.h>

enum { GLOBAL = 1, CREATE = 2, RUN = 4, RESTORE = 8, DELETE = 16, STARTS = CREATE | RUN | RESTORE };
enum { GO = DIALECT_GO, GETOPT = DIALECT_GETOPT, BOTH = GO | GETOPT };
enum { FLAG, VALUE };
enum { DROPPED = -1 };
#define INTO(field) ((int)offsetof(struct command, field))

static const struct option {
    const char *name;
    char letter;
    int places, dialects, kind;
    int into; // where the value goes in a struct command
} OPTIONS[] = {
    {"root", 0, GLOBAL, BOTH, VALUE, INTO(root)},
    {"log", 0, GLOBAL, BOTH, VALUE, INTO(log)},
    {"log-format", 0, GLOBAL, BOTH, VALUE, INTO(log_format)},
    {"log-level", 0, GLOBAL, BOTH, VALUE, DROPPED},
    {"criu", 0, GLOBAL, GO, VALUE, DROPPED},
    {"rootless", 0, GLOBAL, BOTH, VALUE, DROPPED},
    {"cgroup-manager", 0, GLOBAL, GETOPT, VALUE, DROPPED},
    {"systemd-cgroup", 0, GLOBAL, BOTH, FLAG, DROPPED},
    {"debug", 0, GLOBAL, BOTH, FLAG, DROPPED},
    {"version", 'v', GLOBAL, BOTH, FLAG, INTO(version)},
    {"version", 'V', GLOBAL, GETOPT, FLAG, INTO(version)},
    {"help", 'h', GLOBAL | STARTS | DELETE, GO, FLAG, INTO(help)},
    {"help", '?', GLOBAL | STARTS | DELETE, GETOPT, FLAG, INTO(help)},
    {"usage", 0, GLOBAL | STARTS | DELETE, GETOPT, FLAG, INTO(help)},

    {"bundle", 'b', STARTS, BOTH, VALUE, INTO(bundle)},
    {"config", 'f', CREATE | RUN, GETOPT, VALUE, INTO(config)},
    {"console-socket", 0, STARTS, BOTH, VALUE, DROPPED},
    {"pid-file", 0, STARTS, BOTH, VALUE, DROPPED},
    {"pidfd-socket", 0, STARTS, BOTH, VALUE, DROPPED},
    {"preserve-fds", 0, STARTS, BOTH, VALUE, DROPPED},
    {"no-pivot", 0, STARTS, BOTH, FLAG, DROPPED},
    {"no-new-keyring", 0, STARTS, BOTH, FLAG, DROPPED},
    {"no-subreaper", 0, STARTS, BOTH, FLAG, DROPPED},
    {"detach", 'd', RUN | RESTORE, BOTH, FLAG, DROPPED},
    {"keep", 0, RUN, BOTH, FLAG, DROPPED},

    {"image-path", 0, RESTORE, BOTH, VALUE, INTO(images)},
    {"work-path", 0, RESTORE, BOTH, VALUE, DROPPED},
    {"manage-cgroups-mode", 0, RESTORE, BOTH, VALUE, DROPPED},
    {"empty-ns", 0, RESTORE, BOTH, VALUE, DROPPED},
    {"lsm-profile", 0, RESTORE, BOTH, VALUE, DROPPED},
    {"lsm-mount-context", 0, RESTORE, BOTH, VALUE, DROPPED},
    {"network-lock", 0, RESTORE, GETOPT, VALUE, DROPPED},
    {"tcp-established", 0, RESTORE, BOTH, FLAG, DROPPED},
    {"tcp-close", 0, RESTORE, GETOPT, FLAG, DROPPED},
    {"ext-unix-sk", 0, RESTORE, BOTH, FLAG, DROPPED},
    {"shell-job", 0, RESTORE, BOTH, FLAG, DROPPED},
    {"file-locks", 0, RESTORE, BOTH, FLAG, DROPPED},
    {"auto-dedup", 0, RESTORE, GO, FLAG, DROPPED},
    {"lazy-pages", 0, RESTORE, GO, FLAG, DROPPED},

    {"force", 'f', DELETE, BOTH, FLAG, DROPPED},
    {"regex", 'r', DELETE, GETOPT, FLAG, DROPPED},
};
enum { N_OPTIONS = sizeof OPTIONS / sizeof *OPTIONS };

// The verbs of runc and crun: after an option that no table has, a word is its value unless it is one of
// these.
static const struct {
    const char *name;
    enum verb verb;
    int place;
} VERBS[] = {
    {"create", VERB_CREATE, CREATE}, {"run", VERB_RUN, RUN},        {"restore", VERB_RESTORE, RESTORE},
    {"delete", VERB_DELETE, DELETE}, {"checkpoint", VERB_OTHER, 0}, {"events", VERB_OTHER, 0},
    {"exec", VERB_OTHER, 0},         {"features", VERB_OTHER, 0},   {"help", VERB_OTHER, 0},
    {"init", VERB_OTHER, 0},         {"kill", VERB_OTHER, 0},       {"list", VERB_OTHER, 0},
    {"mounts", VERB_OTHER, 0},       {"pause", VERB_OTHER, 0},      {"ps", VERB_OTHER, 0},
    {"resume", VERB_OTHER, 0},       {"spec", VERB_OTHER, 0},       {"start", VERB_OTHER, 0},
    {"state", VERB_OTHER, 0},        {"update", VERB_OTHER, 0},
};
enum { N_VERBS = sizeof VERBS / sizeof *VERBS };

struct line {
    int argc, next;
    char *const *argv;
    enum dialect dialect;
    int place;     // which options can stand here
    bool no_more;  // "--" was met
    bool guessing; // the last option is unknown and has no "="
    struct command command;
};

static bool stands_here(const struct option *option, const struct line *line) {
    return (option->places & line->place) != 0 && (option->dialects & (int)line->dialect) != 0;
}

static const struct option *by_letter(const struct line *line, char letter) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (stands_here(&OPTIONS[i], line) && OPTIONS[i].letter == letter && letter != 0)
            return &OPTIONS[i];
    return NULL;
}

// getopt_long takes any beginning of a name that only one name has.
static const struct option *by_name(const struct line *line, const char *name, size_t n) {
    const struct option *begun = NULL;
    int beginnings = 0;
    for (int i = 0; i < N_OPTIONS; i++) {
        const struct option *option = &OPTIONS[i];
        if (!stands_here(option, line) || strncmp(option->name, name, n) != 0)
            continue;
        if (option->name[n] == '\0')
            return option;
        begun = option;
        beginnings++;
    }
    return line->dialect == DIALECT_GETOPT && beginnings == 1 && n > 0 ? begun : NULL;
}

// As Go's strconv.ParseBool; what it would not take, the runtime refuses itself.
static bool says_no(const char *value) {
    static const char *const words[] = {"0", "f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; value != NULL && i < sizeof words / sizeof *words; i++)
        if (strcmp(value, words[i]) == 0)
            return true;
    return false;
}

static void put(struct line *line, const struct option *option, const char *value) {
    char *field = (char *)&line->command + option->into;
    if (option->into == DROPPED)
        return;
    if (option->kind == FLAG)
        *(bool *)field = !says_no(value);
    else
        *(const char **)field = value;
}

// `value` is what came with the option itself, after "=" or in the same word.
static void meet_option(struct line *line, const struct option *option, const char *value) {
    if (option == NULL) {
        line->command.unsure = true;
        line->guessing = value == NULL;
        return;
    }
    if (option->kind == VALUE && value == NULL) {
        if (line->next == line->argc) {
            line->command.broken = true;
            return;
        }
        value = line->argv[line->next++];
    }
    put(line, option, value);
}

static void long_option(struct line *line, const char *name) {
    size_t n = strcspn(name, "=");
    const char *value = name[n] == '=' ? name + n + 1 : NULL;
    const struct option *option = by_name(line, name, n);
    if (option == NULL && n == 1 && line->dialect == DIALECT_GO)
        option = by_letter(line, name[0]);
    meet_option(line, option, value);
}

// getopt: "-db/x" is -d and -b with the value "/x".
static void short_options(struct line *line, const char *letters) {
    for (; *letters != '\0'; letters++) {
        const struct option *option = by_letter(line, *letters);
        const char *rest = letters[1] != '\0' ? letters + 1 : NULL;
        if (option != NULL && option->kind == FLAG) {
            put(line, option, NULL);
            continue;
        }
        meet_option(line, option, option != NULL ? rest : NULL);
        if (option != NULL)
            return;
    }
}

static void take_option(struct line *line, const char *word) {
    if (strcmp(word, "--") == 0)
        line->no_more = true;
    else if (word[1] == '-')
        long_option(line, word + 2);
    else if (line->dialect == DIALECT_GO)
        long_option(line, word + 1);
    else
        short_options(line, word + 1);
}

static int verb_row(const char *word) {
    for (int i = 0; i < N_VERBS; i++)
        if (strcmp(VERBS[i].name, word) == 0)
            return i;
    return -1;
}

static void take_verb(struct line *line, const char *word) {
    int row = verb_row(word);
    if (row < 0 && line->guessing)
        return; // the value of an option that we do not know
    line->command.verb_name = word;
    line->command.verb = row < 0 ? VERB_OTHER : VERBS[row].verb;
    line->place = row < 0 ? 0 : VERBS[row].place;
    line->no_more = false;
}

// One id is what all these verbs take; where unknown options may have left their values among the words, it
// is the last word.
static void take_id(struct line *line, const char *word) {
    if (line->command.id == NULL || line->command.unsure)
        line->command.id = word;
}

struct command argv_parse(int argc, char *const *argv, enum dialect dialect) {
    struct line line = {.argc = argc, .next = 1, .argv = argv, .dialect = dialect, .place = GLOBAL};
    while (line.next < argc && line.place != 0) {
        const char *word = argv[line.next++];
        bool option = word[0] == '-' && word[1] != '\0' && !line.no_more;
        if (option) {
            line.guessing = false;
            take_option(&line, word);
            continue;
        }
        if (line.command.verb == VERB_NONE)
            take_verb(&line, word);
        else
            take_id(&line, word);
        line.guessing = false;
    }
    return line.command;
}
