/* Runs the proof: the static library holds all it needs but memcpy and its like. */
#include <stddef.h>
#include <stdio.h>

size_t no_std_proof(void);

/* The tables that unwind `core` name this. Nothing unwinds here, so nothing calls it. */
void rust_eh_personality(void) {}

int main(void) {
    size_t reserved = no_std_proof();
    if (reserved == 0) {
        fputs("the allocator without std does not work\n", stderr);
        return 1;
    }
    printf("an allocator without std and alloc works, in %zu KB\n", reserved / 1024);
    return 0;
}
