/* What a connecting tunnel asks, and how users and tokens are made. */
#include "store/fixture.h"

#include <time.h>

#include "base/blake3.h"

/* Migrated before each; the suite's functions begin with the rows they need. */
static struct fixture *ready(void **state)
{
    struct fixture *f = *state;
    OK(store_migrate(f->store));
    return f;
}

/* ---- making users ---------------------------------------------------------------------------------------------- */

static void test_user_gets_slug(void **state)
{
    struct fixture *f = ready(state);
    char slug[LIMIT_LABEL_BYTES + 1], sql[128];
    OK(store_create_user(f->store, SLICE("Alice@Example.com"), slug));
    assert_int_equal(strlen(slug), strlen("alice-7f0c"));
    assert_memory_equal(slug, "alice-", 6);
    assert_int_equal(strspn(slug + 6, "0123456789abcdef"), 4);
    snprintf(sql, sizeof(sql), "SELECT email FROM users WHERE slug = '%s'", slug);
    assert_sql(f, sql, "alice@example.com");
}

static void test_addresses_are_one_in_any_case(void **state)
{
    struct fixture *f = ready(state);
    char slug[LIMIT_LABEL_BYTES + 1], token[STORE_TOKEN_LEN + 1];
    OK(store_create_user(f->store, SLICE("alice@example.com"), slug));
    assert_int_equal(store_create_user(f->store, SLICE("ALICE@example.COM"), slug), KV_EEXIST);
    assert_sentence(f, "already a user alice@example.com");
    OK(store_issue_token(f->store, SLICE("Alice@Example.Com"), SLICE("x"), token));
}

static void test_mixed_case_of_another_program(void **state)
{
    struct fixture *f = ready(state);
    char slug[LIMIT_LABEL_BYTES + 1], token[STORE_TOKEN_LEN + 1];
    fixture_sql(f, "INSERT INTO users (id, email, slug) VALUES ('11111111-1111-4111-8111-111111111111', "
                   "'Bob@Example.com', 'bob-1111')");
    assert_int_equal(store_create_user(f->store, SLICE("bob@example.com"), slug), KV_EEXIST);
    OK(store_issue_token(f->store, SLICE("BOB@example.com"), SLICE("x"), token));
    /* A second one that differs in case alone: only an exact address says who is meant. */
    fixture_sql(f, "INSERT INTO users (id, email, slug) VALUES ('22222222-2222-4222-8222-222222222222', "
                   "'bob@example.COM', 'bob-2222')");
    assert_int_equal(store_issue_token(f->store, SLICE("bob@example.com"), SLICE("x"), token), KV_EINVAL);
    assert_sentence(f, "different cases");
    struct store_account account;
    OK(store_issue_token(f->store, SLICE("bob@example.COM"), SLICE("x"), token));
    OK(store_authenticate(f->store, slice_of(token), &account));
    assert_string_equal(account.slug, "bob-2222");
}

static void test_bad_address(void **state)
{
    struct fixture *f = ready(state);
    char slug[LIMIT_LABEL_BYTES + 1];
    assert_int_equal(store_create_user(f->store, SLICE("alice"), slug), KV_EINVAL);
    assert_sentence(f, "'alice' is no e-mail address: it has no '@'");
    assert_int_equal(store_create_user(f->store, SLICE(""), slug), KV_EINVAL);
    assert_int_equal(store_create_user(f->store, SLICE("a\xff@b"), slug), KV_EINVAL);
    assert_sql(f, "SELECT count(*) FROM users", "0");
}

static void test_address_that_leaves_no_slug(void **state)
{
    struct fixture *f = ready(state);
    char slug[LIMIT_LABEL_BYTES + 1];
    OK(store_create_user(f->store, SLICE("+@x"), slug));
    assert_memory_equal(slug, "user-", 5);
    OK(store_create_user(f->store, SLICE("\xe6\x97\xa5\xe6\x9c\xac@x.jp"), slug));
    assert_memory_equal(slug, "user-", 5);
    assert_sql(f, "SELECT email FROM users WHERE email LIKE '%.jp'", "\xe6\x97\xa5\xe6\x9c\xac@x.jp");
}

/* A generator that repeats itself: the first `repeats` slugs are 'aaaa', then they count up. */
static unsigned draws, repeats;

static void draw_repeating(char *out, size_t len)
{
    assert_int_equal(len, 2);
    snprintf(out, 5, "%04x", draws < repeats ? 0xaaaaU : draws & 0xffff);
    draws++;
}

