/* What operators do to accounts: the lives of users, tokens and names, check, export and import. */
#include "store/fixture.h"

#include "store/store_transfer.h"

static struct fixture *ready(void **state)
{
    struct fixture *f = *state;
    OK(store_migrate(f->store));
    return f;
}

static void note_problem(void *arg, const char *sentence)
{
    (void)arg;
    assert_true(strlen(sentence) > 20);
}

static int problems(struct fixture *f)
{
    return store_check(f->store, note_problem, NULL);
}

static struct store_account claim(struct fixture *f, const char *email, const char *name, const char *subdomain)
{
    char got[LIMIT_LABEL_BYTES + 1];
    struct store_account account = fixture_account(f, email);
    OK(store_claim_name(f->store, &account, slice_of(name), got));
    assert_string_equal(got, subdomain);
    return account;
}

/* ---- users ----------------------------------------------------------------------------------------------------- */

static int note_users(void *arg, const struct store_user *user)
{
    char *text = arg;
    snprintf(text + strlen(text), 400 - strlen(text), "%s %s %lu %lu %s;", user->email, user->slug, user->tokens,
             user->names, user->disabled_at[0] ? "disabled" : "enabled");
    assert_int_equal(strlen(user->created_at), STORE_TIME_LEN);
    return KV_OK;
}

static void test_list_and_disable(void **state)
{
    struct fixture *f = ready(state);
    char text[400] = "", token[STORE_TOKEN_LEN + 1];
    struct store_account account;
    fixture_user(f, "bob@x", "bob");
    fixture_user(f, "alice@x", "alice");
    claim(f, "alice@x", "laptop", "laptop-alice");
    OK(store_issue_token(f->store, SLICE("alice@x"), SLICE("two"), token));
    OK(store_disable_user(f->store, SLICE("Alice@x"), true));
    OK(store_disable_user(f->store, SLICE("alice@x"), true));
    OK(store_list_users(f->store, note_users, text));
    assert_string_equal(text, "alice@x alice 2 1 disabled;bob@x bob 0 0 enabled;");

    assert_int_equal(store_authenticate(f->store, slice_of(token), &account), KV_EREFUSED);
    assert_int_equal(store_issue_token(f->store, SLICE("alice@x"), SLICE("three"), token + 0), KV_EREFUSED);
    OK(store_disable_user(f->store, SLICE("alice@x"), false));
    OK(store_issue_token(f->store, SLICE("alice@x"), SLICE("three"), token));
    OK(store_authenticate(f->store, slice_of(token), &account));
    assert_int_equal(store_disable_user(f->store, SLICE("carol@x"), true), KV_ENOTFOUND);
}

static void test_deleted_user_keeps_names_from_others(void **state)
{
    struct fixture *f = ready(state);
    char text[400] = "", subdomain[LIMIT_LABEL_BYTES + 1], slug[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "c");
    struct store_account gone = claim(f, "a@x", "a-b", "a-b-c");
    OK(store_delete_user(f->store, SLICE("A@x")));
    assert_int_equal(store_delete_user(f->store, SLICE("a@x")), KV_ENOTFOUND);
    assert_sql(f, "SELECT count(*) FROM api_tokens", "0");
    assert_sql(f, "SELECT count(*) FROM users WHERE email = 'a@x'", "0");
    OK(store_list_users(f->store, note_users, text));
    assert_string_equal(text, "");
    assert_int_equal(store_claim_name(f->store, &gone, SLICE("a-b"), subdomain), KV_EREFUSED);
    assert_int_equal(store_claim_name(f->store, &gone, SLICE("new"), subdomain), KV_EREFUSED);

    fixture_user(f, "b@x", "b-c");
    struct store_account other = fixture_account(f, "b@x");
    assert_int_equal(store_claim_name(f->store, &other, SLICE("a"), subdomain), KV_EEXIST);
    /* The address is free for a new account, which is another one. */
    OK(store_create_user(f->store, SLICE("a@x"), slug));
    assert_int_equal(problems(f), 0);
}

/* ---- slugs ----------------------------------------------------------------------------------------------------- */

