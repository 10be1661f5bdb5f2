/* A library whose constructor is one of the first things of a process: it registers fork handlers
 * and makes thread keys. */
#include "handlers.h"

/* A lock that is held across a fork, and around allocations of `early_step`. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void lock_and_allocate(void) {
    CHECK(pthread_mutex_lock(&lock) == 0);
    before_fork();
}

static void allocate_and_unlock(void) {
    after_fork();
    CHECK(pthread_mutex_unlock(&lock) == 0);
}

void early_step(struct holder *holder) {
    CHECK(pthread_mutex_lock(&lock) == 0);
    steps(holder, 5);
    CHECK(pthread_mutex_unlock(&lock) == 0);
}

int early_forks(void) { return prepared; }

__attribute__((constructor)) static void constructor(void) {
    CHECK(pthread_atfork(lock_and_allocate, allocate_and_unlock, allocate_and_unlock) == 0);
    for (int number = 0; number < 40; number++) {
        pthread_key_t key;
        CHECK(pthread_key_create(&key, NULL) == 0);
    }
}
