/*
 * What addresses, slugs and names are made of: pure functions over bytes, the same for every back end.
 * docs/ACCOUNTS.md tells operators.
 */
#ifndef KV_STORE_RULES_H
#define KV_STORE_RULES_H

#include <stdbool.h>

#include "base/limits.h"
#include "base/slice.h"

/* The longest slug: with a name of the same length and the hyphen between them it fills a label of 63. */
#define RULES_SLUG_BYTES      31
#define RULES_SLUG_HEX        4 /* digits behind the base: 2 random bytes */
#define RULES_SLUG_BASE_BYTES (RULES_SLUG_BYTES - 1 - RULES_SLUG_HEX)

/* Checks an e-mail address and writes it with A-Z lowered, the form that is stored and compared. NULL, or why it is no
 * address, as the end of a sentence ("it has no '@'"). */
const char *rules_email(struct slice email, char out[LIMIT_EMAIL_BYTES + 1]);

/* The base of a slug: the local part of an address that rules_email() gave, lowered, [a-z0-9-] kept, hyphens at the
 * ends trimmed, cut; "user" when nothing is left. */
void rules_slug_base(const char *email, char out[RULES_SLUG_BASE_BYTES + 1]);

/* One DNS label as tunnels use them: [a-z0-9-], 1 to 63 octets, no hyphen at either end. */
bool rules_is_label(struct slice label);

/* Whether an operator may set this slug. NULL, or why not, as rules_email(). */
const char *rules_slug(struct slice slug);

/* What a token may be called: 1 to RULES_TOKEN_NAME_BYTES octets of UTF-8 text without control characters. NULL, or why
 * not, as rules_email(). */
#define RULES_TOKEN_NAME_BYTES 100
const char *rules_token_name(struct slice name);

/* Makes `<name>-<slug>`. False when that is no label, or one that IDNA reserves (RFC 5891, 4.2.3.1), with a sentence
 * for the user in why[size]. */
bool rules_subdomain(struct slice name, const char *slug, char out[LIMIT_LABEL_BYTES + 1], char *why, size_t size);

/* 8-4-4-4-12 hex digits. */
bool rules_is_uuid(struct slice text);

#endif
