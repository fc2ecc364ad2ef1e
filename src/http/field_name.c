/* Whole names by their length, so that a name is compared with a few at most; then beginnings of names. */
#include "http/field_name.h"

#include <stdbool.h>
#include <string.h>

#define LONGEST_NAME    19

/* With a literal the compiler compares in words and calls nothing. */
#define IS(literal)     (memcmp(text, literal, sizeof(literal) - 1) == 0)
#define BEGINS(literal) (len >= sizeof(literal) - 1 && IS(literal))

/* The name that a lower-case text is, by its length. */
static enum field_id find_whole(const char *text, size_t len)
{
    switch (len) {
    case 2:
        return IS("te") ? FIELD_TE : FIELD_PLAIN;
    case 3:
        return IS("age") ? FIELD_MODIFIER : IS("via") ? FIELD_VIA : FIELD_PLAIN;
    case 4:
        return IS("host") ? FIELD_HOST : IS("date") || IS("vary") ? FIELD_MODIFIER : FIELD_PLAIN;
    case 5:
        return IS("proxy") ? FIELD_PROXY : IS("range") ? FIELD_MODIFIER : FIELD_PLAIN;
    case 6:
        return IS("accept")   ? FIELD_ACCEPT
               : IS("cookie") ? FIELD_COOKIE
               : IS("expect") ? FIELD_EXPECT
               : IS("pragma") ? FIELD_MODIFIER
                              : FIELD_PLAIN;
    case 7:
        return IS("upgrade")                                     ? FIELD_UPGRADE
               : IS("expires") || IS("trailer") || IS("warning") ? FIELD_MODIFIER
                                                                 : FIELD_PLAIN;
    case 8:
        return IS("location") ? FIELD_MODIFIER : IS("cdn-loop") ? FIELD_CDN_LOOP : FIELD_PLAIN;
    case 9:
        return IS("x-real-ip") ? FIELD_X_REAL_IP : IS("forwarded") ? FIELD_FORWARDED : FIELD_PLAIN;
    case 10:
        return IS("connection")   ? FIELD_CONNECTION
               : IS("keep-alive") ? FIELD_KEEP_ALIVE
               : IS("set-cookie") ? FIELD_MODIFIER
                                  : FIELD_PLAIN;
    case 11:
        return IS("retry-after") ? FIELD_MODIFIER : FIELD_PLAIN;
    case 12:
        return IS("content-type") || IS("max-forwards") ? FIELD_MODIFIER : FIELD_PLAIN;
    case 13:
        return IS("cache-control") || IS("authorization") || IS("content-range") ? FIELD_MODIFIER : FIELD_PLAIN;
    case 14:
        return IS("content-length") ? FIELD_CONTENT_LENGTH : IS("http2-settings") ? FIELD_HTTP2_SETTINGS : FIELD_PLAIN;
    case 15:
        return IS("x-forwarded-for") ? FIELD_X_FORWARDED_FOR : FIELD_PLAIN;
    case 16:
        return IS("x-forwarded-host")                             ? FIELD_X_FORWARDED_HOST
               : IS("proxy-connection")                           ? FIELD_PROXY_CONNECTION
               : IS("content-encoding") || IS("www-authenticate") ? FIELD_MODIFIER
                                                                  : FIELD_PLAIN;
    case 17:
        return IS("x-forwarded-proto")   ? FIELD_X_FORWARDED_PROTO
               : IS("transfer-encoding") ? FIELD_TRANSFER_ENCODING
                                         : FIELD_PLAIN;
    case 18:
        return IS("proxy-authenticate") ? FIELD_PROXY_AUTHENTICATE : FIELD_PLAIN;
    case LONGEST_NAME:
        return IS("proxy-authorization") ? FIELD_PROXY_AUTHORIZATION : FIELD_PLAIN;
    default:
        return FIELD_PLAIN;
    }
}

/* The known name, whole or beginning, that a lower-case text of `len` bytes is; the name it was cut from had `whole`.
 */
static enum field_id find(const char *text, size_t len, size_t whole)
{
    enum field_id id = find_whole(text, whole);
    if (id != FIELD_PLAIN)
        return id;
    return BEGINS("x-forwarded-") ? FIELD_X_FORWARDED_OTHER
           : BEGINS("kavilo-")    ? FIELD_KAVILO
           : BEGINS("if-")        ? FIELD_MODIFIER
                                  : FIELD_PLAIN;
}

#define EVERY(b) (0x0101010101010101u * (b))

static uint64_t word_at(const char *text)
{
    uint64_t word;
    memcpy(&word, text, sizeof(word));
    return word;
}

/* Whether a byte of the word is '_': a byte that does not differ from it borrows when one is taken from it. */
static bool has_underscore(uint64_t word)
{
    uint64_t difference = word ^ EVERY('_');
    return ((difference - EVERY(1)) & ~difference & EVERY(0x80)) != 0;
}

static bool names_underscore(const char *text, size_t len)
{
    const size_t step = sizeof(uint64_t);
    if (len < step)
        return memchr(text, '_', len) != NULL;
    for (size_t i = 0; i + step <= len; i += step)
        if (has_underscore(word_at(text + i)))
            return true;
    return has_underscore(word_at(text + len - step));
}

/* A name that is none of them may be one of them in disguise. */
static enum field_id find_disguised(const char *name, size_t len, size_t whole)
{
    char text[LONGEST_NAME];
    if (!names_underscore(name, len))
        return FIELD_PLAIN;
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(name[i] == '_' ? '-' : name[i]);
    enum field_id id = find(text, len, whole);
    return id == FIELD_PLAIN || id == FIELD_MODIFIER || id == FIELD_ACCEPT ? FIELD_PLAIN : FIELD_DISGUISED;
}

static size_t looked_at(struct slice name)
{
    return name.len < LONGEST_NAME ? name.len : LONGEST_NAME;
}

enum field_id field_id_of_lower(struct slice name)
{
    size_t len = looked_at(name);
    if (len == 0)
        return FIELD_PLAIN;
    enum field_id id = find(name.data, len, name.len);
    return id == FIELD_PLAIN ? find_disguised(name.data, len, name.len) : id;
}

enum field_id field_id_of(struct slice name)
{
    char text[LONGEST_NAME];
    size_t len = looked_at(name);
    slice_lower((struct slice){name.data, len}, text);
    return field_id_of_lower((struct slice){text, name.len});
}

struct slice field_name(enum field_id id)
{
#define TEXT(literal)                                                                                                  \
    {                                                                                                                  \
        (literal), sizeof(literal) - 1                                                                                 \
    }
    static const struct slice texts[FIELD_ID_COUNT] = {
        [FIELD_HOST] = TEXT("host"),
        [FIELD_COOKIE] = TEXT("cookie"),
        [FIELD_VIA] = TEXT("via"),
        [FIELD_CDN_LOOP] = TEXT("cdn-loop"),
        [FIELD_CONNECTION] = TEXT("connection"),
        [FIELD_TE] = TEXT("te"),
        [FIELD_UPGRADE] = TEXT("upgrade"),
        [FIELD_X_FORWARDED_FOR] = TEXT("x-forwarded-for"),
        [FIELD_X_FORWARDED_PROTO] = TEXT("x-forwarded-proto"),
        [FIELD_X_FORWARDED_HOST] = TEXT("x-forwarded-host"),
        [FIELD_X_REAL_IP] = TEXT("x-real-ip"),
        [FIELD_FORWARDED] = TEXT("forwarded"),
    };
    return texts[id];
}
