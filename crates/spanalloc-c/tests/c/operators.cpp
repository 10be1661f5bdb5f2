// The operators new and delete of C++: every form, with memory and without.
#include "check.h"

#include <cstdint>
#include <malloc.h>
#include <memory>
#include <new>
#include <stdexcept>
#include <sys/resource.h>
#include <thread>
#include <vector>

static const size_t absurd = SIZE_MAX / 2;

// Out of sight of a compiler that knows what the operators do.
static void *volatile seen;
template <class T> static T *look(T *object) {
    seen = const_cast<void *>(static_cast<const volatile void *>(object));
    return static_cast<T *>(seen);
}

template <class Call> static bool throws(Call call) {
    try {
        look(static_cast<char *>(call()));
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

struct alignas(256) Wide {
    char bytes[300];
};

static void forms() {
    const auto wide = std::align_val_t(64);
    const auto &no = std::nothrow;
    CHECK(malloc_usable_size(look(::operator new(17))) == 32);
    for (size_t size : {0, 1, 16, 17, 1000, 5000, 40000, 1 << 20}) {
        ::operator delete(look(::operator new(size)));
        ::operator delete(look(::operator new(size)), size);
        ::operator delete(look(::operator new(size, no)), no);
        ::operator delete(look(::operator new(size, wide)), wide);
        ::operator delete(look(::operator new(size, wide)), size, wide);
        ::operator delete(look(::operator new(size, wide, no)), wide, no);
        ::operator delete[](look(::operator new[](size)));
        ::operator delete[](look(::operator new[](size)), size);
        ::operator delete[](look(::operator new[](size, no)), no);
        ::operator delete[](look(::operator new[](size, wide)), wide);
        ::operator delete[](look(::operator new[](size, wide)), size, wide);
        ::operator delete[](look(::operator new[](size, wide, no)), wide, no);
        void *one = ::operator new(size), *other = ::operator new(size);
        CHECK(one && other && one != other);
        ::operator delete(one);
        ::operator delete(other);
    }
    ::operator delete(nullptr);
    ::operator delete(nullptr, 100);
    for (int i = 0; i < 100; i++) {
        Wide *single = look(new Wide), *several = look(new Wide[3]);
        CHECK(reinterpret_cast<uintptr_t>(single) % 256 == 0);
        CHECK(reinterpret_cast<uintptr_t>(several) % 256 == 0);
        delete single;
        delete[] several;
        auto shared = std::make_shared<std::vector<int>>(i);
        CHECK(shared->size() == size_t(i));
    }
}

static void refusals() {
    const auto wide = std::align_val_t(4096);
    for (int i = 0; i < 100; i++) {
        CHECK(throws([] { return ::operator new(absurd); }));
        CHECK(throws([] { return ::operator new[](absurd); }));
        CHECK(throws([&] { return ::operator new(absurd, wide); }));
        CHECK(throws([&] { return ::operator new[](absurd, wide); }));
        CHECK(!look(::operator new(absurd, std::nothrow)));
        CHECK(!look(::operator new[](absurd, std::nothrow)));
        CHECK(!look(::operator new(absurd, wide, std::nothrow)));
        CHECK(!look(::operator new[](absurd, wide, std::nothrow)));
        bool caught = false;
        try {
            std::vector<char> vector(absurd - 1);
        } catch (const std::bad_alloc &) {
            caught = true;
        }
        CHECK(caught);
    }
    std::thread([] { CHECK(throws([] { return ::operator new(absurd); })); }).join();
    CHECK(look(::operator new(100)));
}

static int calls;

// What is on the stack when an exception passes is destroyed.
struct Guard {
    static int alive;
    Guard() { alive++; }
    ~Guard() { alive--; }
};
int Guard::alive;

static void handlers() {
    // One that gives up the third time.
    std::set_new_handler([] {
        if (++calls == 3)
            std::set_new_handler(nullptr);
    });
    CHECK(throws([] {
        Guard guard;
        return ::operator new(absurd);
    }));
    CHECK(calls == 3 && Guard::alive == 0);

    // One that throws.
    std::set_new_handler([] { throw std::runtime_error("no"); });
    bool caught = false;
    try {
        Guard guard;
        look(::operator new(absurd, std::align_val_t(64)));
    } catch (const std::runtime_error &error) {
        caught = !strcmp(error.what(), "no");
    }
    CHECK(caught && Guard::alive == 0);
    CHECK(!look(::operator new(absurd, std::nothrow)));

    // One that finds memory.
    rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_max == RLIM_INFINITY);
    limit.rlim_cur = size_t(1) << 30;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    const size_t much = size_t(2) << 30;
    std::set_new_handler(nullptr);
    CHECK(throws([=] { return ::operator new(much); }));
    calls = 0;
    std::set_new_handler([] {
        calls++;
        rlimit limit{RLIM_INFINITY, RLIM_INFINITY};
        CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    });
    char *object = look(static_cast<char *>(::operator new(much)));
    CHECK(object && calls == 1);
    object[0] = object[much - 1] = 1;
    ::operator delete(object, much);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    if (!strcmp(argv[1], "forms")) forms();
    else if (!strcmp(argv[1], "refusals")) refusals();
    else if (!strcmp(argv[1], "handlers")) handlers();
    else if (!strcmp(argv[1], "wrong size")) ::operator delete(look(::operator new(64)), 200);
    else if (!strcmp(argv[1], "wrong alignment"))
        ::operator delete(look(::operator new(64)), 64, std::align_val_t(4096));
    else if (!strcmp(argv[1], "twice")) {
        void *object = look(::operator new[](64));
        ::operator delete[](object);
        ::operator delete[](seen);
    } else CHECK(!"a scenario");
}
