// SPDX-License-Identifier: Apache-2.0
// The command line of an OCI runtime: runc's grammar (Go's flag package, with options after the container's
// id too) or crun's (getopt_long). Values in, values out; what a verb means is not known here.
#pragma once

#include <stdbool.h>

enum dialect { DIALECT_GO = 1, DIALECT_GETOPT = 2 };

// Every verb that is not named here is of no interest.
enum verb { VERB_NONE, VERB_OTHER, VERB_CREATE, VERB_RUN, VERB_RESTORE, VERB_DELETE };

// Strings point into argv; NULL: not given.
struct command {
    enum verb verb;
    const char *verb_name;
    const char *root, *log, *log_format; // global options
    const char *bundle, *config;         // options of create, run and restore; config: crun's --config
    const char *images;                  // restore's --image-path
    const char *id;
    bool version, help;
    bool unsure; // an option that no table has: whether the word after it was its value is a guess
    bool broken; // an option without its value: the runtime will refuse the line
};

struct command argv_parse(int argc, char *const *argv, enum dialect dialect);
