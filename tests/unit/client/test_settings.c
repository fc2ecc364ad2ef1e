/* The settings file: what is read, what is kept when it is written, who may read it, and which place wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "client/settings.h"
#include "io/certs.h"

struct fixture {
    char home[64];
    char folder[128];
    char path[192];
};

static int set_up(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    snprintf(f->home, sizeof(f->home), "/tmp/kavilo-test-settings-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    snprintf(f->folder, sizeof(f->folder), "%s/.kavilo-tunnel", f->home);
    snprintf(f->path, sizeof(f->path), "%s/config.yml", f->folder);
    setenv("HOME", f->home, 1);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    chmod(f->folder, 0700);
    unlink(f->path);
    rmdir(f->path);
    rmdir(f->folder);
    int result = rmdir(f->home); /* fails when a test left a file behind */
    test_free(f);
    return result;
}

static void put(const struct fixture *f, const char *text, mode_t mode)
{
    mkdir(f->folder, 0700);
    FILE *file = fopen(f->path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(f->path, mode), 0);
}

static void assert_file(const struct fixture *f, const char *expected)
{
    char text[2048];
    FILE *file = fopen(f->path, "r");
    assert_non_null(file);
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    assert_string_equal(text, expected);
}

static void assert_text(const char *value, const char *expected)
{
    if (expected)
        assert_non_null(value);
    if (expected)
        assert_string_equal(value, expected);
    else
        assert_null(value);
}

/* ---- where ----------------------------------------------------------------------------------------------------- */

static void lies_in_the_home(void **state)
{
    struct fixture *f = *state;
    char path[PATH_MAX];
    assert_int_equal(settings_path(path, sizeof(path)), 0);
    assert_string_equal(path, f->path);
    assert_int_equal(settings_path(path, strlen(f->path)), KV_ELIMIT);
    assert_int_equal(settings_path(path, strlen(f->path) + 1), 0);
    unsetenv("HOME"); /* then the account's */
    assert_int_equal(settings_path(path, sizeof(path)), 0);
    assert_int_equal(path[0], '/');
    setenv("HOME", "not/absolute", 1);
    assert_int_equal(settings_path(path, sizeof(path)), 0);
    assert_int_equal(path[0], '/');
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    const char *endpoint, *token, *ca_cert;
} readable[] = {
    {"", NULL, NULL, NULL},
    {"# nothing yet\n", NULL, NULL, NULL},
    {"endpoint: http://a:1\ntoken: abc\nca_cert: /x.pem\n", "http://a:1", "abc", "/x.pem"},
    {"token: \"a b\"\n", NULL, "a b", NULL},
    {"token: 'abc'", NULL, "abc", NULL},
    {"token: 1234\n", NULL, "1234", NULL},
    {"token: ~\nendpoint:\nca_cert: \"\"\n", NULL, NULL, NULL},
    {"{token: abc, unknown: [1, {a: b}]}", NULL, "abc", NULL},
    {"token: abc\nto: 1\ntoast: 2\nca: {tokne: 3}\nkey: 4\n", NULL, "abc", NULL},
    {"later:\n  - x\n  - {y: z}\ntoken: abc # mine\n", NULL, "abc", NULL},
    {"---\ntoken: abc\n...\n", NULL, "abc", NULL},
};

static void reads(void **state)
{
    struct fixture *f = *state;
    struct settings_file file;
    char error[SETTINGS_ERROR_LEN];
    assert_int_equal(settings_read(f->path, &file, error), 0); /* not even the folder is there */
    assert_null(file.token);
    for (size_t i = 0; i < sizeof(readable) / sizeof(readable[0]); i++) {
        put(f, readable[i].text, 0600);
        if (settings_read(f->path, &file, error) != 0)
            fail_msg("%s", error);
        assert_string_equal(error, "");
        assert_text(file.endpoint, readable[i].endpoint);
        assert_text(file.token, readable[i].token);
        assert_text(file.ca_cert, readable[i].ca_cert);
        settings_file_free(&file);
        assert_null(file.token);
    }
}

