// SPDX-License-Identifier: Apache-2.0
// What the generated binding is compiled against.
#include "region.h"

#include "host.h"
