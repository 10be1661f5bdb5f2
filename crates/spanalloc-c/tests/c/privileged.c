/* Says whether it runs with rights that its user does not have. Linked with the library. */
#include <spanalloc.h>

#include <stdio.h>
#include <sys/auxv.h>

int main(void) {
    printf("privileged=%lu version=%s\n", getauxval(AT_SECURE), spanalloc_version());
    return 0;
}
