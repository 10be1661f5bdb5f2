/* A library with everything that an allocator's library must not have. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

__thread int local;

void panicking(void) __asm__("_ZN4core9panicking5panicE");
void panicking(void) { abort(); }

void *malloc(size_t size) {
    local++;
    return size ? dlsym(RTLD_NEXT, "malloc") : NULL;
}

void *calloc(size_t count, size_t size) {
    void *object = malloc(count * size);
    if (!object)
        panicking();
    return memset(object, 0, count * size);
}

/* A name that no allocator has, and a call that leaves the library. */
void extra(void *object) { free(realloc(object, 5)); }
