// SPDX-License-Identifier: Apache-2.0
// A whole number from a word of the environment or the command line.
#pragma once

// `otherwise` for no word, for what is no number, and for one that is not from 0 to `most`.
static inline int decimal(const char *text, int most, int otherwise) {
    long value = 0;
    if (text == 0 || *text == '\0')
        return otherwise;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || (value = value * 10 + (*text - '0')) > most)
            return otherwise;
    }
    return (int)value;
}
