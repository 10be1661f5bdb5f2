/* Functions of glibc that programs rarely call, on this library: each does what its manual says. */
#include "check.h"

#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);
void *__libc_memalign(size_t, size_t);
void *__libc_valloc(size_t);
void *__libc_pvalloc(size_t);
int __posix_memalign(void **, size_t, size_t);
struct mallinfo __libc_mallinfo(void);
int __libc_mallopt(int, int);
void cfree(void *);
/* The newest glibc does not have these two. */
#pragma weak __posix_memalign
#pragma weak cfree
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* Whether `bytes` bytes were added for a large object of `size` bytes, which may have a guard. */
static int added(size_t bytes, size_t size) { return bytes >= size && bytes <= size + (128 << 10); }

#define MANY 1000

static void second_names(void) {
    char *object = __libc_malloc(100), *other;
    void *aligned = NULL;
    CHECK(object && malloc_usable_size(object) == 112);
    memset(object, 7, 100);
    object = __libc_realloc(object, 100000);
    CHECK(object && all((unsigned char *)object, 100, 7));
    free(object);
    other = __libc_calloc(100, 10);
    CHECK(other && all((unsigned char *)other, 1000, 0));
    __libc_free(other);
    CHECK(!__libc_realloc(malloc(5), 0));

    object = __libc_memalign(256, 5);
    CHECK((uintptr_t)object % 256 == 0);
    cfree(object);
    object = __libc_valloc(5);
    CHECK((uintptr_t)object % 4096 == 0);
    cfree(object);
    object = __libc_pvalloc(5);
    CHECK((uintptr_t)object % 4096 == 0 && malloc_usable_size(object) >= 4096);
    cfree(object);
    CHECK(__posix_memalign(&aligned, 24, 5) == EINVAL && !aligned);
    CHECK(__posix_memalign(&aligned, 1 << 20, 5) == 0 && (uintptr_t)aligned % (1 << 20) == 0);
    cfree(aligned);
    cfree(NULL);
    CHECK(__libc_mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1 && __libc_mallopt(12345, 1) == 0);
    CHECK(__libc_mallinfo().uordblks == mallinfo().uordblks);

    errno = 0;
    CHECK(!__libc_malloc(SIZE_MAX) && errno == ENOMEM);
    errno = 0;
    CHECK(!__libc_calloc(SIZE_MAX / 2 + 1, 2) && errno == ENOMEM);
    errno = 0;
    CHECK(!__libc_memalign(SIZE_MAX, 2) && errno == EINVAL);
    errno = 0;
    CHECK(!__libc_pvalloc(SIZE_MAX) && errno == ENOMEM);
}

static void numbers(void) {
    struct mallinfo2 before = mallinfo2(), during, after;
    struct mallinfo narrow;
    static char *objects[MANY];
    char *large, *huge;
    for (int i = 0; i < MANY; i++)
        CHECK((objects[i] = malloc(1000)));
    CHECK((large = malloc(5 << 20)));
    during = mallinfo2();
    CHECK(during.uordblks == before.uordblks + MANY * 1024);
    CHECK(during.hblks == before.hblks + 1);
    CHECK(added(during.hblkhd - before.hblkhd, 5 << 20));
    CHECK(during.arena >= before.arena);
    CHECK(during.arena == during.uordblks + during.fordblks);
    CHECK(during.usmblks == 0 && during.fsmblks <= during.fordblks);
    narrow = mallinfo();
    CHECK(narrow.arena == (int)during.arena && narrow.hblks == (int)during.hblks);
    CHECK(narrow.uordblks == (int)during.uordblks && narrow.keepcost == (int)during.keepcost);
    for (int i = 0; i < MANY; i++)
        free(objects[i]);
    free(large);
    after = mallinfo2();
    CHECK(after.uordblks == before.uordblks && after.hblkhd == before.hblkhd);
    CHECK(after.keepcost >= 5 << 20);
    /* Three gigabytes of address space, none of it touched. */
    huge = malloc((size_t)3 << 30);
    if (huge) {
        CHECK(mallinfo().hblkhd == INT_MAX && mallinfo2().hblkhd >= (size_t)3 << 30);
        free(huge);
    }
}

static void trimming(void) {
    size_t bytes = 20 << 20;
    char *large = malloc(bytes);
    memset(large, 1, bytes);
    long with = resident();
    free(large);
    errno = 4711;
    CHECK(malloc_trim(0) == 1);
    CHECK(resident() < with - (19 << 10));
    CHECK(malloc_trim(0) == 0);
    CHECK(errno == 4711);
    CHECK(mallinfo2().keepcost < bytes);
}

static void parameters(void) {
    int known[] = {M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX,
                   M_CHECK_ACTION, M_PERTURB, M_ARENA_TEST, M_ARENA_MAX};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        CHECK(mallopt(known[i], 1) == 1);
    CHECK(mallopt(0, 1) == 0 && mallopt(1000, 1) == 0 && mallopt(-1000, 1) == 0);
}

/* Written to standard output, where the test reads it. */
static void description(void) {
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    void *large = malloc(1 << 20);
    errno = 0;
    CHECK(malloc_info(1, stream) == -1 && errno == EINVAL);
    CHECK(malloc_info(0, stream) == 0);
    CHECK(fclose(stream) == 0 && length == strlen(text));
    printf("%s", text);
    free(text);
    free(large);
}

static void *everything(void *stream) {
    CHECK(mallinfo2().arena > 0 && mallinfo().arena > 0);
    CHECK(malloc_info(0, stream) == 0);
    malloc_stats();
    malloc_trim(0);
    free(memalign(1 << 16, malloc_usable_size(calloc(100, 100))));
    return NULL;
}

/* All of it in a thread with a stack of so many bytes. */
static void small_stack(size_t bytes) {
    pthread_attr_t attributes;
    pthread_t thread;
    FILE *stream = fopen("/dev/null", "w");
    CHECK(stream && pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, bytes) == 0);
    CHECK(pthread_create(&thread, &attributes, everything, stream) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    if (!strcmp(argv[1], "names")) second_names();
    else if (!strcmp(argv[1], "numbers")) numbers();
    else if (!strcmp(argv[1], "trimming")) trimming();
    else if (!strcmp(argv[1], "parameters")) parameters();
    else if (!strcmp(argv[1], "description")) description();
    else if (!strcmp(argv[1], "stats")) malloc_stats();
    else if (!strcmp(argv[1], "small stack")) small_stack((size_t)times(argc, argv));
    else CHECK(!"a scenario");
    return 0;
}
