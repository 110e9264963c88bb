// SPDX-License-Identifier: Apache-2.0
// The rules of faults.h. Each process counts its calls for itself.
#include "faults.h"
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { RULES = 32 };

static struct rule {
    char name[64];
    unsigned long first, last; // calls; 0: every one
    unsigned long microseconds;
    int result;
    _Atomic unsigned long calls;
} rules[RULES];
static unsigned rule_count;

static unsigned long number(const char **text) {
    unsigned long value = 0;
    for ((*text)++; **text >= '0' && **text <= '9'; (*text)++)
        value = value * 10 + (unsigned long)(**text - '0');
    return value;
}

static const char *read_rule(const char *text, struct rule *rule) {
    size_t n = strcspn(text, "@=+,");
    if (n < sizeof rule->name)
        memcpy(rule->name, text, n);
    text += n;
    if (*text == '@')
        rule->first = rule->last = number(&text);
    if (rule->first && *text == '-')
        rule->last = number(&text);
    if (*text == '=')
        rule->result = (int)number(&text);
    if (*text == '+')
        rule->microseconds = number(&text);
    return text + strcspn(text, ",");
}

bool sim_faults_add(const char *text) {
    while (text && *text && rule_count < RULES) {
        text = read_rule(text, &rules[rule_count++]);
        text += *text == ',';
    }
    return rule_count;
}

static void wait(unsigned long microseconds) {
    struct timespec rest = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000 * 1000)};
    while (nanosleep(&rest, &rest))
        ;
}

int sim_fault(const char *name) {
    for (unsigned i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->name, name))
            continue;
        unsigned long call = ++rule->calls;
        if (rule->first && (call < rule->first || call > rule->last))
            continue;
        if (rule->microseconds)
            wait(rule->microseconds);
        return rule->result;
    }
    return 0;
}
