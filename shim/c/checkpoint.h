// SPDX-License-Identifier: Apache-2.0
// What the images of a checkpoint tell of the processes in it. Knows nothing of what follows from it.
#pragma once

#include <stdbool.h>

// Whether a process had a lock of an open file description, as one that has opened CUDA has on its ledger.
// Images that can't be read as criu writes them count as if one had. `folder`: --image-path; NULL: not given.
bool checkpoint_has_locks(const char *folder);
