// SPDX-License-Identifier: Apache-2.0
// The config.json of a bundle: read once, replaced as a whole. The bundle is the engine's, so it is trusted;
// the root filesystem that it names is not, and image_preload.h is for that.
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "bytes.h"

enum bundle_state { BUNDLE_READ, BUNDLE_ABSENT, BUNDLE_REFUSED };

struct bundle {
    const char *path;          // as on the command line, or "."
    struct bytes folder, file; // of the config.json: crun's --config can name another one
    struct stat was;
    struct bytes text;
};

// config NULL: the config.json of the bundle. REFUSED: `problem` has the sentence.
enum bundle_state bundle_read(struct bundle *b, const char *path, const char *config, struct bytes *problem);
bool bundle_replace(struct bundle *b, const char *text, size_t n, struct bytes *problem);
