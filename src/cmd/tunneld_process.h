/* The server as a process among others: whose it is, and how it is found. */
#ifndef KV_CMD_TUNNELD_PROCESS_H
#define KV_CMD_TUNNELD_PROCESS_H

/* Becomes `user` ("NAME" or "NAME:GROUP"; "" for nobody else) and makes sure that the database, if it is a file, is
 * this user's. `database` is its URL, "" for the default. CLI_EXIT_OK, or the exit status, and then the sentence has
 * been printed. */
int server_become(const char *user, const char *database);

/* Writes our process id and a newline, replacing what was there. Status as above. An empty path is nothing to do. */
int pid_file_write(const char *path);
/* Removes it if it is ours: a successor may have written its own. */
void pid_file_remove(const char *path);

#endif
