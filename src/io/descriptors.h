/*
 * Who may have the process's descriptors. Listeners share what the limit leaves them; each has a reserve that the
 * others cannot take, so a flood at one port leaves room at the others. A connection counts from accept(2) to close(2),
 * lingering included.
 *
 * Without descriptors_divide nothing is counted and nothing is refused. Any thread, unless it says otherwise.
 */
#ifndef KV_IO_DESCRIPTORS_H
#define KV_IO_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>

#define DESCRIPTOR_SHARES_MAX 8
#define DESCRIPTOR_UNSHARED   DESCRIPTOR_SHARES_MAX /* a listener that is not counted */

/* Divides the descriptors that are not open yet, but for `spare` ones, among shares 0 to `shares` - 1. Before the first
 * listener starts. 0, or KV_ENOMEM. */
int descriptors_divide(unsigned shares, size_t spare);

/* What a share may take at most: all that is not the others' reserve. SIZE_MAX if nothing was divided. */
size_t descriptors_most(void);

/* Whether this share may take one more. A moment's overshoot by as many as there are threads is what `spare` is for. */
bool descriptors_may_take(unsigned share);
/* Counts a descriptor that was just accepted. */
void descriptors_take(int fd, unsigned share);
/* Closes a descriptor, which may be a counted one. */
void descriptors_close(int fd);

/* Descriptors open at the moment, or 0 where the system does not list them. */
size_t descriptors_open(void);

#endif
