/* A C program, into which no C++ library is loaded, calls operator new. */
#include "check.h"

#include <dlfcn.h>
#include <stdint.h>

int main(void) {
    void *(*new)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "_Znwm");
    CHECK(new);
    void *object = new (100);
    CHECK(object);
    free(object);
    new (SIZE_MAX / 2);
    return 0;
}
