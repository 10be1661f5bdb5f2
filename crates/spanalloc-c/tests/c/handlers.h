/* Fork handlers that allocate and free. */
#ifndef HANDLERS_H
#define HANDLERS_H

#include "objects.h"

/* Made before the fork, freed after it in both processes. */
static struct object *across[3];
static int prepared, continued;

UNUSED static void before_fork(void) {
    prepared++;
    across[0] = make(100);
    across[1] = make(3000);
    across[2] = make(100000);
    free(realloc(malloc(10), 5000));
}

UNUSED static void after_fork(void) {
    continued++;
    for (int place = 0; place < 3; place++)
        unmake(across[place]);
    free(calloc(1, 70000));
    unmake(make(200));
}

UNUSED static void register_handlers(void) {
    CHECK(pthread_atfork(before_fork, after_fork, after_fork) == 0);
}

#endif
