/* Large blocks of memory that are kept for the next use.
 *
 * A training step asks for the same large arrays again and again. The system's allocator gives such
 * blocks back to the kernel, and getting them anew costs a page fault for every 4 KB: as much time
 * as the arithmetic in layers of middle size. Here a freed block is kept, as long as the blocks in
 * use and the kept ones together are at most a quarter more than the blocks in use have been at
 * their most.
 */
#ifndef MG_BLOCKS_H
#define MG_BLOCKS_H
#include <stddef.h>

enum { MG_LARGE = 1 << 16 /* bytes from which a block is worth keeping */ };

/* A block of at least `size` bytes, aligned to 64; NULL if there is no memory. */
void *mg_block_get(size_t size);
/* Gives back a block that was got with this size. */
void mg_block_put(void *block, size_t size);

#endif