static void test_set_slug(void **state)
{
    struct fixture *f = ready(state);
    unsigned rewritten;
    fixture_user(f, "alice@x", "alice-7f0c");
    fixture_user(f, "bob@x", "bob");
    claim(f, "alice@x", "laptop", "laptop-alice-7f0c");
    OK(store_set_slug(f->store, SLICE("alice@x"), SLICE("al"), false, &rewritten));
    assert_int_equal(rewritten, 0);
    claim(f, "alice@x", "laptop", "laptop-alice-7f0c");
    claim(f, "alice@x", "desktop", "desktop-al");

    assert_int_equal(store_set_slug(f->store, SLICE("alice@x"), SLICE("bob"), true, &rewritten), KV_EEXIST);
    assert_sentence(f, "'bob' belongs to another user");
    assert_int_equal(store_set_slug(f->store, SLICE("alice@x"), SLICE("-"), true, &rewritten), KV_EINVAL);
    assert_int_equal(store_set_slug(f->store, SLICE("carol@x"), SLICE("carol"), true, &rewritten), KV_ENOTFOUND);
    OK(store_set_slug(f->store, SLICE("alice@x"), SLICE("al"), true, &rewritten));
    assert_sql(f, "SELECT slug FROM users WHERE email = 'alice@x'", "al");
}

static void test_set_slug_rewrites_names(void **state)
{
    struct fixture *f = ready(state);
    char subdomain[LIMIT_LABEL_BYTES + 1];
    unsigned rewritten;
    fixture_user(f, "alice@x", "alice-7f0c");
    claim(f, "alice@x", "laptop", "laptop-alice-7f0c");
    claim(f, "alice@x", "desktop", "desktop-alice-7f0c");
    fixture_sql(f, "UPDATE tunnels SET subdomain = 'chosen-by-hand' WHERE name = 'desktop'");
    OK(store_set_slug(f->store, SLICE("alice@x"), SLICE("alice"), true, &rewritten));
    assert_int_equal(rewritten, 1);
    claim(f, "alice@x", "laptop", "laptop-alice");
    claim(f, "alice@x", "desktop", "chosen-by-hand");

    /* What she had before stays hers. */
    fixture_user(f, "eve@x", "alice-7f0c");
    struct store_account eve = fixture_account(f, "eve@x");
    assert_int_equal(store_claim_name(f->store, &eve, SLICE("laptop"), subdomain), KV_EEXIST);
    fixture_sql(f, "UPDATE users SET slug = 'eve' WHERE email = 'eve@x'");
    OK(store_set_slug(f->store, SLICE("alice@x"), SLICE("alice-7f0c"), true, &rewritten));
    assert_int_equal(rewritten, 1);
    claim(f, "alice@x", "laptop", "laptop-alice-7f0c");
    assert_int_equal(problems(f), 0);
}

static void test_set_slug_is_all_or_nothing(void **state)
{
    struct fixture *f = ready(state);
    unsigned rewritten;
    fixture_user(f, "b@x", "b-c");
    claim(f, "b@x", "a", "a-b-c");
    fixture_user(f, "a@x", "old");
    claim(f, "a@x", "a-a", "a-a-old");
    claim(f, "a@x", "a-b", "a-b-old");
    assert_int_equal(store_set_slug(f->store, SLICE("a@x"), SLICE("c"), true, &rewritten), KV_EEXIST);
    assert_sentence(f, "'a-b-c' is taken");
    assert_sql(f, "SELECT slug FROM users WHERE email = 'a@x'", "old");
    assert_sql(f, "SELECT subdomain FROM tunnels WHERE name = 'a-a'", "a-a-old");

    char longest[62];
    memset(longest, 's', 61);
    longest[61] = '\0';
    assert_int_equal(store_set_slug(f->store, SLICE("a@x"), slice_of(longest), true, &rewritten), KV_EINVAL);
    assert_sql(f, "SELECT slug FROM users WHERE email = 'a@x'", "old");
}

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

static int note_tokens(void *arg, const struct store_token *token)
{
    char *text = arg;
    snprintf(text + strlen(text), 400 - strlen(text), "%s/%s/%s/%s;", token->email, token->name, token->last_used_at,
             token->expires_at);
    return KV_OK;
}