static void test_slug_collisions_are_drawn_again(void **state)
{
    struct fixture *f = ready(state);
    char slug[LIMIT_LABEL_BYTES + 1];
    f->store->draw = draw_repeating;
    draws = 0;
    repeats = 1 + 7; /* one that is taken by the first user, and seven collisions of the second */
    OK(store_create_user(f->store, SLICE("alice@a"), slug));
    assert_string_equal(slug, "alice-aaaa");
    OK(store_create_user(f->store, SLICE("alice@b"), slug));
    assert_string_equal(slug, "alice-0008");
    assert_int_equal(draws, 9);
}

static void test_slug_collisions_end(void **state)
{
    struct fixture *f = ready(state);
    char slug[LIMIT_LABEL_BYTES + 1];
    f->store->draw = draw_repeating;
    draws = 0;
    repeats = 1 + 8;
    OK(store_create_user(f->store, SLICE("alice@a"), slug));
    assert_int_equal(store_create_user(f->store, SLICE("alice@b"), slug), KV_ELIMIT);
    assert_int_equal(draws, 9);
    assert_sql(f, "SELECT count(*) FROM users", "1");
}

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

static void test_token_is_kept_as_hash(void **state)
{
    struct fixture *f = ready(state);
    char token[STORE_TOKEN_LEN + 1], sql[256], hex[2 * BLAKE3_LEN + 1];
    uint8_t hash[BLAKE3_LEN];
    fixture_user(f, "alice@example.com", NULL);
    OK(store_issue_token(f->store, SLICE("alice@example.com"), SLICE("laptop"), token));
    assert_int_equal(strlen(token), 52);
    assert_int_equal(strspn(token, "abcdefghijklmnopqrstuvwxyz234567"), 52);
    blake3(token, strlen(token), hash);
    for (size_t i = 0; i < sizeof(hash); i++)
        snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    snprintf(sql, sizeof(sql),
             f->postgres ? "SELECT name FROM api_tokens WHERE encode(token_hash, 'hex') = '%s'"
                         : "SELECT name FROM api_tokens WHERE lower(hex(token_hash)) = '%s'",
             hex);
    assert_sql(f, sql, "laptop");
    assert_int_equal(store_issue_token(f->store, SLICE("nobody@example.com"), SLICE("x"), token), KV_ENOTFOUND);
    assert_int_equal(store_issue_token(f->store, SLICE("alice@example.com"), SLICE(""), token), KV_EINVAL);
}

static void test_authenticate(void **state)
{
    struct fixture *f = ready(state);
    struct store_account account;
    char token[STORE_TOKEN_LEN + 1];
    fixture_user(f, "alice@example.com", "alice");
    OK(store_issue_token(f->store, SLICE("alice@example.com"), SLICE("x"), token));
    OK(store_authenticate(f->store, slice_of(token), &account));
    assert_string_equal(account.email, "alice@example.com");
    assert_string_equal(account.slug, "alice");
    assert_int_equal(strlen(account.user_id), STORE_ID_LEN);
    assert_int_equal(strlen(account.token_id), STORE_ID_LEN);

    char longest[LIMIT_TOKEN_BYTES + 1];
    memset(longest, 'a', sizeof(longest));
    assert_int_equal(store_authenticate(f->store, SLICE(""), &account), KV_EREFUSED);
    assert_string_equal(store_error(f->store), "invalid token");
    assert_int_equal(store_authenticate(f->store, SLICE("nonsense\0\xff"), &account), KV_EREFUSED);
    assert_int_equal(store_authenticate(f->store, (struct slice){longest, sizeof(longest)}, &account), KV_EREFUSED);
    token[0] = token[0] == 'a' ? 'b' : 'a';
    assert_int_equal(store_authenticate(f->store, slice_of(token), &account), KV_EREFUSED);
    assert_string_equal(account.user_id, "");
}

