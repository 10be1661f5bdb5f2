/* A preloaded library that allocates before the program, and frees after it. */
#include "objects.h"

static struct object *kept[20];

__attribute__((constructor)) static void allocates(void) {
    exercise();
    for (size_t number = 0; number < 20; number++)
        kept[number] = make(16 + number * number * 100);
}

__attribute__((destructor)) static void frees(void) {
    for (int number = 0; number < 20; number++)
        unmake(kept[number]);
    exercise();
    CHECK(write(1, "constructor ", 12) == 12);
}