static void test_list_and_revoke_tokens(void **state)
{
    struct fixture *f = ready(state);
    char text[400] = "", token[3][STORE_TOKEN_LEN + 1], id[STORE_ID_LEN + 1];
    struct store_account account;
    unsigned revoked;
    fixture_user(f, "alice@x", NULL);
    fixture_user(f, "bob@x", NULL);
    OK(store_issue_token_until(f->store, SLICE("bob@x"), SLICE("ci"), 4102444800, token[0], id));
    OK(store_issue_token(f->store, SLICE("alice@x"), SLICE("home"), token[1]));
    OK(store_issue_token(f->store, SLICE("alice@x"), SLICE("home"), token[2]));
    OK(store_list_tokens(f->store, SLICE(""), note_tokens, text));
    assert_string_equal(text, "alice@x/home//;alice@x/home//;bob@x/ci//2100-01-01T00:00:00Z;");
    text[0] = '\0';
    OK(store_list_tokens(f->store, SLICE("BOB@x"), note_tokens, text));
    assert_string_equal(text, "bob@x/ci//2100-01-01T00:00:00Z;");
    assert_int_equal(store_list_tokens(f->store, SLICE("carol@x"), note_tokens, text), KV_ENOTFOUND);

    OK(store_revoke_token(f->store, slice_of(id)));
    assert_int_equal(store_authenticate(f->store, slice_of(token[0]), &account), KV_EREFUSED);
    assert_int_equal(store_revoke_token(f->store, slice_of(id)), KV_ENOTFOUND);
    assert_int_equal(store_revoke_token(f->store, SLICE("1; DROP TABLE users")), KV_EINVAL);
    OK(store_revoke_tokens_named(f->store, SLICE("alice@x"), SLICE("home"), &revoked));
    assert_int_equal(revoked, 2);
    assert_int_equal(store_revoke_tokens_named(f->store, SLICE("alice@x"), SLICE("home"), &revoked), KV_ENOTFOUND);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static int note_names(void *arg, const struct store_name *name)
{
    char *text = arg;
    snprintf(text + strlen(text), 400 - strlen(text), "%s/%s/%s/%s;", name->email, name->name, name->subdomain,
             name->released_at[0] ? "released" : "held");
    return KV_OK;
}

static void test_released_name_goes_to_its_own_account(void **state)
{
    struct fixture *f = ready(state);
    char text[400] = "", subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "c");
    fixture_user(f, "b@x", "b-c");
    claim(f, "a@x", "a-b", "a-b-c");
    claim(f, "a@x", "other", "other-c");
    OK(store_release_name(f->store, SLICE("a@x"), SLICE("a-b")));
    assert_int_equal(store_release_name(f->store, SLICE("a@x"), SLICE("a-b")), KV_ENOTFOUND);
    OK(store_list_names(f->store, SLICE("a@x"), false, note_names, text));
    assert_string_equal(text, "a@x/other/other-c/held;");
    text[0] = '\0';
    OK(store_list_names(f->store, SLICE(""), true, note_names, text));
    assert_string_equal(text, "a@x/other/other-c/held;a@x/a-b/a-b-c/released;");

    struct store_account other = fixture_account(f, "b@x");
    assert_int_equal(store_claim_name(f->store, &other, SLICE("a"), subdomain), KV_EEXIST);
    claim(f, "a@x", "a-b", "a-b-c");
    text[0] = '\0';
    OK(store_list_names(f->store, SLICE("a@x"), true, note_names, text));
    assert_string_equal(text, "a@x/a-b/a-b-c/held;a@x/other/other-c/held;");
    assert_int_equal(problems(f), 0);
}

