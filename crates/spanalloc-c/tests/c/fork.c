/* Processes that fork while others of their threads are inside the allocator. */
#include "handlers.h"

#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static struct holder mine = {.seed = 99};

static void pause_for(long nanoseconds) {
    nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL);
}

static void wait_for(pid_t child) {
    int status;
    pid_t ended;
    do
        ended = waitpid(child, &status, 0);
    while (ended < 0 && errno == EINTR);
    CHECK(ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* What a child does: allocates, and frees what other threads made. */
static void work_in_child(void) {
    size_t size = 3 << 20;
    unsigned char *zeroed = calloc(1, size);
    CHECK(zeroed && all(zeroed, size, 0));
    memset(zeroed, 1, size);
    free(zeroed);
    unmake_shared();
    steps(&mine, 500);
    unmake_own(&mine);
    exercise();
}

static void *steps_in_thread(void *seed) {
    struct holder holder = {.seed = (unsigned)(size_t)seed};
    steps(&holder, 1000);
    unmake_own(&holder);
    return NULL;
}

static void child_with_threads(void) {
    pthread_t threads[3];
    for (size_t number = 0; number < 3; number++)
        CHECK(pthread_create(&threads[number], NULL, steps_in_thread, (void *)(number + 1)) == 0);
    work_in_child();
    for (int number = 0; number < 3; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
}

static pthread_key_t late;

/* Comes again and again, until the thread has no cache any more. */
static void at_end(void *round) {
    steps_in_thread(round);
    if ((size_t)round < PTHREAD_DESTRUCTOR_ITERATIONS)
        CHECK(pthread_setspecific(late, (char *)round + 1) == 0);
}

static void *ends_late(void *nothing) {
    CHECK(pthread_setspecific(late, (void *)1) == 0);
    return nothing;
}

/* Threads that allocate when their cache is gone, as some did in the parent, beside new ones. */
static void child_with_late_threads(void) {
    for (int round = 0; round < 10; round++) {
        pthread_t threads[6];
        for (size_t number = 0; number < 6; number++)
            CHECK(pthread_create(&threads[number], NULL, number % 2 ? steps_in_thread : ends_late,
                                 (void *)(number + 1)) == 0);
        for (int number = 0; number < 6; number++)
            CHECK(pthread_join(threads[number], NULL) == 0);
    }
    work_in_child();
}

static void child_with_child(void) {
    steps(&mine, 100);
    pid_t child = fork();
    CHECK(child >= 0);
    work_in_child();
    if (child == 0)
        _exit(0);
    wait_for(child);
}

/* Forks at moments that the other threads do not choose. */
static void fork_often(int count, void (*work)(void)) {
    for (int number = 0; number < count; number++) {
        steps(&mine, (int)(next(&mine.seed) % 50));
        if (next(&mine.seed) % 4 == 0)
            pause_for(next(&mine.seed) % 300000);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            work();
            if (number % 8 == 0)
                exit(0);
            _exit(0);
        }
        wait_for(child);
    }
}

/* Threads that keep some of what they make for ever, whatever went on when they made it. */
static size_t kept_bytes;

static void *keeps(void *thread_seed) {
    unsigned seed = (unsigned)(size_t)thread_seed;
    struct object *own[OWN] = {NULL};
    while (!stopped()) {
        struct object **place = &own[next(&seed) % OWN];
        if (*place && next(&seed) % 500 == 0)
            __atomic_fetch_add(&kept_bytes, (*place)->size, __ATOMIC_RELAXED);
        else
            unmake(*place);
        *place = make(16 + next(&seed) % 500);
    }
    return NULL;
}

static void fork_beside_keepers(int count) {
    pthread_t threads[2];
    for (size_t number = 0; number < 2; number++)
        CHECK(pthread_create(&threads[number], NULL, keeps, (void *)(number + 1)) == 0);
    for (int number = 0; number < count; number++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(0);
        wait_for(child);
    }
    stop = 1;
    for (int number = 0; number < 2; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
    printf("kept=%zu resident=%ld\n", kept_bytes >> 10, resident());
}

/* Fork handlers of an older library and of this program allocate; a thread allocates with a lock
 * that the older library's handlers take. */
static void (*early_step)(struct holder *);

static void *early_steps(void *nothing) {
    struct holder holder = {.seed = 7};
    while (!stopped())
        early_step(&holder);
    unmake_own(&holder);
    return nothing;
}

static void handlers(int count) {
    early_step = (void (*)(struct holder *))dlsym(RTLD_DEFAULT, "early_step");
    int (*early_forks)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "early_forks");
    CHECK(early_step && early_forks);
    register_handlers();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, early_steps, NULL) == 0);
    fork_often(count, work_in_child);
    stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(early_forks() == count && prepared == count && continued == count);
}

static void *forks_in_thread(void *count) {
    unsigned seed = 5;
    for (size_t number = 0; number < (size_t)count; number++) {
        unmake(make(some_size(&seed)));
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            work_in_child();
            _exit(0);
        }
        wait_for(child);
    }
    return NULL;
}