static const struct {
    const char *text, *sentence; /* behind "settings file '<path>'" */
} unreadable[] = {
    {"endpoint: http://a\ntoken: \"s3cret\n", ", line 2: found unexpected end of stream"},
    {"token: [s3cret]\n", ", line 1: a single text is expected as the value"},
    {"endpoint: a\ntoken:\n  s3cret: b\n", ", line 3: a single text is expected as the value"},
    {"- s3cret\n", ": lines of the form 'key: value' are expected"},
    {"s3cret", ": lines of the form 'key: value' are expected"},
    {"token: s3cret\nendpoint: a: b\n", ", line 2: mapping values are not allowed in this context"},
    {"token: s3cret\ntoken: other\n", ", line 1: Mapping field already seen: token"}, /* of the first one */
    {"tokne: s3cret\n", ": the key 'tokne' is unknown; did you mean 'token'?"},
    {"Token: s3cret\n", ": the key 'Token' is unknown; did you mean 'token'?"},
    {"endpoint: a\nca-cert: s3cret\n", ": the key 'ca-cert' is unknown; did you mean 'ca_cert'?"},
    {"endpoints: s3cret\n", ": the key 'endpoints' is unknown; did you mean 'endpoint'?"},
    {"toke: s3cret\n", ": the key 'toke' is unknown; did you mean 'token'?"},
    {"\x01\n", ": control characters are not allowed"},
};

static void says_what_is_broken(void **state)
{
    struct fixture *f = *state;
    struct settings_file file;
    char error[SETTINGS_ERROR_LEN], start[256];
    snprintf(start, sizeof(start), "settings file '%s'", f->path);
    for (size_t i = 0; i < sizeof(unreadable) / sizeof(unreadable[0]); i++) {
        put(f, unreadable[i].text, 0600);
        assert_int_equal(settings_read(f->path, &file, error), KV_EINVAL);
        assert_memory_equal(error, start, strlen(start));
        assert_string_equal(error + strlen(start), unreadable[i].sentence);
        assert_null(strstr(error, "s3cret"));
        assert_null(file.token);
        /* Writing does not walk over it either. */
        assert_int_equal(settings_write(f->path, &(struct settings_given){.token = "new"}, error), KV_EINVAL);
        assert_string_equal(error + strlen(start), unreadable[i].sentence);
        assert_file(f, unreadable[i].text);
    }
}

static void refuses_files_that_are_none(void **state)
{
    struct fixture *f = *state;
    struct settings_file file;
    char error[SETTINGS_ERROR_LEN];
    put(f, "", 0600);
    assert_int_equal(truncate(f->path, 64 * 1024 + 1), 0);
    assert_int_equal(settings_read(f->path, &file, error), KV_EINVAL);
    assert_non_null(strstr(error, "is larger than 65536 bytes"));
    unlink(f->path);
    mkdir(f->path, 0700);
    assert_int_equal(settings_read(f->path, &file, error), KV_EIO);
    assert_non_null(strstr(error, "cannot be read: Is a directory"));
    assert_int_equal(settings_write(f->path, &(struct settings_given){.token = "new"}, error), KV_EIO);
}

static void warns_of_open_doors(void **state)
{
    struct fixture *f = *state;
    struct settings_file file;
    char error[SETTINGS_ERROR_LEN];
    static const mode_t modes[] = {0640, 0604, 0660, 0644};
    for (size_t i = 0; i < 4; i++) {
        put(f, "token: abc\n", modes[i]);
        assert_int_equal(settings_read(f->path, &file, error), 0);
        assert_text(file.token, "abc");
        assert_non_null(strstr(error, "open to other users; run chmod 600 '"));
        settings_file_free(&file);
    }
    put(f, "endpoint: http://a\n", 0644); /* no secret, no warning */
    assert_int_equal(settings_read(f->path, &file, error), 0);
    assert_string_equal(error, "");
    settings_file_free(&file);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void assert_mode(const char *path, mode_t expected)
{
    struct stat facts;
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode & 07777, expected);
}

