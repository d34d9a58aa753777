/* See blocks.h. Blocks are mapped, not malloced: one that is given up leaves no hole in the
 * heap. */
#define _GNU_SOURCE
#include "runtime/blocks.h"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

enum { KEPT_MOST = 64, PAGE = 4096 };
static const size_t KEPT_BYTES_MOST = (size_t)512 << 20;

typedef struct {
    void *memory;
    size_t size;
} block;

static block kept[KEPT_MOST]; /* the one that waits longest first */
static int count;
static size_t kept_bytes, used_bytes, used_most;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t whole_pages(size_t size) { return (size + PAGE - 1) / PAGE * PAGE; }

static void *take_out(int i) {
    void *memory = kept[i].memory;
    kept_bytes -= kept[i].size;
    count--;
    for (; i < count; i++) kept[i] = kept[i + 1];
    return memory;
}

static void *map_block(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void drop(int i) {
    size_t size = kept[i].size;
    munmap(take_out(i), size);
}

/* A step needs its most of one size at one time and its most of another at another: together more
 * than it ever uses at once. */
static int fits(size_t more) {
    size_t most = used_most > used_bytes ? used_most : used_bytes;
    if (used_bytes + kept_bytes + more > most + most / 4) return 0;
    return kept_bytes + more <= KEPT_BYTES_MOST && (!more || count < KEPT_MOST);
}

/* Gives up the blocks that wait longest until there is room for `more` bytes. */
static void make_room(size_t more) {
    while (count && !fits(more)) drop(0);
}

void *mg_block_get(size_t size) {
    if (size > SIZE_MAX / 2) return NULL;
    size = whole_pages(size);
    pthread_mutex_lock(&lock);
    void *memory = NULL;
    for (int i = count - 1; i >= 0 && !memory; i--)
        if (kept[i].size == size) memory = take_out(i);
    used_bytes += size;
    if (!memory) {
        make_room(0);
        memory = map_block(size);
    }
    if (!memory) {
        while (count) drop(count - 1);
        memory = map_block(size);
    }
    if (!memory) used_bytes -= size;
    else if (used_bytes > used_most) used_most = used_bytes;
    pthread_mutex_unlock(&lock);
    return memory;
}

void mg_block_put(void *memory, size_t size) {
    size = whole_pages(size);
    pthread_mutex_lock(&lock);
    used_bytes -= size;
    make_room(size);
    if (fits(size)) {
        kept_bytes += size;
        kept[count++] = (block){memory, size};
        memory = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (memory) munmap(memory, size);
}
