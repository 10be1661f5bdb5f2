/* A little of everything that makes the library call the system, done twice, while some of these calls fail.
 * A request is served, or refused with null and ENOMEM; whatever lives keeps its contents; errno is the
 * program's; and once the system works again, so does every request. The argument is after how many refusals
 * the system works at the latest, 0 if it never does. Nothing is allocated but by `make` and `resize`, and by
 * the C library for its threads. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

#define MOST 6000
#define MB ((size_t)1 << 20)
/* So much of both ends of a large object is written to. */
#define PART 6000

struct object {
    unsigned char *at;
    size_t size;
    int byte;
};
static struct object live[MOST];
static int count;
static int refused;
static int refused_threads;

static void say(const char *name, long value) {
    char text[100];
    int length = snprintf(text, sizeof text, "%s=%ld\n", name, value);
    CHECK(write(1, text, (size_t)length) == length);
}

static size_t part(size_t size) {
    return size < PART ? size : PART;
}

static int ends_are(struct object object, size_t size, int byte) {
    size_t length = part(size);
    return all(object.at, length, byte) && all(object.at + size - length, length, byte);
}

static void fill(struct object object) {
    size_t length = part(object.size);
    memset(object.at, object.byte, length);
    memset(object.at + object.size - length, object.byte, length);
}

enum how { PLAIN, ZEROED, ALIGNED };

static void make(enum how how, size_t size, size_t align) {
    CHECK(count < MOST);
    errno = 0;
    void *at = NULL;
    int error = 0;
    if (how == ALIGNED)
        error = posix_memalign(&at, align, size);
    else
        at = how == ZEROED ? calloc(1, size) : malloc(size);
    CHECK(how == ALIGNED ? errno == 0 : (error = errno, 1));
    CHECK(at ? error == 0 : error == ENOMEM);
    if (!at) {
        refused++;
        return;
    }
    CHECK((size_t)at % align == 0);
    struct object object = {at, size, count % 255 + 1};
    if (how == ZEROED)
        CHECK(ends_are(object, size, 0));
    fill(object);
    live[count++] = object;
}

static void resize(int number, size_t size) {
    struct object *object = &live[number];
    errno = 0;
    void *at = realloc(object->at, size);
    CHECK(errno == (at ? 0 : ENOMEM));
    if (!at) {
        refused++;
        CHECK(ends_are(*object, object->size, object->byte));
        return;
    }
    size_t kept = part(size < object->size ? size : object->size);
    CHECK(all(at, kept, object->byte));
    object->at = at;
    object->size = size;
    fill(*object);
}

/* Frees all objects but every `keep`th. */
static void drop(int keep) {
    int left = 0;
    for (int number = 0; number < count; number++) {
        struct object object = live[number];
        CHECK(ends_are(object, object.size, object.byte));
        if (keep && number % keep == 0) {
            live[left++] = object;
            continue;
        }
        errno = 4711;
        free(object.at);
        CHECK(errno == 4711);
    }
    count = left;
}

static void trim(void) {
    errno = 4711;
    malloc_trim(0);
    CHECK(errno == 4711);
}

/* What another thread does: it frees what the first one made, and leaves it something. */
static void *helper(void *nothing) {
    drop(5);
    for (size_t index = 0; index < 300; index++)
        make(PLAIN, index * 131 % 3000, 1);
    make(PLAIN, 200000, 1);
    drop(3);
    return nothing;
}

static void in_a_thread(void *(*body)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, NULL) != 0) {
        refused_threads++;
        body(NULL);
        return;
    }
    CHECK(pthread_join(thread, NULL) == 0);
}

static void *nothing(void *argument) {
    return argument;
}

static void work(void) {
    for (size_t index = 0; index < 1200; index++) {
        size_t size = index * index * 7919 % 32768;
        make(PLAIN, size % 1000, 1);
        if (size % 16 == 0)
            make(ZEROED, size, 1);
    }
    for (size_t index = 0; index < 12; index++) {
        make(PLAIN, 40000 + index * 100000, 1);
        make(ZEROED, 3 * MB / 2, 1);
        make(ALIGNED, (size_t)5000 << index % 8, (size_t)16 << index % 12);
    }
    drop(3);
    trim();
    make(ALIGNED, 100, 4 * MB);
    make(ZEROED, 70 * MB, 1);
    for (int number = 0; number < 40 && number < count; number++)
        resize(number, 100 + (size_t)number * 20000);
    in_a_thread(helper);
    make(ZEROED, 10 * MB, 1);
    /* Each has the next one behind it, so it moves. */
    int first = count;
    for (int number = 0; number < 4; number++)
        make(PLAIN, 5 * MB, 1);
    for (int number = first; number < count; number++)
        resize(number, 9 * MB);
    drop(0);
    trim();
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    say("main", 1);
    in_a_thread(nothing);
    size_t before = mallinfo2().uordblks;
    work();
    work();
    say("refused", refused);
    say("threads", refused_threads);
    int patience = atoi(argv[1]);
    static const size_t sizes[] = {16, 5000, 40000, MB, 8 * MB, 100 * MB};
    for (size_t index = 0; patience > 0 && index < sizeof sizes / sizeof *sizes; index++) {
        for (int attempt = 0; count == 0; attempt++) {
            CHECK(attempt <= patience);
            make(PLAIN, sizes[index], 1);
        }
        drop(0);
    }
    say("left", (long)(mallinfo2().uordblks - before));
    return 0;
}
