/*
 * A server that is replaced by a new process without a gap: the same command line is run anew (so a new binary at the
 * same path, new certificates), and gets the listening sockets with everybody who waits there.
 *
 *     predecessor                                   successor
 *     upgrade_start: fork, exec ──── sockets ─────► LISTEN_FDS, LISTEN_FDNAMES; settings, store, threads
 *     upgrade_poll  ◄─────────────── one byte ───── succession_take_over
 *     stops accepting
 *     upgrade_hand_over ──────────── sessions ────► which tunnels to expect (tunnel/arrivals.h)
 *     drains                                        accepts
 *
 * Until the byte has come nothing has changed for anybody; a successor that cannot start costs a line in the log. In
 * between nobody accepts, for the milliseconds that the list takes, and the kernel queues.
 *
 * The two talk over a socket pair, named in LISTEN_FDNAMES like the others. One byte from the successor: 0, it is
 * ready; otherwise the errno of the exec that failed. Then lines from the predecessor to the end of the stream, the
 * first SUCCESSION_HEADING, then one a session: subdomain, user id, instance id in hex or "-", "named" or "random".
 * Both versions of the program have to understand it, so it only ever grows at the end of a line; an unknown heading is
 * a list that nobody reads.
 */
#ifndef KV_CMD_TUNNELD_UPGRADE_H
#define KV_CMD_TUNNELD_UPGRADE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct activation;
struct port;
struct registry;

#define SUCCESSION_HEADING "kavilo-sessions 1"

/* ---- the predecessor; all on the main thread ------------------------------------------------------------------- */

struct upgrade {
    pid_t child; /* 0: none */
    int channel;
    uint64_t started; /* ms, to bound its start */
};

enum upgrade_state {
    UPGRADE_NONE, /* there is no successor */
    UPGRADE_STARTING,
    UPGRADE_READY,
};

/* Starts the successor with the sockets of these ports and with this signal mask. What fails is logged. */
void upgrade_start(struct upgrade *upgrade, const struct port *ports, unsigned count, const sigset_t *mask);

/* How far it is. A successor that has ended, or is not ready within LIMIT_UPGRADE_MS, is logged and reaped: NONE. */
enum upgrade_state upgrade_poll(struct upgrade *upgrade);

/* Ends a successor that is not ready: we are told to end ourselves. Legal without one. */
void upgrade_cancel(struct upgrade *upgrade);

/* Tells it of the live sessions and lets it go. Nobody accepts any more. */
void upgrade_hand_over(struct upgrade *upgrade, struct registry *registry);

/* ---- the successor --------------------------------------------------------------------------------------------- */

/* The channel to a predecessor among what was handed over; -1 for none. */
int succession_take(struct activation *given);

/* Says that everything but accepting has begun, which nothing can undo: what follows must not fail. Waits for the list
 * and has the registry expect these sessions; closes the channel. A predecessor that dies meanwhile, or falls silent,
 * is succeeded all the same, and then any name may yet come. */
void succession_take_over(int channel, struct registry *registry);

#endif
