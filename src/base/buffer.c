/*
 * The growable buffer. Capacity doubles, so that n appends cost O(n), and never passes the limit, so that a buffer at
 * its cap holds no more memory than the cap says.
 */
#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"

enum {
    FIRST_CAPACITY = 256
};

int buffer_reserve(struct buffer *b, size_t more)
{
    if (more > b->limit || b->len > b->limit - more)
        return KV_ELIMIT;
    size_t need = b->len + more;
    if (need <= b->capacity)
        return 0;

    size_t capacity = b->capacity > 0 ? b->capacity : FIRST_CAPACITY;
    while (capacity < need) {
        if (capacity > b->limit / 2) {
            capacity = b->limit;
            break;
        }
        capacity *= 2;
    }
    if (capacity > b->limit)
        capacity = b->limit;
    char *data = realloc(b->data, capacity);
    if (!data)
        return KV_ENOMEM;
    b->data = data;
    b->capacity = capacity;
    return 0;
}

int buffer_append(struct buffer *b, const void *data, size_t len)
{
    if (len == 0)
        return 0;
    int error = buffer_reserve(b, len);
    if (error)
        return error;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

int buffer_append_slice(struct buffer *b, struct slice s)
{
    return buffer_append(b, s.data, s.len);
}

int buffer_append_string(struct buffer *b, const char *string)
{
    return buffer_append(b, string, strlen(string));
}

int buffer_printf(struct buffer *b, const char *format, ...)
{
    char small[512];
    va_list arguments;

    va_start(arguments, format);
    int printed = vsnprintf(small, sizeof(small), format, arguments);
    va_end(arguments);
    if (printed < 0)
        return KV_EINVAL;

    size_t len = (size_t)printed;
    if (len < sizeof(small))
        return buffer_append(b, small, len);
    if (len > b->limit || b->len > b->limit - len)
        return KV_ELIMIT;

    /* Formatted apart and not in place, because vsnprintf's NUL must not need room beyond the limit. */
    char *large = malloc(len + 1);
    if (!large)
        return KV_ENOMEM;
    va_start(arguments, format);
    vsnprintf(large, len + 1, format, arguments);
    va_end(arguments);
    int error = buffer_append(b, large, len);
    free(large);
    return error;
}

void buffer_consume(struct buffer *b, size_t n)
{
    if (n >= b->len) {
        buffer_free(b);
        return;
    }
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

void buffer_free(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){.limit = b->limit};
}
