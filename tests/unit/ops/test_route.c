/*
 * What is answered to which request, on the rooms themselves: a registry, an edge, a control plane and a store that
 * nobody else uses. The system tests ask the same over sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "control/control.h"
#include "edge/edge.h"
#include "io/on_worker.h"
#include "ops/ops_impl.h"
#include "store/store_thread.h"
#include "tunnel/registry.h"

#define PATIENCE_MS 5000

static struct rooms {
    char folder[32];
    struct worker_group *group;
    struct registry *registry;
    struct store_thread *store;
    struct edge *edge;
    struct control *control;
    struct ops *ops;
} rooms;

static int set_up(void **state)
{
    (void)state;
    char url[64], error[STORE_ERROR_LEN];
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    snprintf(rooms.folder, sizeof(rooms.folder), "/tmp/ops-XXXXXX");
    assert_non_null(mkdtemp(rooms.folder));
    snprintf(url, sizeof(url), "sqlite:%s/db", rooms.folder);
    assert_int_equal(worker_group_start(2, &rooms.group), KV_OK);
    struct store *store = store_open(url, error);
    assert_non_null(store);
    assert_int_equal(store_migrate(store), KV_OK);
    rooms.store = store_thread_start(store);
    rooms.registry = registry_new(rooms.group);
    const struct edge_settings edge = {.group = rooms.group, .registry = rooms.registry, .base_host = "tnl.test"};
    const struct control_settings control = {
        .group = rooms.group,
        .registry = rooms.registry,
        .store = rooms.store,
        .base_host = "tnl.test",
        .public_scheme = "https",
        .max_concurrent = 1,
    };
    rooms.edge = edge_new(&edge);
    rooms.control = control_new(&control);
    const struct ops_settings ops = {
        .group = rooms.group,
        .registry = rooms.registry,
        .edge = rooms.edge,
        .control = rooms.control,
        .store = rooms.store,
        .public_scheme = "https",
        .base_host = "tnl.test",
    };
    rooms.ops = ops_new(&ops);
    assert_non_null(rooms.ops);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char path[64];
    ops_stop(rooms.ops);
    ops_stop(rooms.ops); /* twice is once */
    store_thread_stop(rooms.store);
    worker_group_stop(rooms.group, PATIENCE_MS);
    ops_free(rooms.ops);
    control_free(rooms.control);
    edge_free(rooms.edge);
    registry_free(rooms.registry);
    for (const char *const *end = (const char *const[]){"", "-wal", "-shm", NULL}; *end; end++) {
        snprintf(path, sizeof(path), "%s/db%s", rooms.folder, *end);
        unlink(path);
    }
    return rmdir(rooms.folder);
}

/* The reply; its body is NUL-terminated, and to be freed. */
static struct ops_reply ask(const char *method, const char *target, bool has_body)
{
    struct field fields[1];
    struct head head;
    struct ops_reply reply = {.body = BUFFER_INIT(OPS_ANSWER_BYTES)};
    head_borrow(&head, fields, 1);
    head.method = slice_of(method);
    head.target = slice_of(target);
    head.authority = SLICE("localhost");
    ops_answer(rooms.ops, &head, has_body, "127.0.0.1:1", &reply);
    assert_int_equal(buffer_append(&reply.body, "", 1), KV_OK);
    return reply;
}

static void assert_answer(const char *method, const char *target, unsigned status, const char *part)
{
    struct ops_reply reply = ask(method, target, false);
    assert_int_equal(reply.status, status);
    assert_non_null(reply.type);
    assert_non_null(strstr(reply.body.data, part));
    buffer_free(&reply.body);
}

static void test_states(void **state)
{
    (void)state;
    assert_answer("GET", "/readyz", 503, "starting");
    ops_set_state(rooms.ops, OPS_SERVING);
    assert_answer("GET", "/readyz", 200, "ready");
    ops_set_state(rooms.ops, OPS_DRAINING);
    assert_answer("GET", "/readyz", 503, "draining");
    assert_answer("GET", "/healthz", 200, "ok");
    ops_set_state(rooms.ops, OPS_SERVING);
}

