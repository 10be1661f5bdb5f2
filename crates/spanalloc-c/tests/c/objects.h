/* Objects that know what they hold, and threads that allocate and free all the time. */
#ifndef OBJECTS_H
#define OBJECTS_H

#include "check.h"

#include <pthread.h>

/* A live object: its size, and a mark that is also each byte behind it. Two objects that overlap
 * do not both have what they were filled with. */
struct object {
    size_t size;
    size_t mark;
    unsigned char rest[];
};

static size_t marks = 1;

UNUSED static struct object *filled(void *memory, size_t size) {
    struct object *object = memory;
    CHECK(object != NULL && (size_t)object % 16 == 0);
    object->size = size;
    object->mark = __atomic_fetch_add(&marks, 1, __ATOMIC_RELAXED);
    memset(object->rest, (int)object->mark, size - sizeof *object);
    return object;
}

UNUSED static struct object *make(size_t size) { return filled(malloc(size), size); }

UNUSED static void verify(const struct object *object) {
    CHECK(object->size >= sizeof *object && object->size <= 4 << 20);
    CHECK(all(object->rest, object->size - sizeof *object, (int)object->mark));
}

UNUSED static void unmake(struct object *object) {
    if (object == NULL)
        return;
    verify(object);
    memset(object, 0xdd, object->size < 64 ? object->size : 64);
    free(object);
}

/* Mostly small, of every class at times, and now and then large. */
UNUSED static size_t some_size(unsigned *seed) {
    unsigned kind = next(seed) % 64;
    size_t limit = kind == 0 ? 300000 : kind < 8 ? 40000 : 1000;
    return sizeof(struct object) + next(seed) % limit;
}

/* Objects on their way from one thread to another. */
#define SHARED 64
static struct object *shared[SHARED];

UNUSED static struct object *swap_shared(unsigned place, struct object *object) {
    return __atomic_exchange_n(&shared[place % SHARED], object, __ATOMIC_ACQ_REL);
}

UNUSED static void unmake_shared(void) {
    for (unsigned place = 0; place < SHARED; place++)
        unmake(swap_shared(place, NULL));
}

/* What one thread holds. */
#define OWN 64
struct holder {
    unsigned seed;
    struct object *own[OWN];
};

/* One random operation. */
UNUSED static void step(struct holder *holder) {
    unsigned *seed = &holder->seed;
    struct object **place = &holder->own[next(seed) % OWN];
    size_t size = some_size(seed);
    if (*place == NULL) {
        *place = make(size);
        return;
    }
    switch (next(seed) % 8) {
    case 0:
    case 1:
        *place = swap_shared(next(seed), *place);
        break;
    case 2: {
        verify(*place);
        size_t kept = (*place)->size < size ? (*place)->size : size;
        int mark = (int)(*place)->mark;
        *place = realloc(*place, size);
        CHECK(*place && all((*place)->rest, kept - sizeof **place, mark));
        filled(*place, size);
        break;
    }
    case 3: {
        unmake(*place);
        unsigned char *zeroed = calloc(1, size);
        CHECK(zeroed && all(zeroed, size, 0));
        *place = filled(zeroed, size);
        break;
    }
    default:
        unmake(*place);
        *place = NULL;
    }
}

UNUSED static void steps(struct holder *holder, int count) {
    while (count-- > 0)
        step(holder);
}

UNUSED static void unmake_own(struct holder *holder) {
    for (unsigned place = 0; place < OWN; place++) {
        unmake(holder->own[place]);
        holder->own[place] = NULL;
    }
}

/* Threads that take steps until they are told to stop. */
#define HAMMERS 4
static int stop;
static pthread_t hammers[HAMMERS];

static inline int stopped(void) { return __atomic_load_n(&stop, __ATOMIC_RELAXED); }

UNUSED static void *hammer(void *seed) {
    struct holder holder = {.seed = (unsigned)(size_t)seed};
    while (!stopped())
        step(&holder);
    unmake_own(&holder);
    return NULL;
}

UNUSED static void start_hammers(void) {
    for (size_t number = 0; number < HAMMERS; number++)
        CHECK(pthread_create(&hammers[number], NULL, hammer, (void *)(number + 1)) == 0);
}

UNUSED static void stop_hammers(void) {
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int number = 0; number < HAMMERS; number++)
        CHECK(pthread_join(hammers[number], NULL) == 0);
}

/* Every way to allocate, on every path. */
UNUSED static void exercise(void) {
    static const size_t sizes[] = {16, 24, 40, 200, 1000, 5000, 20000, 40000, 300000, 3 << 20};
    struct object *objects[sizeof sizes / sizeof *sizes];
    for (size_t kind = 0; kind < sizeof sizes / sizeof *sizes; kind++) {
        objects[kind] = make(sizes[kind]);
        unsigned char *zeroed = calloc(3, sizes[kind] / 3);
        CHECK(zeroed && all(zeroed, sizes[kind] / 3 * 3, 0));
        memset(zeroed, 0xee, sizes[kind] / 3 * 3);
        zeroed = realloc(zeroed, sizes[kind] * 2);
        CHECK(zeroed && all(zeroed, sizes[kind] / 3 * 3, 0xee));
        free(zeroed);
        free(malloc(1));
        void *aligned = NULL;
        CHECK(posix_memalign(&aligned, 4096, sizes[kind]) == 0 && (size_t)aligned % 4096 == 0);
        free(aligned);
    }
    for (size_t kind = 0; kind < sizeof sizes / sizeof *sizes; kind++)
        unmake(objects[kind]);
}

#endif
