// SPDX-License-Identifier: Apache-2.0
// Calls that fail or take long, as told: by the setting `faults` of the state, read by cuInit, and by
// GPUPORTION_SIM_FAULTS, read when the library is loaded. Rules lie apart by commas, the first that fits
// counts:
//
//     cuMemAlloc_v2@3=2        the third call of this function answers 2, and does nothing
//     cuMemAlloc_v2=2          every call does
//     cuMemcpyHtoD_v2+500us    every call begins 500 microseconds late; @ and = can stand before
//
// Off, a call pays nothing for it.
#include "driver.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RULES = 32 };

static struct rule {
    char name[64];
    unsigned long nth; // 0: every call
    unsigned long microseconds;
    CUresult result;
    _Atomic unsigned long calls;
} rules[RULES];
static unsigned rule_count;

static unsigned long number(const char **text) {
    char *end;
    unsigned long value = strtoul(*text + 1, &end, 10);
    *text = end;
    return value;
}

static const char *read_rule(const char *text, struct rule *rule) {
    size_t n = strcspn(text, "@=+,");
    if (n < sizeof rule->name)
        memcpy(rule->name, text, n);
    text += n;
    if (*text == '@')
        rule->nth = number(&text);
    if (*text == '=')
        rule->result = (CUresult)number(&text);
    if (*text == '+')
        rule->microseconds = number(&text);
    return text + strcspn(text, ",");
}

void faults_add(const char *text) {
    while (text && *text && rule_count < RULES) {
        text = read_rule(text, &rules[rule_count++]);
        text += *text == ',';
    }
    if (rule_count)
        atomic_fetch_or(&gate, GATE_FAULTS);
}

__attribute__((constructor)) static void read_environment(void) {
    faults_add(secure_getenv("GPUPORTION_SIM_FAULTS"));
}

static void wait(unsigned long microseconds) {
    struct timespec rest = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000 * 1000)};
    while (nanosleep(&rest, &rest))
        ;
}

CUresult fault_of(const char *name) {
    for (unsigned i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->name, name))
            continue;
        unsigned long call = ++rule->calls;
        if (rule->nth && rule->nth != call)
            continue;
        if (rule->microseconds)
            wait(rule->microseconds);
        return rule->result;
    }
    return CUDA_SUCCESS;
}