static void test_paths(void **state)
{
    (void)state;
    assert_answer("GET", "/metrics", 200, "\nkavilo_tunnels_active 0\n");
    assert_answer("GET", "/metrics?x=y", 200, "\nkavilo_tunnels_active 0\n");
    assert_answer("GET", "/admin/tunnels", 200, "[]");
    assert_answer("GET", "/", 404, "/metrics");
    assert_answer("GET", "*", 404, "/metrics");
    assert_answer("GET", "/admin", 404, "/metrics");
    assert_answer("GET", "/admin/x", 404, "\"not_found\"");
    assert_answer("POST", "/admin/tunnels//kick", 404, "\"not_found\"");
    assert_answer("POST", "/admin/tunnels/kick", 404, "\"not_found\"");
    assert_answer("POST", "/admin/tunnels/a/b/kick", 404, "\"not_found\"");
    assert_answer("POST", "/admin/tunnels/a/kick", 404, "\"no_tunnel\"");
    assert_answer("POST", "/admin/tunnels/kick/kick?x=/kick", 404, "\"no_tunnel\"");
}

static void test_methods_and_bodies(void **state)
{
    (void)state;
    struct ops_reply reply = ask("POST", "/metrics", false);
    assert_int_equal(reply.status, 405);
    assert_string_equal(reply.allow, "GET, HEAD");
    buffer_free(&reply.body);
    reply = ask("GET", "/admin/tunnels/a/kick", false);
    assert_int_equal(reply.status, 405);
    assert_string_equal(reply.allow, "POST");
    buffer_free(&reply.body);
    reply = ask("POST", "/admin/tunnels/a/kick", true);
    assert_int_equal(reply.status, 413);
    assert_null(reply.allow);
    buffer_free(&reply.body);
}

/* ---- kick ---------------------------------------------------------------------------------------------------------
 */

static struct holder {
    struct receiver receiver;
    enum close_reason reason;
    sem_t claimed, evicted;
} holder;

static void on_eviction(struct receiver *receiver, struct message *message)
{
    (void)receiver;
    holder.reason = ((struct registry_eviction *)message)->reason;
    free(message);
    sem_post(&holder.evicted);
}

static void on_published(void *arg, int error)
{
    (void)arg;
    assert_int_equal(error, KV_OK);
    sem_post(&holder.claimed);
}

static void claim(struct worker *worker, void *arg)
{
    (void)arg;
    enum registry_verdict verdict;
    struct registry_session session = {.subdomain = "quick-fox-3947", .session = "1", .email = "a@example.com"};
    holder.receiver.receive = on_eviction;
    assert_int_equal(receiver_attach(worker, &holder.receiver), KV_OK);
    session.owner = holder.receiver.address;
    assert_int_equal(registry_claim(rooms.registry, &session, false, &verdict, on_published, NULL), KV_OK);
}

static void let_go(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    registry_release(rooms.registry, "quick-fox-3947", "1");
    receiver_detach(&holder.receiver);
}

static void test_kick(void **state)
{
    (void)state;
    sem_init(&holder.claimed, 0, 0);
    sem_init(&holder.evicted, 0, 0);
    on_worker(worker_at(rooms.group, 1), claim, NULL);
    assert_true(wait_for(&holder.claimed));
    assert_answer("GET", "/admin/tunnels", 200, "\"public_url\":\"https://quick-fox-3947.tnl.test/\"");
    assert_answer("GET", "/metrics", 200, "\nkavilo_tunnels_active 1\n");
    assert_answer("POST", "/admin/tunnels/quick-fox-394/kick", 404, "\"no_tunnel\"");
    assert_answer("POST", "/admin/tunnels/quick-fox-3947/kick", 200, "{\"kicked\":\"quick-fox-3947\"}");
    assert_true(wait_for(&holder.evicted));
    assert_int_equal(holder.reason, REASON_KICKED);
    on_worker(worker_at(rooms.group, 1), let_go, NULL);
    assert_answer("GET", "/metrics", 200, "\nkavilo_tunnels_active 0\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_methods_and_bodies),
        cmocka_unit_test(test_kick),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
