/* Threads that come and go, with what they leave, and with little stack. */
#include "objects.h"

#include <malloc.h>
#include <limits.h>
#include <sched.h>
#include <sys/mman.h>
#include <threads.h>

static pthread_attr_t small_stack;

static pthread_t start(void *(*body)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, &small_stack, body, argument) == 0);
    return thread;
}

static void *ended(pthread_t thread) {
    void *result;
    CHECK(pthread_join(thread, &result) == 0);
    return result;
}

/* Runs `body` in one thread after another; prints how much the process grew after the first 100. */
static void one_after_another(int count, void *(*body)(void *), void (*with_result)(void *)) {
    long early = 0;
    for (int number = 0; number < count; number++) {
        if (number == 100)
            early = resident();
        with_result(ended(start(body, (void *)(size_t)(number + 1))));
    }
    printf("growth=%ld\n", resident() - early);
}

/* Each leaves one object that the main thread frees. */
static void *leaves_one(void *seed) {
    unsigned mixed = (unsigned)(size_t)seed * 2654435761u | 1;
    next(&mixed);
    return make(16 + next(&mixed) % 500);
}

static void free_result(void *object) { unmake(object); }

/* Each frees what the main thread made, and does nothing else. */
static struct object *given[100];

static void *only_frees(void *nothing) {
    (void)nothing;
    for (int number = 0; number < 100; number++)
        unmake(given[number]);
    return NULL;
}

static void give(void *nothing) {
    unsigned seed = 1;
    (void)nothing;
    for (int number = 0; number < 100; number++)
        given[number] = make(some_size(&seed));
}

/* Keys whose destructors allocate, free, and set their key again. */
#define KEYS 200
static pthread_key_t keys[KEYS];
static int destroyed;

struct value {
    struct object object;
    int key, rounds;
};

static void set_again(int key, int rounds) {
    struct value *value = malloc(sizeof *value + (size_t)key);
    CHECK(value);
    value->key = key;
    value->rounds = rounds;
    CHECK(pthread_setspecific(keys[key], value) == 0);
}

static void destroy(void *given_value) {
    struct value *value = given_value;
    int key = value->key, rounds = value->rounds;
    unmake(make(16 + (size_t)key * 7));
    free(value);
    destroyed++;
    /* The last round must leave nothing: the system calls no destructor after it. */
    if (rounds > 1)
        set_again(key, rounds - 1);
}

static void make_keys(void) {
    for (int key = 0; key < KEYS; key++)
        CHECK(pthread_key_create(&keys[key], destroy) == 0);
}

static void *uses_keys(void *number) {
    /* Every second thread uses no memory before the keys do. */
    if ((size_t)number % 2)
        free(malloc(100));
    for (int key = 0; key < KEYS; key++)
        set_again(key, PTHREAD_DESTRUCTOR_ITERATIONS);
    return NULL;
}

static void nothing_to_do(void *nothing) { (void)nothing; }

/* C11's kind of key, made before and after the allocator's own: frees and allocations after the
 * thread's cache is gone. */
static tss_t before_ours, after_ours;

static void free_and_allocate(void *list) {
    void **pointers = list;
    for (int number = 0; number < 50; number++) {
        unmake(pointers[number]);
        unmake(make(16 + (size_t)number * 300));
    }
    free(pointers);
}

static void **fifty(void) {
    void **list = calloc(50, sizeof *list);
    CHECK(list);
    for (int number = 0; number < 50; number++)
        list[number] = make(16 + (size_t)number * 900);
    return list;
}

static void *after_cache(void *nothing) {
    CHECK(tss_set(before_ours, fifty()) == thrd_success);
    CHECK(tss_set(after_ours, fifty()) == thrd_success);
    return nothing;
}

/* Every path on a stack of the smallest size, between pages that must not be touched. */
static struct holder small_holder;

static void *on_small_stack(void *nothing) {
    for (size_t size = 16; size < 40000; size += size / 8)
        small_holder.own[size % OWN] ? unmake(make(size)) : (void)(small_holder.own[size % OWN] = make(size));
    steps(&small_holder, 20000);
    unmake_own(&small_holder);
    unmake_shared();
    exercise();
    only_frees(NULL);
    return nothing;
}

