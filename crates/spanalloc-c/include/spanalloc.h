/* What the C library of the spanalloc allocator offers beyond malloc and its relatives, which the
 * headers of the C library declare. Link with -lspanalloc_c.
 *
 * Made from src/api.rs: SPANALLOC_WRITE_HEADER=1 cargo test -p spanalloc-c --test header */


#ifndef SPANALLOC_H
#define SPANALLOC_H

#include <stddef.h>

// Nothing is reported when the process exits.
#define SPANALLOC_REPORT_NOTHING 0

// What the heap holds is reported when the process exits, as with SPANALLOC_STATS=1.
#define SPANALLOC_REPORT_STATS 1

// The heap is drawn when the process exits, as with SPANALLOC_MAP=1.
#define SPANALLOC_REPORT_MAP 2

// No memory is asked to be huge pages. What the system does by itself is its own affair.
#define SPANALLOC_HUGE_PAGES_OFF 0

// Memory that is expected to be filled from end to end is.
#define SPANALLOC_HUGE_PAGES_ADVISE 1

// All memory is, by blocks of 2 MB.
#define SPANALLOC_HUGE_PAGES_ALWAYS 2

// What the heap holds, in bytes unless named otherwise. Exact while no other thread is in the
// allocator; otherwise each number is one that was true at some moment. The sums hold in any case:
// `committed = live + cached + free + wasted`, `reserved = committed + returned`, and
// `committed + metadata` is what is in memory if all of it was touched.
struct spanalloc_snapshot {
    // Address space for objects.
    size_t reserved;
    // The part of it that has memory: live, cached, free and wasted.
    size_t committed;
    // Objects of the program, with what their sizes were rounded up by.
    size_t live;
    // Free slots that threads have at hand, and free pages that they keep.
    size_t cached;
    // Free slots, and free pages that have memory.
    size_t free;
    // Ends of spans, too short for a slot, and pages that became metadata.
    size_t wasted;
    // Memory of the allocator's own tables, beside `committed`.
    size_t metadata;
    // Number of objects, small and large.
    size_t objects;
    // Number of objects above 32 KB.
    size_t large_objects;
    // Bytes of those; part of `live`.
    size_t large;
    // Number of threads that have a cache.
    size_t threads;
    // Address space for objects without memory: given back to the system, never used, or a guard.
    size_t returned;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, as "0.1.0".
const char *spanalloc_version(void);

// Writes to `*snapshot` what the heap holds now. Allocates nothing.
//
// # Safety
// `snapshot` may be written to.
void spanalloc_get_snapshot(struct spanalloc_snapshot *snapshot);

// Writes to the file descriptor what the heap holds now, for people. Allocates nothing. Returns 0, or
// -1 if it could not be written.
int spanalloc_dump(int file);

// As spanalloc_dump, as JSON: one object on one line, `{"/memory/classes/heap/objects:bytes":1234,...}`.
// The names are those of Go's `runtime/metrics` where it has the same; the last is `"classes"`, an
// array with one object for each size class in use.
int spanalloc_dump_json(int file);

// As spanalloc_dump, in the text format of Prometheus: the same figures as in JSON, as
// `spanalloc_memory_classes_heap_objects_bytes 1234`.
int spanalloc_dump_prometheus(int file);

// Starts a thread that gives free memory back to the system as it is no longer needed, as with
// SPANALLOC_BACKGROUND=1, if there is none in this process. The child of a fork has none. Returns 0, or -1 if
// the system has no thread to give.
int spanalloc_start_background(void);

// Gives free memory back to the system. Returns how many bytes that was.
size_t spanalloc_release(void);

// Sets from how many bytes on memory goes back to the system, as SPANALLOC_SOFT_LIMIT does: free pages
// first, then what the threads keep, as soon as each comes by. If that is not enough, the function that was
// given to `spanalloc_on_pressure` is called. No allocation fails for it. SIZE_MAX is no limit.
//
// What counts is `committed` of the snapshot, and `metadata`.
void spanalloc_set_soft_limit(size_t bytes);

// Sets how many bytes there may be at most, counted in the same way, as SPANALLOC_HARD_LIMIT does. An
// allocation that would take more fails with ENOMEM, once everything free that the thread can reach went
// back to the system. SIZE_MAX is no limit. If there are more bytes already, they stay.
void spanalloc_set_hard_limit(size_t bytes);

// Sets both limits by what the control group of the process may have now, as SPANALLOC_HARD_LIMIT=cgroup and
// SPANALLOC_SOFT_LIMIT=cgroup do: the hard one to 90 percent of it, the soft one to 80. Returns 0, or -1 if the
// group has no bounds; then there are no limits.
int spanalloc_set_limits_by_cgroup(void);

// Sets what is called, with `context`, when there is more memory than the soft limit and nothing that could
// be given back: `committed` bytes. It is called once, and not again before the memory was within the limit.
// Null is nobody.
//
// The function is called by a thread that has just allocated, which holds no lock of the allocator: it may
// allocate and free. What it frees goes back to the system by and by. It leaves errno as it was, and
// does not throw. A thread may be in the function for one last time after another one has taken its place.
//
// # Safety
// Any thread may call the function with this context, several at the same time.
void spanalloc_on_pressure(void (*callback)(void *context, size_t committed, size_t limit),
                           void *context);

// Sets the most bytes that each thread keeps of what it freed, as SPANALLOC_THREAD_CACHE does: a quarter of them as
// large objects, a quarter as small ones at hand, the rest as pages for small objects of any size. SIZE_MAX, as
// at first, is as many as the thread's use suggests, up to fixed bounds.
//
// Whatever the number, a thread keeps two objects at hand of each size class that it uses, and of a bound below 1 MB
// the pages that the next ones come from, up to 512 KB. What a thread keeps already goes as it frees more.
void spanalloc_set_thread_cache(size_t bytes);

// Chooses for which memory the system is asked for huge pages from now on, as SPANALLOC_HUGE_PAGES does: one of
// SPANALLOC_HUGE_PAGES_OFF, SPANALLOC_HUGE_PAGES_ADVISE, which is the first choice, and
// SPANALLOC_HUGE_PAGES_ALWAYS. Returns 0, or -1 if it is none of them.
int spanalloc_set_huge_pages(int choice);

// Trusts the program from now on, as with SPANALLOC_CHECK=0: what cannot be freed is left alone
// instead of ending the process.
void spanalloc_trust_program(void);

// Says what is reported when the process exits: SPANALLOC_REPORT_NOTHING, or the sum of
// SPANALLOC_REPORT_STATS and SPANALLOC_REPORT_MAP. Returns what was reported before.
int spanalloc_report_at_exit(int what);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SPANALLOC_H */
