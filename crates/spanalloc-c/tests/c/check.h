/* What the C and C++ programs of the tests share. A check that fails ends the process. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

UNUSED static void failed(const char *what, const char *file, int line) {
    char text[256];
    int length = snprintf(text, sizeof text, "%s:%d: not so: %s (errno %d)\n", file, line, what, errno);
    if (write(2, text, (size_t)length) < 0)
        _exit(4);
    _exit(3);
}

/* A check that fails ends the process with one line. */
#define CHECK(condition) ((condition) ? (void)0 : failed(#condition, __FILE__, __LINE__))

/* The number after the name of the scenario: how often. */
UNUSED static int times(int argc, char **argv) {
    CHECK(argc > 2);
    return atoi(argv[2]);
}

UNUSED static unsigned next(unsigned *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

/* Resident memory in KB, counted page by page, but for that of files, which the system takes away and brings
   back as it likes. Allocates nothing. */
UNUSED static long resident(void) {
    static char text[4096];
    int file = open("/proc/self/smaps_rollup", O_RDONLY);
    CHECK(file >= 0);
    ssize_t length = read(file, text, sizeof text - 1);
    CHECK(length > 0 && close(file) == 0);
    text[length] = 0;
    char *number = strstr(text, "\nAnonymous:");
    CHECK(number);
    return atol(number + 11);
}

/* Whether `length` bytes are all `byte`. */
UNUSED static int all(const unsigned char *bytes, size_t length, int byte) {
    return length == 0 || (bytes[0] == (unsigned char)byte && !memcmp(bytes, bytes + 1, length - 1));
}

#endif
