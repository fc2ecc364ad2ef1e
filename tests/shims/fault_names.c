/*
 * LD_PRELOAD: a name service on order. FAULT_NAMES names a file that is read at every question, so that a test changes
 * the answer while the program runs:
 *
 *     ok 127.0.0.1        every name has this address
 *     gone                the service does not answer (EAI_AGAIN)
 *     unknown             there is no such name (EAI_NONAME)
 *     slow SECONDS ADDR   the answer takes its time
 */
#include <dlfcn.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ORDER_MAX 128

typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    resolver *real = (resolver *)(uintptr_t)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("FAULT_NAMES");
    FILE *file = path ? fopen(path, "re") : NULL;
    char order[ORDER_MAX] = "", *rest = order;
    if (!file)
        return real(name, service, hints, out);
    if (!fgets(order, sizeof(order), file))
        order[0] = '\0';
    fclose(file);
    order[strcspn(order, "\n")] = '\0';
    char *word = strsep(&rest, " ");
    if (strcmp(word, "gone") == 0)
        return EAI_AGAIN;
    if (strcmp(word, "unknown") == 0)
        return EAI_NONAME;
    if (strcmp(word, "slow") == 0)
        sleep((unsigned)strtoul(strsep(&rest, " "), NULL, 10));
    return real(rest, service, hints, out);
}