static void test_released_name_is_made_of_the_new_slug(void **state)
{
    struct fixture *f = ready(state);
    unsigned rewritten;
    fixture_user(f, "alice@x", "alice-7f0c");
    claim(f, "alice@x", "laptop", "laptop-alice-7f0c");
    OK(store_set_slug(f->store, SLICE("alice@x"), SLICE("alice"), false, &rewritten));
    OK(store_release_subdomain(f->store, SLICE("laptop-alice-7f0c")));
    assert_int_equal(store_release_subdomain(f->store, SLICE("laptop-alice-7f0c")), KV_ENOTFOUND);
    claim(f, "alice@x", "laptop", "laptop-alice");
    assert_sql(f, "SELECT count(*) FROM tunnels", "2");
}

static void test_mark_of_a_released_row_is_no_name(void **state)
{
    struct fixture *f = ready(state);
    char mark[64], subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "a");
    struct store_account account = claim(f, "a@x", "laptop", "laptop-a");
    OK(store_release_name(f->store, SLICE("a@x"), SLICE("laptop")));
    fixture_ask(f, "SELECT name FROM tunnels", mark, sizeof(mark));
    assert_int_equal(mark[0], '#');
    assert_int_equal(store_claim_name(f->store, &account, slice_of(mark), subdomain), KV_EINVAL);
    assert_int_equal(store_release_name(f->store, SLICE("a@x"), slice_of(mark)), KV_ENOTFOUND);
}

/* ---- check ----------------------------------------------------------------------------------------------------- */

static void test_check_finds_what_is_wrong(void **state)
{
    struct fixture *f = ready(state);
    fixture_user(f, "a@x", "a");
    claim(f, "a@x", "laptop", "laptop-a");
    assert_int_equal(problems(f), 0);
    fixture_sql(f, "UPDATE tunnels SET subdomain = 'Not.A.Label'");
    assert_int_equal(problems(f), 1);
    fixture_sql(f, "UPDATE users SET slug = 'No Slug'");
    assert_int_equal(problems(f), 2);
    fixture_sql(f, "INSERT INTO users (id, email, slug) VALUES ('11111111-1111-4111-8111-111111111111', 'A@x', 'a2')");
    assert_int_equal(problems(f), 3);
    fixture_sql(f, "UPDATE tunnels SET released_at = '2026-01-01'");
    assert_int_equal(problems(f), 4);
    fixture_sql(f, "UPDATE users SET email = 'nonsense' WHERE email = 'A@x'");
    assert_int_equal(problems(f), 4);
    fixture_sql(f, "UPDATE users SET deleted_at = '2026-01-01' WHERE email = 'nonsense'");
    assert_int_equal(problems(f), 3);
}

static void test_check_finds_orphans(void **state)
{
    struct fixture *f = ready(state);
    fixture_user(f, "a@x", "a");
    claim(f, "a@x", "laptop", "laptop-a");
    fixture_sql(f, "DELETE FROM users"); /* a connection of its own, where foreign keys are off */
    assert_true(problems(f) >= 2);
}

static void test_check_finds_damage(void **state)
{
    struct fixture *f = ready(state);
    char email[32];
    for (int i = 0; i < 200; i++) {
        snprintf(email, sizeof(email), "user%d@example.com", i);
        fixture_user(f, email, NULL);
    }
    store_close(f->store);
    FILE *file = fopen(f->path, "r+b");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    for (long at = ftell(file) - 3000; at > 8192; at -= 4096) {
        fseek(file, at, SEEK_SET);
        fputs("damage", file);
    }
    fclose(file);
    f->store = fixture_open(f);
    int found = problems(f);
    assert_true(found != 0); /* many, or KV_EUNAVAIL when it is too bad to be read */
    if (found < 0)
        assert_sentence(f, "malformed");
}

/* ---- export and import ----------------------------------------------------------------------------------------- */

struct copying {
    struct store *to;
    int rows;
};

static int copy_row(void *arg, const struct transfer_kind *kind, const struct slice *values)
{
    struct copying *copying = arg;
    copying->rows++;
    return store_import_row(copying->to, kind, values);
}

