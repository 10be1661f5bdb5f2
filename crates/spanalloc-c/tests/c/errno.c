/* errno is the program's: a call that works leaves it as it is, whatever the system refuses
 * meanwhile. The argument says whether the system refuses to take memory back. */
#include "objects.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* From now on munmap and madvise fail. */
static void refuse(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    CHECK(madvise(&program, 1, MADV_DONTNEED) < 0 && errno == ENOMEM);
}

#define MANY 3000
static void *objects[MANY];

static void make_all(void) {
    unsigned seed = 17;
    for (int number = 0; number < MANY; number++) {
        errno = 1234;
        size_t size = number % 100 ? some_size(&seed) : 1000000 + (size_t)number;
        objects[number] = number % 3 ? malloc(size) : calloc(1, size);
        CHECK(objects[number] && errno == 1234);
        if (number % 5 == 0) {
            objects[number] = realloc(objects[number], size * 2);
            CHECK(objects[number] && errno == 1234);
        }
    }
}

static void *free_all(void *nothing) {
    for (int number = 0; number < MANY; number++) {
        errno = 1234;
        free(objects[number]);
        CHECK(errno == 1234);
    }
    errno = 1234;
    malloc_trim(0);
    CHECK(errno == 1234);
    return nothing;
}

int main(int argc, char **argv) {
    errno = 1234;
    free(NULL);
    free(malloc(1));
    CHECK(errno == 1234);
    if (argc > 1 && strcmp(argv[1], "refuse") == 0)
        refuse();
    for (int round = 0; round < 4; round++) {
        make_all();
        free_all(NULL);
        make_all();
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, free_all, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return 0;
}
