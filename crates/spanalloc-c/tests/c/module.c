/* A library with thread-local variables of the common kind, which the system allocates late. */
#include <stdlib.h>
#include <string.h>

static __thread char bytes[3000];
static __thread void *object;

int touch(int value) {
    memset(bytes, value, sizeof bytes);
    free(object);
    object = malloc(sizeof bytes);
    if (object == NULL)
        return 0;
    memcpy(object, bytes, sizeof bytes);
    int same = memcmp(object, bytes, sizeof bytes) == 0;
    free(object);
    object = NULL;
    return same;
}