static unsigned entries(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void writes_for_the_owner_alone(void **state)
{
    struct fixture *f = *state;
    char error[SETTINGS_ERROR_LEN];
    mode_t before = umask(0);
    const struct settings_given all = {"http://a:1", "abc", "/x.pem", "http://joe:s3cret@p:1"};
    assert_int_equal(settings_write(f->path, &all, error), 0);
    umask(before);
    assert_string_equal(error, "");
    assert_mode(f->folder, 0700);
    assert_mode(f->path, 0600);
    assert_file(f, "endpoint: \"http://a:1\"\ntoken: \"abc\"\nca_cert: \"/x.pem\"\n"
                   "proxy: \"http://joe:s3cret@p:1\"\n");
    assert_int_equal(entries(f->folder), 1);
    /* A file that was open becomes a closed one. */
    put(f, "token: old\n", 0644);
    assert_int_equal(settings_write(f->path, &(struct settings_given){.token = "new"}, error), 0);
    assert_mode(f->path, 0600);
    assert_int_equal(entries(f->folder), 1);
}

static const struct {
    const char *before;
    struct settings_given changes;
    const char *after;
} edits[] = {
    {"", {.token = "t"}, "token: \"t\"\n"},
    {"token: a\n", {.token = "t", .endpoint = ""}, "token: \"t\"\n"}, /* empty: not given */
    {"# mine\n\nendpoint: http://a # why\nmore: {x: 1}\ntoken: old\n",
     {.token = "t"},
     "# mine\n\nendpoint: http://a # why\nmore: {x: 1}\ntoken: \"t\"\n"},
    {"token: old\nlast: 1", {.token = "t", .endpoint = "http://b"}, "token: \"t\"\nlast: 1\nendpoint: \"http://b\"\n"},
    {"token: >\n  old\n  more\nlast: 1\n", {.token = "t"}, "token: \"t\"\nlast: 1\n"},
    {"tokenizer: 1\nmy_token: 2\nsub:\n  token: 3\n",
     {.token = "t"},
     "tokenizer: 1\nmy_token: 2\nsub:\n  token: 3\ntoken: \"t\"\n"},
    {"", {.ca_cert = "/a \"b\"\\c\t\xc3\xbc.pem"}, "ca_cert: \"/a \\\"b\\\"\\\\c\\x09\xc3\xbc.pem\"\n"},
    /* Notations that lines cannot express: the known values survive. */
    {"{endpoint: http://a, more: 1}\n", {.token = "t"}, "endpoint: \"http://a\"\ntoken: \"t\"\n"},
    {"\"token\": old\nendpoint: http://a\n", {.token = "t"}, "endpoint: \"http://a\"\ntoken: \"t\"\n"},
    {"# mine\ntoken: >\n  old\nlast: 1\n", {.token = settings_removed}, "# mine\nlast: 1\n"},
    {"last: 1\n", {.token = settings_removed, .endpoint = "http://b"}, "last: 1\nendpoint: \"http://b\"\n"},
    {"{endpoint: http://a, token: t}\n", {.token = settings_removed}, "endpoint: \"http://a\"\n"},
    {"token: old\n---\nother: 1\n", {.endpoint = "http://b"}, "endpoint: \"http://b\"\ntoken: \"old\"\n"},
};

static void keeps_what_it_does_not_change(void **state)
{
    struct fixture *f = *state;
    char error[SETTINGS_ERROR_LEN];
    for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
        put(f, edits[i].before, 0600);
        if (settings_write(f->path, &edits[i].changes, error) != 0)
            fail_msg("%s", error);
        assert_file(f, edits[i].after);
        struct settings_file file;
        assert_int_equal(settings_read(f->path, &file, error), 0);
        if (edits[i].changes.token == settings_removed)
            assert_null(file.token);
        else if (edits[i].changes.token)
            assert_text(file.token, edits[i].changes.token);
        if (edits[i].changes.ca_cert)
            assert_text(file.ca_cert, edits[i].changes.ca_cert);
        settings_file_free(&file);
    }
}

static void changes_nothing_when_it_fails(void **state)
{
    struct fixture *f = *state;
    char error[SETTINGS_ERROR_LEN];
    put(f, "token: old\n", 0600);
    /* Not UTF-8, so no YAML. */
    assert_int_equal(settings_write(f->path, &(struct settings_given){.ca_cert = "/\xff.pem"}, error), KV_EINVAL);
    assert_non_null(strstr(error, "cannot hold these values"));
    assert_file(f, "token: old\n");
    assert_int_equal(entries(f->folder), 1);

    char below[PATH_MAX];
    snprintf(below, sizeof(below), "%s/config.yml", f->path); /* the "folder" is a file */
    assert_int_equal(settings_write(below, &(struct settings_given){.token = "new"}, error), KV_EIO);
    assert_non_null(strstr(error, "Not a directory"));
    snprintf(below, sizeof(below), "%s/absent/folder/config.yml", f->home);
    assert_int_equal(settings_write(below, &(struct settings_given){.token = "new"}, error), KV_EIO);
    assert_non_null(strstr(error, "cannot be made: No such file or directory"));
}

