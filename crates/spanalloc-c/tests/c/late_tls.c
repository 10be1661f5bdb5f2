/* Takes most of the space that a process has for thread-local variables of late libraries. */
static __thread char bytes[1600] __attribute__((tls_model("initial-exec")));

void *taken(void) {
    bytes[1599]++;
    return bytes;
}
