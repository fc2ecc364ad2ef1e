/* Whole names by their length, so that a name is compared with one or two at most; then beginnings of names. */
#include "http/field_name.h"

#include <string.h>

struct known {
    struct slice name;
    enum field_id id;
};

#define KNOWN(literal, what)                                                                                           \
    {                                                                                                                  \
        {(literal), sizeof(literal) - 1}, FIELD_##what                                                                 \
    }

/* A row ends with an empty entry. */
#define LONGEST_NAME 19
static const struct known names[LONGEST_NAME + 1][5] = {
    [2] = {KNOWN("te", TE)},
    [3] = {KNOWN("age", MODIFIER)},
    [4] = {KNOWN("host", HOST), KNOWN("date", MODIFIER), KNOWN("vary", MODIFIER)},
    [5] = {KNOWN("proxy", PROXY), KNOWN("range", MODIFIER)},
    [6] = {KNOWN("cookie", COOKIE), KNOWN("expect", EXPECT), KNOWN("pragma", MODIFIER), KNOWN("accept", ACCEPT)},
    [7] = {KNOWN("upgrade", UPGRADE), KNOWN("expires", MODIFIER), KNOWN("trailer", MODIFIER),
           KNOWN("warning", MODIFIER)},
    [8] = {KNOWN("location", MODIFIER)},
    [9] = {KNOWN("forwarded", FORWARDED), KNOWN("x-real-ip", X_REAL_IP)},
    [10] = {KNOWN("connection", CONNECTION), KNOWN("keep-alive", KEEP_ALIVE), KNOWN("set-cookie", MODIFIER)},
    [11] = {KNOWN("retry-after", MODIFIER)},
    [12] = {KNOWN("content-type", MODIFIER), KNOWN("max-forwards", MODIFIER)},
    [13] = {KNOWN("authorization", MODIFIER), KNOWN("cache-control", MODIFIER), KNOWN("content-range", MODIFIER)},
    [14] = {KNOWN("content-length", CONTENT_LENGTH), KNOWN("http2-settings", HTTP2_SETTINGS)},
    [15] = {KNOWN("x-forwarded-for", X_FORWARDED_FOR)},
    [16] = {KNOWN("proxy-connection", PROXY_CONNECTION), KNOWN("x-forwarded-host", X_FORWARDED_HOST),
            KNOWN("content-encoding", MODIFIER), KNOWN("www-authenticate", MODIFIER)},
    [17] = {KNOWN("transfer-encoding", TRANSFER_ENCODING), KNOWN("x-forwarded-proto", X_FORWARDED_PROTO)},
    [18] = {KNOWN("proxy-authenticate", PROXY_AUTHENTICATE)},
    [19] = {KNOWN("proxy-authorization", PROXY_AUTHORIZATION)},
};

/* Asked after the whole names that they cover. */
static const struct known beginnings[] = {
    KNOWN("x-forwarded-", X_FORWARDED_OTHER),
    KNOWN("kavilo-", KAVILO),
    KNOWN("if-", MODIFIER),
    {{NULL, 0}, FIELD_PLAIN},
};

/* The known name, whole or beginning, that a lower-case text of `len` bytes is; the name it was cut from had `whole`.
 */
static enum field_id find(const char *text, size_t len, size_t whole)
{
    if (whole <= LONGEST_NAME)
        for (const struct known *known = names[whole]; known->name.len > 0; known++)
            if (known->name.data[0] == text[0] && memcmp(known->name.data, text, whole) == 0)
                return known->id;
    for (const struct known *known = beginnings; known->name.len > 0; known++)
        if (known->name.data[0] == text[0] && len >= known->name.len &&
            memcmp(known->name.data, text, known->name.len) == 0)
            return known->id;
    return FIELD_PLAIN;
}

/* A name that is none of them may be one of them in disguise. */
static enum field_id find_disguised(const char *name, size_t len, size_t whole)
{
    char text[LONGEST_NAME];
    if (!memchr(name, '_', len))
        return FIELD_PLAIN;
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(name[i] == '_' ? '-' : name[i]);
    enum field_id id = find(text, len, whole);
    return id == FIELD_PLAIN || id == FIELD_MODIFIER || id == FIELD_ACCEPT ? FIELD_PLAIN : FIELD_DISGUISED;
}

enum field_id field_id_of_lower(struct slice name)
{
    size_t len = name.len < LONGEST_NAME ? name.len : LONGEST_NAME;
    if (len == 0)
        return FIELD_PLAIN;
    enum field_id id = find(name.data, len, name.len);
    return id == FIELD_PLAIN ? find_disguised(name.data, len, name.len) : id;
}

enum field_id field_id_of(struct slice name)
{
    char text[LONGEST_NAME];
    size_t len = name.len < LONGEST_NAME ? name.len : LONGEST_NAME;
    if (len == 0)
        return FIELD_PLAIN;
    slice_lower((struct slice){name.data, len}, text);
    enum field_id id = find(text, len, name.len);
    return id == FIELD_PLAIN ? find_disguised(text, len, name.len) : id;
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
