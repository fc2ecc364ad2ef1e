/*
 * One secret line from a person or a pipe.
 *
 * On a terminal the echo is off while the line is typed, and whatever happens it must come back: the signals that could
 * end or stop the process are held, let in only inside ppoll(2), and raised again once the terminal is as it was.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/blake3.h"
#include "base/error.h"
#include "cmd/cli.h"

static const int held_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
#define HELD (sizeof(held_signals) / sizeof(held_signals[0]))

/* A signal handler has nowhere else to put it. */
static volatile sig_atomic_t caught_signal;

static void note_signal(int number)
{
    caught_signal = number;
}

/* The next byte of standard input: 1, 0 at its end, KV_ECANCELED after a signal, KV_EIO. One byte at a time, so that
 * nothing behind the line is taken from whoever reads on. */
static int next_byte(const sigset_t *let_in, char *out)
{
    for (;;) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        if (ppoll(&input, 1, NULL, let_in) < 0) {
            if (caught_signal)
                return KV_ECANCELED;
            if (errno == EINTR)
                continue;
            return KV_EIO;
        }
        ssize_t n = read(STDIN_FILENO, out, 1);
        if (n >= 0)
            return (int)n;
        if (errno != EINTR && errno != EAGAIN)
            return KV_EIO;
    }
}

static int read_line(const sigset_t *let_in, char *out, size_t size)
{
    size_t len = 0;
    bool too_long = false, nul = false, any = false;
    for (;;) {
        char c;
        int n = next_byte(let_in, &c);
        if (n < 0)
            return n;
        if (n == 0 && !any)
            return KV_ENOTFOUND;
        any = true;
        if (n == 0 || c == '\n')
            break;
        nul = nul || c == '\0'; /* would end the string for everybody behind us */
        if (len + 1 < size)
            out[len++] = c;
        else
            too_long = true; /* read on to the line's end: the rest is not the shell's to see */
    }
    if (len > 0 && out[len - 1] == '\r')
        len--;
    out[len] = '\0';
    if (nul)
        return KV_EINVAL;
    return too_long ? KV_ELIMIT : 0;
}

static int read_terminal(const struct termios *normal, const char *prompt, char *out, size_t size)
{
    sigset_t held, before;
    sigemptyset(&held);
    for (size_t i = 0; i < HELD; i++)
        sigaddset(&held, held_signals[i]);
    sigprocmask(SIG_BLOCK, &held, &before);
    struct sigaction note = {.sa_handler = note_signal}, old[HELD];
    caught_signal = 0;
    for (size_t i = 0; i < HELD; i++)
        sigaction(held_signals[i], &note, &old[i]);

    struct termios quiet = *normal;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    quiet.c_lflag |= ECHONL;
    int result = KV_EIO;
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) == 0) {
        fprintf(stderr, "%s", prompt);
        fflush(stderr);
        result = read_line(&before, out, size);
        tcsetattr(STDIN_FILENO, TCSAFLUSH, normal);
    }
    if (result == KV_ECANCELED || result == KV_ENOTFOUND) /* no line was ended, so end ours */
        fputc('\n', stderr);

    for (size_t i = 0; i < HELD; i++)
        sigaction(held_signals[i], &old[i], NULL);
    if (caught_signal)
        raise(caught_signal); /* pending until the mask is back, then does what it would have done */
    sigprocmask(SIG_SETMASK, &before, NULL);
    return result;
}

int cli_read_secret(const char *prompt, char *out, size_t size)
{
    struct termios normal;
    int result =
        tcgetattr(STDIN_FILENO, &normal) == 0 ? read_terminal(&normal, prompt, out, size) : read_line(NULL, out, size);
    if (result != 0)
        secret_wipe(out, size);
    return result;
}