static void test_token_expires(void **state)
{
    struct fixture *f = ready(state);
    struct store_account account;
    char token[STORE_TOKEN_LEN + 1], id[STORE_ID_LEN + 1];
    fixture_user(f, "alice@example.com", NULL);
    assert_int_equal(
        store_issue_token_until(f->store, SLICE("alice@example.com"), SLICE("x"), store_now() - 1, token, id),
        KV_EINVAL);
    OK(store_issue_token_until(f->store, SLICE("alice@example.com"), SLICE("x"), store_now() + 3600, token, id));
    OK(store_authenticate(f->store, slice_of(token), &account));
    assert_string_equal(account.token_id, id);
    fixture_sql(f, "UPDATE api_tokens SET expires_at = '2020-01-01 00:00:00'");
    assert_int_equal(store_authenticate(f->store, slice_of(token), &account), KV_EREFUSED);
    fixture_sql(f, "UPDATE api_tokens SET expires_at = '2999-01-01 00:00:00'");
    OK(store_authenticate(f->store, slice_of(token), &account));
}

static void test_last_use_is_noted_once_a_minute(void **state)
{
    struct fixture *f = ready(state);
    struct store_account account;
    char token[STORE_TOKEN_LEN + 1], first[64], recent[STORE_TIME_LEN + 1], sql[128];
    fixture_user(f, "alice@example.com", NULL);
    OK(store_issue_token(f->store, SLICE("alice@example.com"), SLICE("x"), token));
    assert_sql(f, "SELECT count(*) FROM api_tokens WHERE last_used_at IS NULL", "1");
    OK(store_authenticate(f->store, slice_of(token), &account));
    assert_sql(f, "SELECT count(*) FROM api_tokens WHERE last_used_at IS NULL", "0");

    store_time_format(store_now() - 50, recent);
    snprintf(sql, sizeof(sql), "UPDATE api_tokens SET last_used_at = '%s'", recent);
    fixture_sql(f, sql);
    fixture_ask(f, "SELECT last_used_at FROM api_tokens", first, sizeof(first));
    OK(store_authenticate(f->store, slice_of(token), &account));
    assert_sql(f, "SELECT last_used_at FROM api_tokens", first);

    fixture_sql(f, "UPDATE api_tokens SET last_used_at = '2020-01-01 00:00:00'");
    OK(store_authenticate(f->store, slice_of(token), &account));
    assert_sql(f, "SELECT count(*) FROM api_tokens WHERE last_used_at < '2021-01-01'", "0");
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static void test_name_is_stored_once(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "alice@example.com", "alice-7f0c");
    struct store_account alice = fixture_account(f, "alice@example.com");
    OK(store_claim_name(f->store, &alice, SLICE("laptop"), subdomain));
    assert_string_equal(subdomain, "laptop-alice-7f0c");
    OK(store_claim_name(f->store, &alice, SLICE("laptop"), subdomain));
    assert_string_equal(subdomain, "laptop-alice-7f0c");
    OK(store_claim_name(f->store, &alice, SLICE("desktop"), subdomain));
    assert_string_equal(subdomain, "desktop-alice-7f0c");
    assert_sql(f, "SELECT count(*) FROM tunnels", "2");
}

static void test_users_have_names_of_their_own(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "alice@example.com", "alice-7f0c");
    fixture_user(f, "bob@example.com", "bob-3b9e");
    struct store_account alice = fixture_account(f, "alice@example.com"), bob = fixture_account(f, "bob@example.com");
    OK(store_claim_name(f->store, &alice, SLICE("laptop"), subdomain));
    OK(store_claim_name(f->store, &bob, SLICE("laptop"), subdomain));
    assert_string_equal(subdomain, "laptop-bob-3b9e");
}

static void test_two_users_meet_in_one_subdomain(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "c");
    fixture_user(f, "b@x", "b-c");
    struct store_account first = fixture_account(f, "a@x"), second = fixture_account(f, "b@x");
    OK(store_claim_name(f->store, &first, SLICE("a-b"), subdomain));
    assert_string_equal(subdomain, "a-b-c");
    assert_int_equal(store_claim_name(f->store, &second, SLICE("a"), subdomain), KV_EEXIST);
    assert_sentence(f, "'a-b-c' of name 'a' belongs to another account");
    assert_sql(f, "SELECT count(*) FROM tunnels", "1");
    OK(store_claim_name(f->store, &first, SLICE("a-b"), subdomain));
}

static void test_own_names_meet_in_one_subdomain(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "a");
    struct store_account account = fixture_account(f, "a@x");
    OK(store_claim_name(f->store, &account, SLICE("laptop"), subdomain));
    fixture_sql(f, "UPDATE tunnels SET subdomain = 'desktop-a'");
    assert_int_equal(store_claim_name(f->store, &account, SLICE("desktop"), subdomain), KV_EEXIST);
    assert_sentence(f, "already that of your name 'laptop'");
}