/* To the same back end and to SQLite; the way to the other back end is in the system tests. */
static void test_export_is_imported(void **state)
{
    struct fixture *f = ready(state);
    char path[128], url[160], error[STORE_ERROR_LEN] = "", token[STORE_TOKEN_LEN + 1], subdomain[LIMIT_LABEL_BYTES + 1];
    struct store_account account;
    fixture_user(f, "gone@x", "gone");
    claim(f, "gone@x", "old", "old-gone");
    OK(store_delete_user(f->store, SLICE("gone@x")));
    fixture_user(f, "alice@x", "alice");
    claim(f, "alice@x", "laptop", "laptop-alice");
    OK(store_issue_token(f->store, SLICE("alice@x"), SLICE("b\xc3\xbcro \"1\""), token));

    snprintf(path, sizeof(path), "%s/copy.db", f->folder);
    snprintf(url, sizeof(url), "sqlite:%s", path);
    struct copying copying = {.to = store_open(url, error)};
    assert_non_null(copying.to);
    OK(store_migrate(copying.to));
    OK(store_import_begin(copying.to));
    OK(store_export(f->store, copy_row, &copying));
    OK(store_import_commit(copying.to));
    assert_int_equal(copying.rows, 2 + 2 + 2);

    OK(store_authenticate(copying.to, slice_of(token), &account));
    OK(store_claim_name(copying.to, &account, SLICE("laptop"), subdomain));
    assert_string_equal(subdomain, "laptop-alice");
    assert_int_equal(store_subdomain_is_free(copying.to, SLICE("old-gone")), KV_EEXIST);

    /* A second time it collides, and then nothing of it stays. */
    OK(store_import_begin(copying.to));
    assert_int_equal(store_export(f->store, copy_row, &copying), KV_EEXIST);
    store_import_abandon(copying.to);
    assert_int_equal(store_check(copying.to, note_problem, NULL), 0);
    store_close(copying.to);
}

static void test_import_refuses_nonsense(void **state)
{
    struct fixture *f = ready(state);
    const struct transfer_kind *user = transfer_kind_at(0), *token = transfer_kind_at(1);
    const struct slice id = SLICE("11111111-1111-4111-8111-111111111111"), when = SLICE("2026-01-01T00:00:00Z");
    assert_null(transfer_kind_at(3));
    OK(store_import_begin(f->store));
    assert_int_equal(
        store_import_row(f->store, user, (struct slice[]){SLICE("x"), SLICE("a@x"), SLICE("a"), when, {0}, {0}}),
        KV_EINVAL);
    assert_sentence(f, "\"id\" of a user");
    store_import_abandon(f->store);
    OK(store_import_begin(f->store));
    assert_int_equal(store_import_row(f->store, user, (struct slice[]){id, {0}, SLICE("a"), when, {0}, {0}}),
                     KV_EINVAL);
    store_import_abandon(f->store);
    OK(store_import_begin(f->store));
    assert_int_equal(
        store_import_row(f->store, token, (struct slice[]){id, id, SLICE("beef"), SLICE("n"), when, {0}, {0}}),
        KV_EINVAL);
    store_import_abandon(f->store);
    OK(store_import_begin(f->store));
    struct slice hash = SLICE("0000000000000000000000000000000000000000000000000000000000000000");
    assert_int_equal(store_import_row(f->store, token, (struct slice[]){id, id, hash, SLICE("n"), when, {0}, {0}}),
                     KV_ENOTFOUND);
    store_import_abandon(f->store);
    assert_sql(f, "SELECT count(*) FROM api_tokens", "0");
}

#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, test_##name, ON_BOTH                                                                                    \
    }

int main(int argc, char **argv)
{
    static const struct fixture_test tests[] = {
        TEST(list_and_disable),
        TEST(deleted_user_keeps_names_from_others),
        TEST(set_slug),
        TEST(set_slug_rewrites_names),
        TEST(set_slug_is_all_or_nothing),
        TEST(list_and_revoke_tokens),
        TEST(released_name_goes_to_its_own_account),
        TEST(released_name_is_made_of_the_new_slug),
        TEST(mark_of_a_released_row_is_no_name),
        TEST(check_finds_what_is_wrong),
        {"check_finds_orphans", test_check_finds_orphans, ON_SQLITE},
        {"check_finds_damage", test_check_finds_damage, ON_SQLITE},
        TEST(export_is_imported),
        TEST(import_refuses_nonsense),
    };
    return fixture_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