static void two_at_once(int count) {
    pthread_t threads[2];
    for (int number = 0; number < 2; number++)
        CHECK(pthread_create(&threads[number], NULL, forks_in_thread, (void *)(size_t)count) == 0);
    for (int number = 0; number < 2; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
}

/* A signal every 100 us, whatever the main thread is in the middle of. */
static volatile int signals, child_allocates;

static void next_signal(void) {
    struct itimerval once = {.it_value = {.tv_usec = 100}};
    CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
}

static void fork_in_handler(int number) {
    int saved = errno;
    pid_t child = fork();
    CHECK(child >= 0 && number == SIGALRM);
    if (child == 0) {
        if (child_allocates) {
            unsigned char *zeroed = calloc(1, 100000);
            CHECK(zeroed && all(zeroed, 100000, 0));
            free(zeroed);
            unmake_shared();
            unmake(make(100));
        }
        _exit(0);
    }
    wait_for(child);
    signals++;
    next_signal();
    errno = saved;
}

static void mask_alarm(int how) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    CHECK(pthread_sigmask(how, &set, NULL) == 0);
}

static void in_signal_handler(int count) {
    struct sigaction action = {.sa_handler = fork_in_handler};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    mask_alarm(SIG_UNBLOCK);
    next_signal();
    while (signals < count)
        step(&mine);
    mask_alarm(SIG_BLOCK);
}

/* The stream locks: one thread holds a stream's while it allocates, another waits for that with
 * the lock of the list of streams, which a fork takes too. */
static void *reads_lines(void *stream) {
    while (!stopped()) {
        char *line = NULL;
        size_t size = 0;
        rewind(stream);
        while (getline(&line, &size, stream) > 0) {
            free(line);
            line = NULL;
            size = 0;
        }
        free(line);
        pause_for(20000);
    }
    return NULL;
}

static void *flushes(void *nothing) {
    while (!stopped()) {
        fflush(NULL);
        pause_for(20000);
    }
    return nothing;
}

static void streams(int count) {
    pthread_t threads[4];
    for (int number = 0; number < 4; number += 2) {
        FILE *stream = tmpfile();
        CHECK(stream);
        for (int line = 0; line < 200; line++)
            fprintf(stream, "%*d\n", line * line, line);
        CHECK(pthread_create(&threads[number], NULL, reads_lines, stream) == 0);
        CHECK(pthread_create(&threads[number + 1], NULL, flushes, NULL) == 0);
    }
    for (int number = 0; number < count; number++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            free(malloc(1000));
            _exit(0);
        }
        wait_for(child);
    }
    stop = 1;
    for (int number = 0; number < 4; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
}

/* Children that run on this process's memory until they are another program. */
static pid_t vfork_and_execute(char **arguments, char **environment) {
    pid_t child = vfork();
    if (child == 0) {
        execve(arguments[0], arguments, environment);
        _exit(127);
    }
    return child;
}

static void spawn_often(int count, char *program) {
    char *arguments[] = {program, NULL}, *environment[] = {NULL};
    for (int number = 0; number < count; number++) {
        pid_t child;
        steps(&mine, 10);
        if (number % 8 == 0)
            child = vfork_and_execute(arguments, environment);
        else
            CHECK(posix_spawn(&child, program, NULL, NULL, arguments, environment) == 0);
        CHECK(child > 0);
        wait_for(child);
    }
}

static void fork_after_late_threads(int count) {
    pthread_t thread;
    CHECK(pthread_key_create(&late, at_end) == 0);
    CHECK(pthread_create(&thread, NULL, ends_late, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    fork_often(count, child_with_late_threads);
}

static int named(char **argv, const char *name) { return strcmp(argv[1], name) == 0; }

int main(int argc, char **argv) {
    int count = times(argc, argv);
    if (named(argv, "streams")) {
        streams(count);
        return 0;
    }
    if (named(argv, "keepers")) {
        fork_beside_keepers(count);
        return 0;
    }
    mask_alarm(SIG_BLOCK);
    start_hammers();
    if (named(argv, "handlers")) {
        handlers(count);
    } else if (named(argv, "threads")) {
        fork_often(count, child_with_threads);
    } else if (named(argv, "late_threads")) {
        fork_after_late_threads(count);
    } else if (named(argv, "children")) {
        fork_often(count, child_with_child);
    } else if (named(argv, "two_at_once")) {
        two_at_once(count);
    } else if (named(argv, "in_signal_handler")) {
        in_signal_handler(count);
    } else if (named(argv, "handlers_in_signal_handler")) {
        register_handlers();
        in_signal_handler(count);
        CHECK(prepared >= count);
    } else if (named(argv, "allocates_after_signal_handler")) {
        child_allocates = 1;
        in_signal_handler(count);
    } else if (named(argv, "spawn")) {
        CHECK(argc > 3);
        spawn_often(count, argv[3]);
    } else {
        CHECK(!"a scenario of this name");
    }
    stop_hammers();
    unmake_own(&mine);
    unmake_shared();
    return 0;
}
