/*
 * BLAKE3, hash mode, 32 bytes out, portable. Numbers in comments are sections of the BLAKE3 paper.
 *
 * The input is cut into 1024-byte chunks, each a chain of up to 16 compressed blocks. The chunks are the leaves of a
 * binary tree whose left subtrees are always complete, so a stack of at most one subtree a level is all the memory the
 * tree needs: after chunk number n, one merge happens for every trailing zero bit of n, as when counting in binary.
 * The last compression of all is the root and carries the ROOT flag, so it has to be held back until it is known to
 * be the last: that is what struct node is for.
 *
 * The two helpers for secrets at the end live here because this is where secrets are hashed.
 */
#include "base/blake3.h"

#include <string.h>

enum {
    BLOCK_LEN = 64,
    CHUNK_LEN = 1024,
    WORDS = 8,
    ROUNDS = 7
};

/* 2^64 bytes of input have 2^54 chunks: one pending subtree a level. */
enum {
    MAX_DEPTH = 54
};

/* 2.2, table 3 */
enum {
    FLAG_CHUNK_START = 1,
    FLAG_CHUNK_END = 2,
    FLAG_PARENT = 4,
    FLAG_ROOT = 8
};

/* The initial values of SHA-256 (FIPS 180-4, 5.3.3), which BLAKE3 starts from. */
static const uint32_t iv[WORDS] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* One compression that has not run yet. */
struct node {
    uint32_t input[WORDS]; /* chaining value to start from */
    uint32_t block[16];
    uint64_t counter;
    uint32_t block_len;
    uint32_t flags;
};

static uint32_t load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store_le32(uint8_t *p, uint32_t word)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(word >> (8 * i));
}

static uint32_t rotate_right(uint32_t word, unsigned bits)
{
    return word >> bits | word << (32 - bits);
}

static void mix(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d, uint32_t x, uint32_t y)
{
    *a += *b + x;
    *d = rotate_right(*d ^ *a, 16);
    *c += *d;
    *b = rotate_right(*b ^ *c, 12);
    *a += *b + y;
    *d = rotate_right(*d ^ *a, 8);
    *c += *d;
    *b = rotate_right(*b ^ *c, 7);
}

static void mix_round(uint32_t v[16], const uint32_t m[16])
{
    /* columns, then diagonals */
    mix(&v[0], &v[4], &v[8], &v[12], m[0], m[1]);
    mix(&v[1], &v[5], &v[9], &v[13], m[2], m[3]);
    mix(&v[2], &v[6], &v[10], &v[14], m[4], m[5]);
    mix(&v[3], &v[7], &v[11], &v[15], m[6], m[7]);
    mix(&v[0], &v[5], &v[10], &v[15], m[8], m[9]);
    mix(&v[1], &v[6], &v[11], &v[12], m[10], m[11]);
    mix(&v[2], &v[7], &v[8], &v[13], m[12], m[13]);
    mix(&v[3], &v[4], &v[9], &v[14], m[14], m[15]);
}

static void permute(uint32_t m[16])
{
    /* 2.2, table 2 */
    static const uint8_t order[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
    uint32_t old[16];

    memcpy(old, m, sizeof(old));
    for (unsigned i = 0; i < 16; i++)
        m[i] = old[order[i]];
}

/* 2.2: the compression function, truncated to the chaining value. */
static void compress(const struct node *n, uint32_t extra_flags, uint32_t out[WORDS])
{
    uint32_t v[16], m[16];

    memcpy(v, n->input, sizeof(n->input));
    memcpy(v + 8, iv, 4 * sizeof(iv[0]));
    v[12] = (uint32_t)n->counter;
    v[13] = (uint32_t)(n->counter >> 32);
    v[14] = n->block_len;
    v[15] = n->flags | extra_flags;
    memcpy(m, n->block, sizeof(m));
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (round > 0)
            permute(m);
        mix_round(v, m);
    }
    for (unsigned i = 0; i < WORDS; i++)
        out[i] = v[i] ^ v[i + 8];
}

static void load_block(struct node *n, const uint8_t *data, size_t len)
{
    uint8_t padded[BLOCK_LEN] = {0};

    if (len > 0)
        memcpy(padded, data, len);
    for (unsigned i = 0; i < 16; i++)
        n->block[i] = load_le32(padded + (size_t)4 * i);
    n->block_len = (uint32_t)len;
}

/* 2.4: a chunk of at most CHUNK_LEN bytes, all but its last block compressed. */
static struct node chunk_node(const uint8_t *data, size_t len, uint64_t counter)
{
    struct node n = {.counter = counter, .flags = FLAG_CHUNK_START};

    memcpy(n.input, iv, sizeof(n.input));
    while (len > BLOCK_LEN) {
        load_block(&n, data, BLOCK_LEN);
        compress(&n, 0, n.input);
        n.flags = 0;
        data += BLOCK_LEN;
        len -= BLOCK_LEN;
    }
    load_block(&n, data, len);
    n.flags |= FLAG_CHUNK_END;
    return n;
}

/* 2.5 */
static struct node parent_node(const uint32_t left[WORDS], const uint32_t right[WORDS])
{
    struct node n = {.block_len = BLOCK_LEN, .flags = FLAG_PARENT};

    memcpy(n.input, iv, sizeof(n.input));
    memcpy(n.block, left, WORDS * sizeof(left[0]));
    memcpy(n.block + WORDS, right, WORDS * sizeof(right[0]));
    return n;
}

void blake3(const void *data, size_t len, uint8_t out[BLAKE3_LEN])
{
    const uint8_t *next = data;
    uint32_t stack[MAX_DEPTH][WORDS]; /* chaining values of complete subtrees, the largest first */
    size_t depth = 0;
    uint64_t chunks = 0;

    /* Every chunk but the last, which may be short and is not to be merged before the root is known. */
    while (len > CHUNK_LEN) {
        uint32_t value[WORDS];
        struct node n = chunk_node(next, CHUNK_LEN, chunks++);

        compress(&n, 0, value);
        for (uint64_t total = chunks; (total & 1) == 0; total >>= 1) {
            n = parent_node(stack[--depth], value);
            compress(&n, 0, value);
        }
        memcpy(stack[depth++], value, sizeof(value));
        next += CHUNK_LEN;
        len -= CHUNK_LEN;
    }

    uint32_t value[WORDS];
    struct node root = chunk_node(next, len, chunks);
    while (depth > 0) {
        compress(&root, 0, value);
        root = parent_node(stack[--depth], value);
    }
    compress(&root, FLAG_ROOT, value);
    for (unsigned i = 0; i < WORDS; i++)
        store_le32(out + (size_t)4 * i, value[i]);
}

int secret_equals(const void *a, const void *b, size_t len)
{
    const volatile uint8_t *x = a, *y = b;
    uint8_t difference = 0;

    for (size_t i = 0; i < len; i++)
        difference |= (uint8_t)(x[i] ^ y[i]);
    return difference == 0;
}

void secret_wipe(void *data, size_t len)
{
    if (len > 0)
        explicit_bzero(data, len);
}

#define STACK_BYTES (128 * 1024) /* more than the deepest calls between a socket and a message take */

__attribute__((noinline)) void secret_wipe_stack(void)
{
    char stack[STACK_BYTES];
    secret_wipe(stack, sizeof(stack));
}
