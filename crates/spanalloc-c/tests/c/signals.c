/* Signal handlers that allocate and free, whatever they interrupt. Objects they make are freed
 * outside of them, and the other way round. */
#include "objects.h"

#include <malloc.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

static int handled;
static __thread unsigned handler_seed;

/* What a handler does: each path at times, and objects of others. */
static void on_signal(int number) {
    int saved = errno;
    (void)number;
    if (handler_seed == 0)
        handler_seed = (unsigned)(size_t)&handler_seed | 1;
    unsigned *seed = &handler_seed;
    switch (next(seed) % 8) {
    case 0:
        unmake(swap_shared(next(seed), NULL));
        break;
    case 1: {
        size_t size = some_size(seed);
        unsigned char *zeroed = calloc(1, size);
        CHECK(zeroed && all(zeroed, size, 0));
        zeroed = realloc(zeroed, size * 2);
        CHECK(zeroed && all(zeroed, size, 0));
        unmake(swap_shared(next(seed), filled(zeroed, size)));
        break;
    }
    case 2:
        for (int count = 0; count < 100; count++)
            unmake(swap_shared(next(seed), make(some_size(seed) % 200 + 16)));
        break;
    default:
        unmake(swap_shared(next(seed), make(some_size(seed))));
    }
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
    errno = saved;
}

/* A handler that asks for what the library knows, and gives memory back. */
static void on_question(int number) {
    int saved = errno;
    (void)number;
    struct mallinfo2 told = mallinfo2();
    CHECK(told.uordblks <= told.arena);
    (void)malloc_trim(0);
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
    errno = saved;
}

/* A handler that ends the process, and so writes the report. */
static void on_end(int number) {
    (void)number;
    exit(0);
}

static int enough(int count) { return __atomic_load_n(&handled, __ATOMIC_RELAXED) >= count; }

/* A signal to the calling thread every 100 us. */
static timer_t start_timer(void) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec often = {{.tv_nsec = 100000}, {.tv_nsec = 100000}};
    CHECK(timer_settime(timer, 0, &often, NULL) == 0);
    return timer;
}

static void *interrupted(void *count) {
    struct holder holder = {.seed = (unsigned)(size_t)&holder | 1};
    timer_t timer = start_timer();
    while (!enough((int)(size_t)count))
        step(&holder);
    CHECK(timer_delete(timer) == 0);
    unmake_own(&holder);
    return NULL;
}

static void in_threads(int count) {
    pthread_t threads[4];
    for (int number = 0; number < 4; number++)
        CHECK(pthread_create(&threads[number], NULL, interrupted, (void *)(size_t)count) == 0);
    for (int number = 0; number < 4; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
}

static void mask(int how) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    CHECK(pthread_sigmask(how, &set, NULL) == 0);
}

/* A thread whose first allocations are interrupted, and whose end. */
static void *young(void *thread_seed) {
    struct holder holder = {.seed = (unsigned)(size_t)thread_seed};
    mask(SIG_UNBLOCK);
    steps(&holder, 20);
    unmake_own(&holder);
    return NULL;
}

/* Signals for the whole process, which the main thread does not take: young threads do. */
static void in_young_threads(int count) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    mask(SIG_BLOCK);
    struct itimerspec often = {{.tv_nsec = 20000}, {.tv_nsec = 20000}};
    CHECK(timer_settime(timer, 0, &often, NULL) == 0);
    for (size_t number = 1; !enough(count); number++) {
        pthread_t threads[2];
        CHECK(pthread_create(&threads[0], NULL, young, (void *)number) == 0);
        CHECK(pthread_create(&threads[1], NULL, young, (void *)(number + 77)) == 0);
        CHECK(pthread_join(threads[0], NULL) == 0);
        CHECK(pthread_join(threads[1], NULL) == 0);
    }
    CHECK(timer_delete(timer) == 0);
}

int main(int argc, char **argv) {
    int count = times(argc, argv);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGRTMIN, &action, NULL) == 0);
    if (strcmp(argv[1], "main") == 0)
        interrupted((void *)(size_t)count);
    else if (strcmp(argv[1], "threads") == 0)
        in_threads(count);
    else if (strcmp(argv[1], "young_threads") == 0)
        in_young_threads(count);
    else if (strcmp(argv[1], "questions") == 0 || strcmp(argv[1], "end") == 0) {
        action.sa_handler = argv[1][0] == 'q' ? on_question : on_end;
        CHECK(sigaction(SIGRTMIN, &action, NULL) == 0);
        interrupted((void *)(size_t)count);
    } else
        CHECK(!"a scenario of this name");
    unmake_shared();
    printf("handled=%d\n", handled);
    return 0;
}