static void test_names_that_are_no_label(void **state)
{
    struct fixture *f = ready(state);
    static const char *const names[] = {
        "",         "-a",  "A", "a.b", "a b",
        "\xc3\xbc", "a\n", "#", "a_b", "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"};
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "a");
    struct store_account account = fixture_account(f, "a@x");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(store_claim_name(f->store, &account, slice_of(names[i]), subdomain), KV_EINVAL);
        assert_true(strlen(store_error(f->store)) > 10);
    }
    assert_int_equal(store_claim_name(f->store, &account, (struct slice){"a\0b", 3}, subdomain), KV_EINVAL);
    assert_sql(f, "SELECT count(*) FROM tunnels", "0");
}

static void test_random_names_avoid_stored_ones(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "fox-3947");
    struct store_account account = fixture_account(f, "a@x");
    OK(store_subdomain_is_free(f->store, SLICE("quick-fox-3947")));
    OK(store_claim_name(f->store, &account, SLICE("quick"), subdomain));
    assert_int_equal(store_subdomain_is_free(f->store, SLICE("quick-fox-3947")), KV_EEXIST);
    OK(store_release_name(f->store, SLICE("a@x"), SLICE("quick")));
    assert_int_equal(store_subdomain_is_free(f->store, SLICE("quick-fox-3947")), KV_EEXIST);
}

/* ---- the operator's SQL ---------------------------------------------------------------------------------------- */

static void test_rewritten_slug_and_subdomains(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "alice@example.com", "alice-7f0c");
    struct store_account alice = fixture_account(f, "alice@example.com");
    OK(store_claim_name(f->store, &alice, SLICE("laptop"), subdomain));
    fixture_sql(f, "UPDATE users SET slug = 'alice' WHERE email = 'alice@example.com';");

    /* Only the slug: the stored name stays, a new one has the new slug, whatever the account struct remembers. */
    OK(store_claim_name(f->store, &alice, SLICE("laptop"), subdomain));
    assert_string_equal(subdomain, "laptop-alice-7f0c");
    OK(store_claim_name(f->store, &alice, SLICE("desktop"), subdomain));
    assert_string_equal(subdomain, "desktop-alice");

    fixture_sql(f, "UPDATE tunnels SET subdomain = REPLACE(subdomain, '-alice-7f0c', '-alice')\n"
                   "WHERE subdomain LIKE '%-alice-7f0c';");
    OK(store_claim_name(f->store, &alice, SLICE("laptop"), subdomain));
    assert_string_equal(subdomain, "laptop-alice");
    assert_sql(f, "SELECT count(*) FROM tunnels", "2");
}

static void test_stored_nonsense_is_said(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "a");
    struct store_account account = fixture_account(f, "a@x");
    OK(store_claim_name(f->store, &account, SLICE("laptop"), subdomain));
    fixture_sql(f, "UPDATE tunnels SET subdomain = 'Laptop.A'");
    assert_int_equal(store_claim_name(f->store, &account, SLICE("laptop"), subdomain), KV_EINVAL);
    assert_sentence(f, "'Laptop.A'");
    fixture_sql(f, "UPDATE users SET slug = 'Not A Slug'");
    assert_int_equal(store_claim_name(f->store, &account, SLICE("other"), subdomain), KV_EINVAL);
    assert_sentence(f, "the operator has to set another");
}

#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, test_##name, ON_BOTH                                                                                    \
    }

int main(int argc, char **argv)
{
    static const struct fixture_test tests[] = {
        TEST(user_gets_slug),
        TEST(addresses_are_one_in_any_case),
        TEST(mixed_case_of_another_program),
        TEST(bad_address),
        TEST(address_that_leaves_no_slug),
        TEST(slug_collisions_are_drawn_again),
        TEST(slug_collisions_end),
        TEST(token_is_kept_as_hash),
        TEST(authenticate),
        TEST(token_expires),
        TEST(last_use_is_noted_once_a_minute),
        TEST(name_is_stored_once),
        TEST(users_have_names_of_their_own),
        TEST(two_users_meet_in_one_subdomain),
        TEST(own_names_meet_in_one_subdomain),
        TEST(names_that_are_no_label),
        TEST(random_names_avoid_stored_ones),
        TEST(rewritten_slug_and_subdomains),
        TEST(stored_nonsense_is_said),
    };
    return fixture_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
