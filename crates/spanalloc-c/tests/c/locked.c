/* 2 MB of objects in a process that locks all its memory: how much more is locked and resident
 * afterwards, in KB. Locked before the first allocation, or late. */
#include "check.h"
#include <sys/mman.h>

/* A number of /proc/self/status. Allocates nothing. */
static long status(const char *name) {
    static char text[8192];
    int file = open("/proc/self/status", O_RDONLY);
    CHECK(file >= 0);
    ssize_t length = read(file, text, sizeof text - 1);
    CHECK(length > 0 && close(file) == 0);
    text[length] = 0;
    char *number = strstr(text, name);
    CHECK(number);
    return atol(number + strlen(name));
}

static void fill(size_t bytes, size_t size) {
    for (size_t done = 0; done < bytes; done += size) {
        char *object = malloc(size);
        CHECK(object);
        memset(object, 1, size);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (strcmp(argv[1], "late") == 0)
        free(malloc(100));
    CHECK(mlockall(MCL_FUTURE) == 0);
    long locked = status("VmLck:"), resident = status("VmRSS:");
    fill(1 << 20, 64);
    fill(1 << 19, 4096);
    fill(1 << 19, 1 << 18);
    locked = status("VmLck:") - locked;
    resident = status("VmRSS:") - resident;
    printf("locked=%ld resident=%ld\n", locked, resident);
    return 0;
}
