/* Sockets of a port, and who listens on which. See tunneld_ports.h. */
#include "cmd/tunneld_ports.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "cmd/cli.h"
#include "io/activation.h"
#include "io/listener.h"
#include "io/socket.h"
#include "io/worker.h"

/* ---- sockets --------------------------------------------------------------------------------------------------- */

/* A TCP socket that listens, made ready for a loop; false with the reason. */
static bool adopt(struct port *port, int fd, const char **why)
{
    int type = 0, listens = 0;
    socklen_t len = sizeof(type);
    *why = "it is no TCP socket";
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
        return false;
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0 ||
        (address.ss_family != AF_INET && address.ss_family != AF_INET6))
        return false;
    len = sizeof(listens);
    *why = "it does not listen";
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 || !listens)
        return false;
    int flags = fcntl(fd, F_GETFL);
    *why = strerror(errno);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return false;
    socket_set_options(fd);
    if (port->count == 0)
        port->address = address;
    return true;
}

/* Those of our name among what was handed over. */
static int take_given(struct port *port, struct activation *given)
{
    for (unsigned i = 0; i < given->count; i++) {
        const char *why;
        if (given->given[i].fd < 0 || strcmp(given->given[i].name, port->name) != 0)
            continue;
        if (port->count == PORT_SOCKETS_MAX)
            return cli_usage_error("more than %d sockets named %s were handed over", PORT_SOCKETS_MAX, port->name);
        if (!adopt(port, given->given[i].fd, &why))
            return cli_usage_error("the socket named %s that was handed over cannot be used: %s", port->name, why);
        port->fds[port->count++] = given->given[i].fd;
        given->given[i].fd = -1;
        port->inherited = true;
    }
    return CLI_EXIT_OK;
}

int port_open(struct port *port, unsigned workers, struct activation *given)
{
    int status = take_given(port, given);
    if (status != CLI_EXIT_OK || port->inherited || !port->text[0])
        return status;
    if (sockaddr_parse(slice_of(port->text), &port->address) != KV_OK)
        return cli_usage_error("--%s-listen '%s' is no address", port->name, port->text);
    if (listener_bind(&port->address, port->fds, workers) != KV_OK)
        return cli_usage_error("--%s-listen %s: %s", port->name, port->text, strerror(errno));
    port->count = workers;
    return CLI_EXIT_OK;
}

void port_close(struct port *port)
{
    for (unsigned i = 0; i < port->count; i++)
        close(port->fds[i]);
    port->count = 0;
}

/* ---- listeners ------------------------------------------------------------------------------------------------- */

/* One for each socket, and one for each worker. Listener i works on socket i modulo sockets, at worker i modulo
 * workers. */
static unsigned listener_count(const struct port *port, unsigned workers)
{
    return port->count > workers ? port->count : workers;
}

void port_prepare(struct port *port, unsigned worker, unsigned workers)
{
    for (unsigned i = worker; port->count > 0 && i < listener_count(port, workers); i += workers) {
        int fd = fcntl(port->fds[i % port->count], F_DUPFD_CLOEXEC, 0);
        if (fd >= 0)
            port->listeners[i] = listener_new(worker_current(), fd, port->share, port->accepted, port->arg);
        if (!port->listeners[i])
            log_error("a worker cannot listen: no memory or no descriptor", log_str("port", port->name),
                      log_uint("worker", worker));
    }
}

bool port_is_prepared(const struct port *port, unsigned workers)
{
    for (unsigned i = 0; port->count > 0 && i < listener_count(port, workers); i++)
        if (!port->listeners[i])
            return false;
    return true;
}

void port_listen(struct port *port, unsigned worker, unsigned workers)
{
    for (unsigned i = worker; port->count > 0 && i < listener_count(port, workers); i += workers)
        listener_start(port->listeners[i]);
}

void port_stop(struct port *port, unsigned worker, unsigned workers)
{
    for (unsigned i = worker; i < listener_count(port, workers); i += workers) {
        listener_stop(port->listeners[i]);
        port->listeners[i] = NULL;
    }
}
