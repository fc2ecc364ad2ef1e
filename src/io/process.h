/* What the process itself may do, and what it leaves behind when it crashes. On the main thread, before any other. */
#ifndef KV_IO_PROCESS_H
#define KV_IO_PROCESS_H

#define PROCESS_ERROR_LEN 256

/* For every start of a program that holds tokens or keys: no core dump, and no other process of the same user may look
 * into its memory (PR_SET_DUMPABLE); nothing that is executed from here on gains rights (PR_SET_NO_NEW_PRIVS). */
void process_harden(void);

/* Becomes the user that the text names, "NAME" or "NAME:GROUP", for good: with the user's groups, or with that group
 * alone, and with the user's home folder in HOME. A process that is this user already stays as it is. 0; or KV_EINVAL
 * with a sentence, and then the process is not fit to go on. */
int process_become(const char *text, char error[PROCESS_ERROR_LEN]);

#endif
