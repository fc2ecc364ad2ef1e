/* The parts of struct slice that are too long to inline. No locale anywhere: HTTP is ASCII. */
#include "base/slice.h"

#include <stdlib.h>

#define EVERY_BYTE(b) (0x0101010101010101u * (b))

static char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* Eight letters at once. Adding to seven bits shows in the eighth whether a byte is at least 'A', and above 'Z'. */
static uint64_t word_lower(uint64_t word)
{
    uint64_t low = word & EVERY_BYTE(0x7f);
    uint64_t from_a = low + EVERY_BYTE(0x80 - 'A'), above_z = low + EVERY_BYTE(0x80 - 'Z' - 1);
    return word | (from_a & ~above_z & ~word & EVERY_BYTE(0x80)) >> 2;
}

static uint64_t word_at(const char *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof(word));
    return word;
}

/* Four to seven letters as one word, some of them twice. */
static void lower_half_words(struct slice s, char *to)
{
    uint32_t halves[2];
    uint64_t word;
    memcpy(&halves[0], s.data, sizeof(halves[0]));
    memcpy(&halves[1], s.data + s.len - sizeof(halves[1]), sizeof(halves[1]));
    memcpy(&word, halves, sizeof(word));
    word = word_lower(word);
    memcpy(halves, &word, sizeof(word));
    memcpy(to, &halves[0], sizeof(halves[0]));
    memcpy(to + s.len - sizeof(halves[1]), &halves[1], sizeof(halves[1]));
}

/* The last word overlaps the one before it: what is lower-cased twice is as it was after the first time. */
void slice_lower(struct slice s, char *to)
{
    const size_t step = sizeof(uint64_t);
    if (s.len >= step / 2 && s.len < step) {
        lower_half_words(s, to);
        return;
    }
    if (s.len < step) {
        for (size_t i = 0; i < s.len; i++)
            to[i] = ascii_lower(s.data[i]);
        return;
    }
    uint64_t last = word_lower(word_at(s.data + s.len - step));
    for (size_t i = 0; i + step <= s.len; i += step) {
        uint64_t word = word_lower(word_at(s.data + i));
        memcpy(to + i, &word, step);
    }
    memcpy(to + s.len - step, &last, step);
}

bool slice_equals_nocase(struct slice a, struct slice b)
{
    size_t i = 0;
    if (a.len != b.len)
        return false;
    for (; a.len - i >= sizeof(uint64_t); i += sizeof(uint64_t))
        if (word_lower(word_at(a.data + i)) != word_lower(word_at(b.data + i)))
            return false;
    for (; i < a.len; i++)
        if (ascii_lower(a.data[i]) != ascii_lower(b.data[i]))
            return false;
    return true;
}

bool slice_starts_with(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && slice_equals((struct slice){s.data, prefix.len}, prefix);
}

bool slice_next_element(struct slice *rest, struct slice *element)
{
    while (rest->len > 0) {
        const char *comma = memchr(rest->data, ',', rest->len);
        size_t len = comma ? (size_t)(comma - rest->data) : rest->len;
        struct slice found = slice_trim((struct slice){rest->data, len});
        size_t skip = comma ? len + 1 : len;

        rest->data += skip;
        rest->len -= skip;
        if (found.len > 0) {
            *element = found;
            return true;
        }
    }
    return false;
}

bool slice_to_u64(struct slice s, uint64_t *out)
{
    const size_t safe = 19; /* digits, of which none is too many */
    uint64_t value = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(s.data[i] - '0');
        if (digit > 9 || (i >= safe && value > (UINT64_MAX - digit) / 10))
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

char *slice_dup(struct slice s)
{
    if (s.len == SIZE_MAX)
        return NULL;
    char *copy = malloc(s.len + 1);
    if (!copy)
        return NULL;
    if (s.len > 0)
        memcpy(copy, s.data, s.len);
    copy[s.len] = '\0';
    return copy;
}
