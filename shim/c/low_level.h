// SPDX-License-Identifier: Apache-2.0
// Which OCI runtime does the work: what the engine's environment names, else the administrator's file, else
// the first runc or crun in the usual places.
#pragma once

#include <stdbool.h>

#include "argv.h"
#include "bytes.h"

#define LOW_LEVEL_CONFIG "/etc/gpuportion/runtime.conf"

// Its absolute path. False: `problem` has the sentence.
bool low_level_find(const char *named, const char *config, struct bytes *path, struct bytes *problem);
enum dialect low_level_dialect(const char *path);
