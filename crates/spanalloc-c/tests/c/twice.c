/* A program with a bug: it frees an object twice. Says whether the system trusts whoever started
 * it, and at its end that it got that far. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

int main(void) {
    void *object = malloc(56);
    printf("secure=%lu\n", getauxval(AT_SECURE));
    fflush(stdout);
    free(object);
    free(object);
    printf("survived=1\n");
    return 0;
}
