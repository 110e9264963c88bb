// SPDX-License-Identifier: Apache-2.0
#include "sentence.h"

#include <string.h>

struct template {
    const char *code, *text;
};
#include "sentences.h" // written by write_sentences.py

static const char *template_of(const char *code) {
    for (size_t i = 0; i < sizeof TEMPLATES / sizeof *TEMPLATES; i++)
        if (strcmp(TEMPLATES[i].code, code) == 0)
            return TEMPLATES[i].text;
    return "{why}";
}

static const char *text_of(const struct blank *blanks, const char *name, size_t n) {
    for (; blanks->name != NULL; blanks++)
        if (strlen(blanks->name) == n && memcmp(blanks->name, name, n) == 0)
            return blanks->text;
    return "?";
}

void sentence(struct bytes *out, const char *code, const struct blank *blanks) {
    bytes_text(out, code);
    bytes_text(out, " ");
    const char *at = template_of(code);
    for (const char *open; (open = strchr(at, '{')) != NULL;) {
        const char *close = strchr(open, '}');
        if (close == NULL)
            break;
        bytes_add(out, at, (size_t)(open - at));
        bytes_text(out, text_of(blanks, open + 1, (size_t)(close - open - 1)));
        at = close + 1;
    }
    bytes_text(out, at);
}

void sentence_why(struct bytes *out, const char *code, const char *const *parts) {
    struct bytes why = {0};
    for (; *parts != NULL; parts++)
        bytes_text(&why, *parts);
    sentence(out, code, (struct blank[]){{"why", bytes_c(&why)}, {NULL, NULL}});
    bytes_free(&why);
}

static void say_silent(struct bytes *out, const char *socket, long waited_ms) {
    struct bytes seconds = {0};
    bytes_number(&seconds, waited_ms / 1000);
    sentence(out, "GP301", (struct blank[]){{"socket", socket}, {"waited", bytes_c(&seconds)}, {NULL, NULL}});
    bytes_free(&seconds);
}

static bool say_status(struct bytes *out, struct wire_answer *answer) {
    if (answer->status == WIRE_OK)
        return true;
    if (answer->status == WIRE_REFUSED && answer->body.n > 0)
        bytes_add(out, answer->body.at, answer->body.n);
    else
        sentence_why(out, "GP302", WHY("the gpuportion daemon refused and gave no reason"));
    return false;
}

bool sentence_of_answer(struct bytes *out, const char *socket, enum wire_end end,
                        struct wire_answer *answer) {
    switch (end) {
    case WIRE_ANSWERED:
        return say_status(out, answer);
    case WIRE_SILENT:
        say_silent(out, socket, answer->waited_ms);
        return false;
    case WIRE_FORBIDDEN:
        sentence_why(out, "GP303", WHY(socket, " is for root and the group gpuportion"));
        return false;
    case WIRE_STRANGER:
        sentence_why(out, "GP302", WHY(socket, " is served by a user who is neither root nor you"));
        return false;
    case WIRE_TOO_LONG:
        sentence_why(out, "GP302",
                     WHY(socket, " is longer than the 107 bytes that a socket's path can have"));
        return false;
    default:
        sentence_why(
            out, "GP302",
            WHY("the gpuportion daemon ended the connection on ", socket, " without a whole answer"));
        return false;
    }
}
