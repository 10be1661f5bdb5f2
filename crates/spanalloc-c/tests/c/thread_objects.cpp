// Thread-local objects of C++, whose destructors free and allocate when their thread ends.
#include "check.h"

#include <string>
#include <thread>
#include <vector>

static std::vector<std::string> *left_by_all;
static int ended;

struct Last {
    std::vector<std::string> words;
    ~Last() {
        for (const std::string &word : words)
            CHECK(word.size() == 100 && word[99] == 'x');
        std::vector<std::string> more(words.rbegin(), words.rend());
        words.clear();
        // Kept beyond the thread.
        left_by_all->push_back(more.front());
        ended++;
    }
};

static thread_local Last last;
static thread_local std::string text(50, 'y');

int main(int argc, char **argv) {
    int count = times(argc, argv);
    long early = 0;
    left_by_all = new std::vector<std::string>;
    left_by_all->reserve(100);
    for (int number = 0; number < count; number++) {
        if (number == 100)
            early = resident();
        std::thread([] {
            for (int word = 0; word < 200; word++)
                last.words.emplace_back(100, 'x');
            text += "more than fits where it was";
        }).join();
        if (left_by_all->size() == 100)
            left_by_all->clear();
    }
    CHECK(ended == count);
    std::printf("growth=%ld\n", resident() - early);
    delete left_by_all;
}
