/* An ordinary program: allocates, maps memory, starts threads, and says what it is. */
#include "objects.h"

#include <sys/mman.h>

static void *body(void *seed) {
    struct holder holder = {.seed = (unsigned)(size_t)seed};
    steps(&holder, 5000);
    unmake_own(&holder);
    exercise();
    return NULL;
}

static void at_exit(void) { exercise(); }

int main(void) {
    void *mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapped != MAP_FAILED && munmap(mapped, 1 << 20) == 0);
    pthread_t threads[4];
    for (size_t number = 0; number < 4; number++)
        CHECK(pthread_create(&threads[number], NULL, body, (void *)(number + 1)) == 0);
    for (int number = 0; number < 4; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
    unmake_shared();
    CHECK(atexit(at_exit) == 0);
    CHECK(write(1, "program ", 8) == 8);
    return 0;
}
