/* A preloaded library with a function that is chosen while it is relocated: whoever chooses
 * allocates. It may be the first in the process to do so, before the allocator is relocated. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int chosen(void) { return 1; }

static void *early;

static int (*choose(void))(void) {
    char *object = malloc(100);
    if (object == NULL)
        return NULL;
    for (int byte = 0; byte < 100; byte++)
        object[byte] = 7;
    object = realloc(object, 5000);
    if (object == NULL || object[99] != 7)
        return NULL;
    char *zeroed = calloc(100, 100);
    if (zeroed == NULL || zeroed[0] || zeroed[9999])
        return NULL;
    free(zeroed);
    early = object;
    return chosen;
}

static int function(void) __attribute__((ifunc("choose")));

__attribute__((destructor)) static void ends(void) {
    free(early);
    if (function())
        (void)!write(1, "resolver ", 9);
}