static void stack_of(size_t size) {
    size_t guard = 64 << 10;
    unsigned char *memory = mmap(NULL, size + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    unsigned char *stack = memory + guard;
    CHECK(mprotect(stack, size, PROT_READ | PROT_WRITE) == 0);
    memset(stack, 0x5a, size);
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, stack, size) == 0);
    small_holder.seed = 3;
    for (int other = 0; other < SHARED; other++)
        shared[other] = make(16 + (size_t)other * 1000);
    give(NULL);
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, on_small_stack, NULL) == 0);
    ended(thread);
    size_t untouched = 0;
    while (untouched < size && stack[untouched] == 0x5a)
        untouched++;
    printf("stack=%zu\n", size - untouched);
}

/* One thread makes all objects, another frees them. */
#define IN_FLIGHT 1024
static struct object *ring[IN_FLIGHT];

static void *consumes(void *count) {
    for (size_t number = 0; number < (size_t)count; number++) {
        struct object **place = &ring[number % IN_FLIGHT], *object;
        while ((object = __atomic_load_n(place, __ATOMIC_ACQUIRE)) == NULL)
            sched_yield();
        __atomic_store_n(place, NULL, __ATOMIC_RELEASE);
        unmake(object);
    }
    return NULL;
}

static void pipeline(size_t count) {
    pthread_t consumer;
    CHECK(pthread_create(&consumer, NULL, consumes, (void *)count) == 0);
    unsigned seed = 11;
    long early = 0;
    for (size_t number = 0; number < count; number++) {
        if (number == count / 10)
            early = resident();
        struct object *object = make(16 + next(&seed) % 1000);
        while (__atomic_load_n(&ring[number % IN_FLIGHT], __ATOMIC_ACQUIRE) != NULL)
            sched_yield();
        __atomic_store_n(&ring[number % IN_FLIGHT], object, __ATOMIC_RELEASE);
    }
    ended(consumer);
    long late = resident();
    printf("early=%ld late=%ld percent=%ld\n", early, late, (late - early) * 100 / early);
}

/* Nothing of the allocator is a point where a thread can be cancelled. */
static int was_not_cancelled;

static void *to_be_cancelled(void *nothing) {
    CHECK(pthread_cancel(pthread_self()) == 0);
    exercise();
    malloc_stats();
    (void)malloc_trim(0);
    (void)mallinfo2();
    struct holder holder = {.seed = 21};
    steps(&holder, 2000);
    unmake_own(&holder);
    was_not_cancelled++;
    pthread_testcancel();
    CHECK(!"a thread that goes on");
    return nothing;
}

static void was_cancelled(void *result) { CHECK(result == PTHREAD_CANCELED); }

int main(int argc, char **argv) {
    int count = times(argc, argv);
    const char *name = argv[1];
    CHECK(pthread_attr_init(&small_stack) == 0);
    CHECK(pthread_attr_setstacksize(&small_stack, 64 << 10) == 0);
    if (strcmp(name, "leave_one") == 0) {
        one_after_another(count, leaves_one, free_result);
    } else if (strcmp(name, "only_free") == 0) {
        give(NULL);
        one_after_another(count, only_frees, give);
    } else if (strcmp(name, "keys") == 0) {
        make_keys();
        one_after_another(count, uses_keys, nothing_to_do);
        CHECK(destroyed == count * KEYS * PTHREAD_DESTRUCTOR_ITERATIONS);
    } else if (strcmp(name, "after_cache") == 0) {
        CHECK(tss_create(&before_ours, free_and_allocate) == thrd_success);
        free(malloc(1));
        CHECK(tss_create(&after_ours, free_and_allocate) == thrd_success);
        one_after_another(count, after_cache, nothing_to_do);
    } else if (strcmp(name, "small_stack") == 0) {
        stack_of((size_t)count);
    } else if (strcmp(name, "pipeline") == 0) {
        pipeline((size_t)count);
    } else if (strcmp(name, "cancelled") == 0) {
        one_after_another(count, to_be_cancelled, was_cancelled);
        CHECK(was_not_cancelled == count);
    } else {
        CHECK(!"a scenario of this name");
    }
    return 0;
}
