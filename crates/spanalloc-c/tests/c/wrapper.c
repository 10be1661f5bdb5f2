/* A preloaded library that stands before the system's memory calls, as tracers do: it looks the
 * next one up at each call, and allocates. */
#include "check.h"

#include <dlfcn.h>
#include <sys/mman.h>

static __thread int inside;
static int calls;

static void *following(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    CHECK(found);
    calls++;
    if (!inside) {
        inside = 1;
        free(malloc(100));
        /* A name that is not there: the message is allocated. */
        CHECK(dlsym(RTLD_NEXT, "no such name") == NULL);
        inside = 0;
    }
    return found;
}

void *mmap(void *address, size_t length, int rights, int flags, int file, off_t offset) {
    void *(*next_one)(void *, size_t, int, int, int, off_t) =
        (void *(*)(void *, size_t, int, int, int, off_t))following("mmap");
    return next_one(address, length, rights, flags, file, offset);
}

int munmap(void *address, size_t length) {
    int (*next_one)(void *, size_t) = (int (*)(void *, size_t))following("munmap");
    return next_one(address, length);
}

int mprotect(void *address, size_t length, int rights) {
    int (*next_one)(void *, size_t, int) = (int (*)(void *, size_t, int))following("mprotect");
    return next_one(address, length, rights);
}

int madvise(void *address, size_t length, int advice) {
    int (*next_one)(void *, size_t, int) = (int (*)(void *, size_t, int))following("madvise");
    return next_one(address, length, advice);
}

__attribute__((destructor)) static void ends(void) {
    CHECK(calls > 0);
    CHECK(write(1, "wrapper ", 8) == 8);
}
