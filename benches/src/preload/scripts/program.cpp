// A program for the compiler: containers, algorithms and templates of its own.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Digits { static constexpr long value = N % 10 + Digits<N / 10>::value; };
template <> struct Digits<0> { static constexpr long value = 0; };

template <std::size_t... I> constexpr long sum(std::index_sequence<I...>) { return (Digits<I>::value + ...); }

template <typename T> class Tree {
    struct Node {
        T value;
        std::unique_ptr<Node> left, right;
    };
    std::unique_ptr<Node> root;

public:
    void insert(T value) {
        auto *place = &root;
        while (*place) place = value < (*place)->value ? &(*place)->left : &(*place)->right;
        *place = std::make_unique<Node>(Node{std::move(value), nullptr, nullptr});
    }
};

#define PART(n)                                                                                       \
    struct Item##n {                                                                                  \
        std::map<std::string, std::vector<std::tuple<int, double, std::string>>> lists;               \
        std::unordered_map<long, std::variant<int, std::string, std::vector<Item##n>>> values;        \
    };                                                                                                \
    long part##n(Item##n &item, const std::function<long(const std::string &)> &measure) {            \
        std::set<std::pair<long, std::string>> seen;                                                  \
        Tree<std::pair<int, std::string>> tree;                                                       \
        for (auto &[name, list] : item.lists) {                                                       \
            std::sort(list.begin(), list.end(), [](auto &a, auto &b) { return std::get<1>(a) < std::get<1>(b); }); \
            for (auto &[number, weight, text] : list)                                                 \
                seen.emplace(number + n, text), tree.insert({number, name + text});                   \
        }                                                                                             \
        std::ostringstream out;                                                                       \
        for (auto &[key, value] : item.values)                                                        \
            std::visit([&](auto &it) {                                                                \
                if constexpr (std::is_same_v<std::decay_t<decltype(it)>, std::string>) out << it;     \
                else if constexpr (std::is_same_v<std::decay_t<decltype(it)>, int>) out << key + it;  \
                else out << it.size();                                                                \
            }, value);                                                                                \
        return measure(out.str()) + long(seen.size()) + sum(std::make_index_sequence<100 + n>());     \
    }
