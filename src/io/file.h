/* Small files, read whole and replaced whole: certificates, keys, settings, tokens. Blocking calls, for start-up and
 * commands. */
#ifndef KV_IO_FILE_H
#define KV_IO_FILE_H

#include <stddef.h>

#include "base/buffer.h"
#include "base/slice.h"

/* Reads a file of at most `limit` bytes into *out, which is overwritten, in one allocation, so that a secret
 * leaves no copies behind. 0; KV_EIO with errno; KV_ELIMIT for a larger file; KV_ENOMEM. The buffer is empty then. */
int file_read(const char *path, size_t limit, struct buffer *out);
/* The same from a descriptor, which stays open. */
int file_read_fd(int fd, size_t limit, struct buffer *out);

/* Overwrites the content, then frees it. */
void file_wipe(struct buffer *content);

/* Replaces a file's content so that a reader, or a crash at any moment, sees all of the old or all of the new: written
 * to a new file of mode 0600 beside it, synced, renamed. A symbolic link is replaced in the place it points to.
 * 0, KV_ENOMEM, or KV_EIO with errno; nothing is left behind then. */
int file_replace(const char *path, struct slice content);

#endif
