// What a C++ program does after its main: destructors of objects, and functions for the exit, all
// of which allocate and free; with a thread that never ends.
#include "check.h"

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static std::string order;

struct Global {
    char name;
    std::map<int, std::string> words;
    std::unique_ptr<char[]> block{new char[200000]};

    explicit Global(char name) : name(name) {
        for (int word = 0; word < 500; word++)
            words[word] = std::string(static_cast<size_t>(word), name);
    }

    ~Global() {
        words.erase(250);
        auto copy = words;
        words.clear();
        copy[1000] = std::string(100000, 'z');
        block.reset(new char[300000]);
        if (name != 't')
            order += name;
    }
};

static Global first('1');
static Global second('2');

// Ends with an object that is older than all others.
__attribute__((destructor)) static void last() {
    free(realloc(calloc(10, 10), 5000));
    delete[] new char[70000];
    CHECK(order == "ba21");
    CHECK(write(1, "ended", 5) == 5);
}

int main() {
    static Global local('a');
    std::atexit([] {
        std::vector<std::string> words(100, std::string(1000, 'w'));
        order = "b";
    });
    std::thread([] {
        for (;;)
            delete new Global('t');
    }).detach();
    // Given back by nobody, in use at the exit.
    return *new int(0);
}
