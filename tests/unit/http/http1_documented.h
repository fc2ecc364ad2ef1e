/* Holds docs/SECURITY-HTTP.md against the refusals that the tests provoke. */
#ifndef TEST_HTTP1_DOCUMENTED_H
#define TEST_HTTP1_DOCUMENTED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* True if a row of the page begins with this refusal. */
static inline bool is_documented(const char *error)
{
    static char *page;
    if (!page) {
        FILE *file = fopen(KV_SOURCE_DIR "/docs/SECURITY-HTTP.md", "r");
        size_t room = 0;
        if (!file || getdelim(&page, &room, '\0', file) < 0)
            fail_msg("docs/SECURITY-HTTP.md cannot be read");
        fclose(file);
    }
    char row[128];
    snprintf(row, sizeof(row), "\n| `%s` |", error);
    return strstr(page, row) != NULL;
}

#endif
