/* Eight threads load and unload libraries with thread-local variables. Arguments: the directory of
 * the libraries, how many there are, and how many rounds. */
#include "objects.h"

#include <dlfcn.h>

static const char *directory;
static int modules, rounds;
static pthread_barrier_t barrier;

static void *load_and_unload(void *seed) {
    struct holder holder = {.seed = (unsigned)(size_t)seed};
    for (int round = 0; round < rounds; round++) {
        void *loaded[100];
        CHECK(pthread_barrier_wait(&barrier) <= 0);
        for (int number = 0; number < modules; number++) {
            char path[4096];
            CHECK(snprintf(path, sizeof path, "%s/module%d.so", directory, number) < 4096);
            loaded[number] = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            CHECK(loaded[number]);
            int (*touch)(int) = (int (*)(int))dlsym(loaded[number], "touch");
            CHECK(touch && touch(number));
            steps(&holder, 10);
        }
        for (int number = 0; number < modules; number++)
            CHECK(dlclose(loaded[number]) == 0);
    }
    unmake_own(&holder);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    directory = argv[1];
    modules = atoi(argv[2]);
    rounds = atoi(argv[3]);
    CHECK(modules <= 100);
    CHECK(pthread_barrier_init(&barrier, NULL, 8) == 0);
    pthread_t threads[8];
    for (size_t number = 0; number < 8; number++)
        CHECK(pthread_create(&threads[number], NULL, load_and_unload, (void *)(number + 1)) == 0);
    for (int number = 0; number < 8; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
    unmake_shared();
    return 0;
}
