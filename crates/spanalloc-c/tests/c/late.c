/* Loads the allocator when the space for thread-local variables of late libraries is nearly gone,
 * uses it beside the system's, and unloads it. Arguments: a library with 1,600 bytes of such
 * variables, and the allocator. */
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>

struct allocator {
    void *library;
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
};

static struct allocator load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    struct allocator it = {library,
                           (void *(*)(size_t))dlsym(library, "malloc"),
                           (void *(*)(size_t, size_t))dlsym(library, "calloc"),
                           (void *(*)(void *, size_t))dlsym(library, "realloc"),
                           (void (*)(void *))dlsym(library, "free")};
    CHECK(it.malloc && it.malloc != malloc && it.free != free);
    return it;
}

static void *objects[1000];

static void use(struct allocator *it) {
    for (size_t number = 0; number < 1000; number++) {
        unsigned char *object = number % 2 ? it->malloc(number * 40) : it->calloc(number, 40);
        CHECK(object && (number % 2 || all(object, number * 40, 0)));
        memset(object, (int)number, number * 40);
        object = it->realloc(object, number * 60 + 1);
        CHECK(object && all(object, number * 40, (int)number));
        objects[number] = object;
    }
}

static void free_all(struct allocator *it) {
    for (int number = 0; number < 1000; number++)
        it->free(objects[number]);
}

/* A thread that is older than the library, and lives longer than it is loaded. */
static pthread_barrier_t barrier;
static struct allocator loaded;

static void *older_thread(void *nothing) {
    CHECK(pthread_barrier_wait(&barrier) <= 0);
    CHECK(pthread_barrier_wait(&barrier) <= 0);
    use(&loaded);
    CHECK(pthread_barrier_wait(&barrier) <= 0);
    CHECK(pthread_barrier_wait(&barrier) <= 0);
    loaded.free(loaded.malloc(100));
    return nothing;
}

static int is_mapped(const char *path) {
    static char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    while (fgets(line, sizeof line, maps))
        found |= strstr(line, path) != NULL;
    CHECK(fclose(maps) == 0);
    return found;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    pthread_t thread;
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, older_thread, NULL) == 0);
    CHECK(pthread_barrier_wait(&barrier) <= 0);

    void *(*taken)(void) = (void *(*)(void))dlsym(dlopen(argv[1], RTLD_NOW), "taken");
    CHECK(taken && taken());
    loaded = load(argv[2]);
    use(&loaded);
    free_all(&loaded);
    /* The older thread makes the objects that are freed here. */
    CHECK(pthread_barrier_wait(&barrier) <= 0);
    CHECK(pthread_barrier_wait(&barrier) <= 0);
    for (int round = 0; round < 20; round++) {
        CHECK(dlclose(loaded.library) == 0);
        CHECK(is_mapped(argv[2]));
        struct allocator again = load(argv[2]);
        CHECK(again.malloc == loaded.malloc);
    }
    CHECK(dlclose(loaded.library) == 0);
    CHECK(is_mapped(argv[2]));
    free_all(&loaded);
    use(&loaded);
    free_all(&loaded);
    CHECK(pthread_barrier_wait(&barrier) <= 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}
