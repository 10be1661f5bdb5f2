/* Uses everything that spanalloc.h declares. Valid C and C++. */
#include <spanalloc.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            printf("line %d: %s\n", __LINE__, #condition);                     \
            return 1;                                                          \
        }                                                                      \
    } while (0)

/* Counts how often there was pressure. */
static void under_pressure(void *context, size_t committed, size_t limit) {
    if (committed > limit) {
        ++*(int *)context;
    }
    free(malloc(100));
}

int main(void) {
    int told = 0;
    struct spanalloc_snapshot before, during, after;
    char *small[100], *large;
    int i;
    CHECK(strncmp(spanalloc_version(), "0.", 2) == 0);

    spanalloc_get_snapshot(&before);
    for (i = 0; i < 100; i++) {
        small[i] = (char *)malloc(1000);
        memset(small[i], 1, 1000);
    }
    large = (char *)malloc(10 << 20);
    memset(large, 1, 10 << 20);
    spanalloc_get_snapshot(&during);
    CHECK(during.objects == before.objects + 101);
    CHECK(during.large_objects == before.large_objects + 1);
    /* A large object may have a guard behind it. */
    CHECK(during.large >= before.large + (10 << 20));
    CHECK(during.large <= before.large + (10 << 20) + (128 << 10));
    CHECK(during.live - during.large == before.live - before.large + 100 * 1024);
    CHECK(during.threads == 1);
    CHECK(during.metadata > 0);
    CHECK(during.reserved >= during.committed);
    CHECK(during.committed == during.live + during.cached + during.free + during.wasted);
    CHECK(during.reserved == during.committed + during.returned);

    for (i = 0; i < 100; i++) {
        free(small[i]);
    }
    free(large);
    CHECK(spanalloc_release() >= 10 << 20);
    spanalloc_get_snapshot(&after);
    CHECK(after.objects == before.objects);
    CHECK(after.committed <= during.committed - (10 << 20));

    CHECK(spanalloc_start_background() == 0);
    CHECK(spanalloc_start_background() == 0);
    spanalloc_on_pressure(under_pressure, &told);
    spanalloc_set_soft_limit(16 << 20);
    large = (char *)malloc(20 << 20);
    CHECK(large != NULL && told == 1);
    free(large);
    spanalloc_release();
    spanalloc_set_soft_limit((size_t)-1);
    spanalloc_on_pressure(NULL, NULL);
    spanalloc_set_hard_limit(16 << 20);
    CHECK(malloc(20 << 20) == NULL);
    spanalloc_set_limits_by_cgroup();
    spanalloc_set_soft_limit((size_t)-1);
    spanalloc_set_hard_limit((size_t)-1);
    large = (char *)malloc(20 << 20);
    CHECK(large != NULL && told == 1);
    free(large);

    CHECK(spanalloc_dump(1) == 0);
    CHECK(spanalloc_dump(-1) == -1);
    CHECK(spanalloc_dump_json(1) == 0);
    CHECK(spanalloc_dump_json(-1) == -1);
    CHECK(spanalloc_dump_prometheus(1) == 0);
    CHECK(spanalloc_dump_prometheus(-1) == -1);

    spanalloc_set_thread_cache(1 << 20);
    CHECK(spanalloc_set_huge_pages(SPANALLOC_HUGE_PAGES_ALWAYS) == 0);
    CHECK(spanalloc_set_huge_pages(SPANALLOC_HUGE_PAGES_OFF) == 0);
    CHECK(spanalloc_set_huge_pages(3) == -1);
    CHECK(spanalloc_set_huge_pages(SPANALLOC_HUGE_PAGES_ADVISE) == 0);
    spanalloc_set_thread_cache((size_t)-1);

    /* What would end the process is left alone from now on. */
    spanalloc_trust_program();
    large = (char *)malloc(100);
    free(large);
    free(large);
    free(&after);

    CHECK(spanalloc_report_at_exit(SPANALLOC_REPORT_STATS) == SPANALLOC_REPORT_NOTHING);
    CHECK(spanalloc_report_at_exit(SPANALLOC_REPORT_MAP) == SPANALLOC_REPORT_STATS);
    return 0;
}
