/*
 * The rules of addresses, slugs and names. Bytes are looked at, never characters of a locale: what the databases
 * compare and what DNS resolves must not depend on the language of the host.
 */
#include "store/rules.h"

#include <stdio.h>

static bool is_label_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* Length of the well-formed UTF-8 sequence (RFC 3629, section 4) at the front, or 0. PostgreSQL refuses any other text,
 * so SQLite must not get it either. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : 4;
    if ((s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

/* The dot-separated labels of the part behind the '@': letters, digits and hyphens, or UTF-8 (RFC 6531). */
static bool is_mail_domain(struct slice domain)
{
    size_t label = 0;
    for (size_t i = 0; i < domain.len; i++) {
        char c = domain.data[i];
        if (c == '.') {
            if (label == 0 || domain.data[i - 1] == '-')
                return false;
            label = 0;
            continue;
        }
        if (!is_label_byte(lower(c)) && (unsigned char)c < 0x80)
            return false;
        if (c == '-' && label == 0)
            return false;
        if (++label > LIMIT_LABEL_BYTES)
            return false;
    }
    return label > 0 && domain.data[domain.len - 1] != '-';
}

const char *rules_email(struct slice email, char out[LIMIT_EMAIL_BYTES + 1])
{
    if (email.len == 0)
        return "it is empty";
    if (email.len > LIMIT_EMAIL_BYTES)
        return "it is longer than 254 octets";

    size_t at = email.len;
    for (size_t i = 0; i < email.len;) {
        unsigned char c = (unsigned char)email.data[i];
        size_t n = utf8_sequence((const unsigned char *)email.data + i, email.len - i);
        if (n == 0)
            return "it is no UTF-8 text";
        if (c <= ' ' || c == 0x7f)
            return "it has a space or a control character in it";
        if (strchr("\"(),:;<>[\\]", c))
            return "it has a character that addresses do not have";
        if (c == '@') {
            if (at != email.len)
                return "it has more than one '@'";
            at = i;
        }
        for (size_t end = i + n; i < end; i++)
            out[i] = lower(email.data[i]);
    }
    out[email.len] = '\0';

    if (at == email.len)
        return "it has no '@'";
    if (at == 0)
        return "nothing stands before the '@'";
    if (at > 64)
        return "more than 64 octets stand before the '@'"; /* RFC 5321, 4.5.3.1.1 */
    if (!is_mail_domain((struct slice){email.data + at + 1, email.len - at - 1}))
        return "what stands behind the '@' is no domain";
    return NULL;
}

void rules_slug_base(const char *email, char out[RULES_SLUG_BASE_BYTES + 1])
{
    size_t len = 0;
    for (const char *p = email; *p && *p != '@' && len < RULES_SLUG_BASE_BYTES; p++) {
        char c = lower(*p);
        if (is_label_byte(c) && (c != '-' || len > 0))
            out[len++] = c;
    }
    while (len > 0 && out[len - 1] == '-')
        len--;
    out[len] = '\0';
    if (len == 0)
        snprintf(out, RULES_SLUG_BASE_BYTES + 1, "user");
}

bool rules_is_label(struct slice label)
{
    if (label.len == 0 || label.len > LIMIT_LABEL_BYTES)
        return false;
    for (size_t i = 0; i < label.len; i++)
        if (!is_label_byte(label.data[i]))
            return false;
    return label.data[0] != '-' && label.data[label.len - 1] != '-';
}

const char *rules_slug(struct slice slug)
{
    if (slug.len == 0)
        return "it is empty";
    if (slug.len > LIMIT_LABEL_BYTES - 2)
        return "no name would fit in front of it: a label has 63 octets";
    for (size_t i = 0; i < slug.len; i++)
        if (!is_label_byte(slug.data[i]))
            return "only a-z, 0-9 and '-' may be in it";
    if (slug.data[0] == '-' || slug.data[slug.len - 1] == '-')
        return "a hyphen may not stand at either end";
    return NULL;
}

const char *rules_token_name(struct slice name)
{
    if (name.len == 0)
        return "it is empty";
    if (name.len > RULES_TOKEN_NAME_BYTES)
        return "it is longer than 100 octets";
    for (size_t i = 0, n; i < name.len; i += n) {
        unsigned char c = (unsigned char)name.data[i];
        n = utf8_sequence((const unsigned char *)name.data + i, name.len - i);
        if (n == 0)
            return "it is no UTF-8 text";
        if (c < ' ' || c == 0x7f)
            return "it has a control character in it";
    }
    return NULL;
}

/* "xn--", and whatever may come to be like it (RFC 5891, 4.2.3.1). A label has two characters at least. */
static bool is_reserved(const char *label)
{
    return strncmp(label + 2, "--", 2) == 0;
}

bool rules_subdomain(struct slice name, const char *slug, char out[LIMIT_LABEL_BYTES + 1], char *why, size_t size)
{
    size_t slug_len = strlen(slug);
    if (name.len == 0) {
        snprintf(why, size, "the name is empty");
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (is_label_byte(name.data[i]))
            continue;
        unsigned char c = (unsigned char)name.data[i];
        if (c >= 'A' && c <= 'Z')
            snprintf(why, size, "a name is written in lower case: it becomes a part of a host name");
        else if (c > ' ' && c < 0x7f)
            snprintf(why, size, "a name has only a-z, 0-9 and '-' in it, and no '%c': it becomes a part of a host name",
                     c);
        else
            snprintf(why, size, "a name has only a-z, 0-9 and '-' in it: it becomes a part of a host name");
        return false;
    }
    if (name.data[0] == '-') {
        snprintf(why, size, "a name does not begin with a hyphen");
        return false;
    }
    if (!rules_is_label(slice_of(slug))) {
        snprintf(why, size, "this account's slug '%.63s' is no part of a host name; the operator has to set another",
                 slug);
        return false;
    }
    if (name.len + 1 + slug_len > LIMIT_LABEL_BYTES) {
        if (slug_len >= LIMIT_LABEL_BYTES - 1)
            snprintf(why, size, "this account's slug leaves no room for a name; the operator has to set a shorter one");
        else
            snprintf(why, size, "the name is too long: with '-%s' behind it, %zu characters fit and it has %zu", slug,
                     LIMIT_LABEL_BYTES - 1 - slug_len, name.len);
        return false;
    }
    memcpy(out, name.data, name.len);
    out[name.len] = '-';
    memcpy(out + name.len + 1, slug, slug_len + 1);
    if (is_reserved(out)) {
        snprintf(why, size, "'%s' would have '--' in its third and fourth places, and such host names are encoded ones",
                 out);
        return false;
    }
    return true;
}

bool rules_is_uuid(struct slice text)
{
    if (text.len != 36)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = lower(text.data[i]);
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        if (hyphen ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}
