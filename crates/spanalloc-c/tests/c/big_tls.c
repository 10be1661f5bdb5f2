/* A program whose thread-local variables are larger than the stack of a thread that needs little. */
#include "check.h"

static __thread char bytes[1 << 20];

/* Of the library that is preloaded. */
__attribute__((weak)) int spanalloc_start_background(void);

int main(void) {
    bytes[sizeof bytes - 1] = 1;
    CHECK(spanalloc_start_background() == 0);
    CHECK(bytes[sizeof bytes - 1] == 1);
    return 0;
}
