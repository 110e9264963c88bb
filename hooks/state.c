// SPDX-License-Identifier: Apache-2.0
#include "state.h"

#include <limits.h>
#include <string.h>

#include "json_scan.h"
#include "sentence.h"

static bool other_id(struct json state, const char *id) {
    struct json value;
    struct bytes text = {0};
    bool other = id != NULL && json_member(state, "id", &value) &&
                 (!json_string(value, &text) || strcmp(bytes_c(&text), id) != 0);
    bytes_free(&text);
    return other;
}

bool state_parse(const char *text, size_t n, const char *id, struct state *out, struct bytes *problem) {
    struct json state, value;
    int64_t pid = 0;
    if (!json_document((struct json){text, text + n}, &state) || *state.at != '{')
        sentence_why(problem, "GP302", WHY("the OCI runtime gave its hook a state that is no JSON object"));
    else if (other_id(state, id))
        sentence_why(problem, "GP302",
                     WHY("the OCI runtime called the hook of container ", id, " for another one"));
    else if (!json_member(state, "pid", &value) || !json_integer(value, &pid) || pid <= 0 || pid > INT_MAX)
        sentence_why(problem, "GP302", WHY("the OCI runtime gave its hook a state without a process"));
    out->pid = (int)pid;
    return problem->n == 0;
}