static void writes_through_a_link(void **state)
{
    struct fixture *f = *state;
    char error[SETTINGS_ERROR_LEN], elsewhere[PATH_MAX];
    snprintf(elsewhere, sizeof(elsewhere), "%s/dotfiles.yml", f->home);
    mkdir(f->folder, 0700);
    FILE *file = fopen(elsewhere, "w");
    assert_non_null(file);
    fputs("token: old\n", file);
    fclose(file);
    assert_int_equal(symlink(elsewhere, f->path), 0);
    assert_int_equal(settings_write(f->path, &(struct settings_given){.token = "new"}, error), 0);
    struct stat facts;
    assert_int_equal(lstat(f->path, &facts), 0);
    assert_true(S_ISLNK(facts.st_mode));
    assert_mode(elsewhere, 0600);
    assert_file(f, "token: \"new\"\n");
    unlink(elsewhere);
}

/* ---- who wins -------------------------------------------------------------------------------------------------- */

static void make_authority(const struct fixture *f, const char *name, char path[PATH_MAX])
{
    EVP_PKEY *key = cert_key();
    X509 *cert = cert_make(&(struct cert_wish){.common_name = "Test CA", .authority = true}, key, NULL, NULL);
    snprintf(path, PATH_MAX, "%s/%s", f->home, name);
    cert_write(path, (X509 *[]){cert, NULL}, NULL, NULL);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void the_nearest_place_wins(void **state)
{
    struct fixture *f = *state;
    struct settings settings;
    char error[SETTINGS_ERROR_LEN];
    char stored_ca[PATH_MAX], given_ca[PATH_MAX], text[2 * PATH_MAX];
    make_authority(f, "stored.pem", stored_ca);
    make_authority(f, "given.pem", given_ca);
    const struct settings_given nothing = {0}, all = {"https://given.example:1", "given", given_ca, "socks5://given"};
    const struct settings_given empty = {"", "", "", ""};

    assert_int_equal(settings_resolve(NULL, &nothing, &settings, error), 0);
    assert_string_equal(settings.endpoint.text, "http://localhost:7777");
    assert_null(settings.token);
    assert_null(settings.ca_cert);
    settings_free(&settings);

    snprintf(text, sizeof(text),
             "endpoint: https://stored.example/\ntoken: stored\nca_cert: %s\nproxy: http://stored\n", stored_ca);
    put(f, text, 0600);
    assert_int_equal(settings_resolve(f->path, &empty, &settings, error), 0);
    assert_string_equal(settings.endpoint.text, "https://stored.example");
    assert_text(settings.token, "stored");
    assert_text(settings.ca_cert, stored_ca);
    assert_string_equal(settings.proxy.text, "http://stored");
    settings_free(&settings);
    assert_null(settings.token);

    assert_int_equal(settings_resolve(f->path, &all, &settings, error), 0);
    assert_string_equal(settings.endpoint.text, "https://given.example:1");
    assert_text(settings.token, "given");
    assert_text(settings.ca_cert, given_ca);
    assert_string_equal(settings.proxy.text, "socks5://given:1080");
    settings_free(&settings);

    /* The usual variables come last, and name themselves when they are wrong. */
    setenv("https_proxy", "http://joe:s3cret@other:99999", 1);
    assert_int_equal(settings_resolve(f->path, &empty, &settings, error), 0);
    assert_string_equal(settings.proxy.text, "http://stored");
    settings_free(&settings);
    assert_int_equal(settings_resolve(NULL, &all, &settings, error), 0);
    settings_free(&settings);
    assert_int_equal(settings_resolve(NULL, &(struct settings_given){.endpoint = "http://a"}, &settings, error),
                     KV_EINVAL);
    assert_string_equal(error, "https_proxy (not shown): has no valid host and port behind the '@'");
    setenv("https_proxy", "http://env", 1);
    assert_int_equal(settings_resolve(NULL, &(struct settings_given){.endpoint = "http://a"}, &settings, error), 0);
    assert_string_equal(settings.proxy.text, "http://env");
    settings_free(&settings);
    assert_int_equal(
        settings_resolve(NULL, &(struct settings_given){.endpoint = "http://a", .proxy = "none"}, &settings, error), 0);
    assert_int_equal(settings.proxy.kind, PROXY_NONE);
    settings_free(&settings);
    unsetenv("https_proxy");
    unlink(stored_ca);
    unlink(given_ca);
}

static void bad_values_are_named_with_their_place(void **state)
{
    struct fixture *f = *state;
    struct settings settings;
    char error[SETTINGS_ERROR_LEN];
    const struct settings_given nothing = {0};
    put(f, "endpoint: tnl.example.com\n", 0600);
    assert_int_equal(settings_resolve(f->path, &nothing, &settings, error), KV_EINVAL);
    assert_non_null(strstr(error, f->path));
    assert_non_null(strstr(error, ": endpoint 'tnl.example.com': has no scheme"));
    put(f, "token: \"s3 cret\"\n", 0600);
    assert_int_equal(settings_resolve(f->path, &nothing, &settings, error), KV_EINVAL);
    assert_non_null(strstr(error, ": token (not shown): holds a space"));
    assert_null(strstr(error, "s3"));
    assert_null(settings.token);

    /* What the command line gives is right or wrong by itself, whatever the file says. */
    assert_int_equal(settings_resolve(f->path, &(struct settings_given){.token = "good"}, &settings, error), 0);
    settings_free(&settings);
    assert_int_equal(settings_resolve(NULL, &(struct settings_given){.token = "s3\ncret"}, &settings, error),
                     KV_EINVAL);
    assert_string_equal(error, "token (not shown): holds a control character, which no token has");
    assert_int_equal(settings_resolve(NULL, &(struct settings_given){.endpoint = "x"}, &settings, error), KV_EINVAL);
    assert_non_null(strstr(error, "endpoint 'x': has no scheme"));
    put(f, "ca_cert: /no/such.pem\n", 0600);
    assert_int_equal(settings_resolve(f->path, &nothing, &settings, error), KV_EINVAL);
    assert_non_null(strstr(error, f->path));
    assert_non_null(strstr(error, ": ca_cert '/no/such.pem': No such file or directory"));
    assert_null(settings.ca_cert);
    put(f, "token: [", 0600);
    assert_int_equal(settings_resolve(f->path, &nothing, &settings, error), KV_EINVAL);
}

static void knows_authorities_when_it_reads_them(void **state)
{
    struct fixture *f = *state;
    char reason[SETTINGS_REASON_LEN], path[PATH_MAX];
    make_authority(f, "ca.pem", path);
    assert_int_equal(settings_check_ca_cert(path, reason), 0);
    unlink(path);
    assert_int_equal(settings_check_ca_cert(path, reason), KV_EINVAL);
    assert_string_equal(reason, "No such file or directory");
    assert_int_equal(settings_check_ca_cert("/dev/null", reason), KV_EINVAL);
    assert_string_equal(reason, "is empty");
    assert_int_equal(settings_check_ca_cert("", reason), KV_EINVAL);
    assert_non_null(strstr(reason, "No such file or directory"));
}

static void knows_a_token_by_its_form(void **state)
{
    (void)state;
    char reason[SETTINGS_REASON_LEN], longest[LIMIT_TOKEN_BYTES + 1];
    memset(longest, 't', sizeof(longest));
    assert_int_equal(settings_check_token(SLICE("abc234"), reason), 0);
    assert_int_equal(settings_check_token(SLICE("!~"), reason), 0);
    assert_int_equal(settings_check_token((struct slice){longest, LIMIT_TOKEN_BYTES}, reason), 0);
    assert_int_equal(settings_check_token((struct slice){longest, LIMIT_TOKEN_BYTES + 1}, reason), KV_EINVAL);
    assert_string_equal(reason, "is longer than 256 characters");
    assert_int_equal(settings_check_token(SLICE(""), reason), KV_EINVAL);
    assert_string_equal(reason, "is empty");
    assert_int_equal(settings_check_token(SLICE("a\0b"), reason), KV_EINVAL);
    assert_string_equal(reason, "holds a control character, which no token has");
    assert_int_equal(settings_check_token(SLICE("a\x7f"), reason), KV_EINVAL);
    assert_int_equal(settings_check_token(SLICE("t\xc3\xb6ken"), reason), KV_EINVAL);
    assert_string_equal(reason, "holds a character that is not ASCII, which no token has");
}

static void knows_the_form_that_tokens_are_made_in(void **state)
{
    (void)state;
    char reason[SETTINGS_REASON_LEN];
    assert_int_equal(settings_check_token_form(SLICE("abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst"), reason),
                     0);
    static const char *const others[] = {"",
                                         "TOKEN",
                                         "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrs",
                                         "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstu",
                                         "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGHIJKLMNOPQRST",
                                         "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrs1"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_int_equal(settings_check_token_form(slice_of(others[i]), reason), KV_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lies_in_the_home, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(says_what_is_broken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_files_that_are_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(warns_of_open_doors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writes_for_the_owner_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keeps_what_it_does_not_change, set_up, tear_down),
        cmocka_unit_test_setup_teardown(changes_nothing_when_it_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writes_through_a_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_nearest_place_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_values_are_named_with_their_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(knows_authorities_when_it_reads_them, set_up, tear_down),
        cmocka_unit_test(knows_a_token_by_its_form),
        cmocka_unit_test(knows_the_form_that_tokens_are_made_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
