//! Compilers: what they write is the same to the last byte, and what they wrote runs under the
//! library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{BOTH, Malloc, answer, command, find, is_served, place, same_answer};

/// Templates, exceptions, threads, and every kind of `new`.
const CPP: &str = r#"
#include <algorithm>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

template <int N> struct Sum { static constexpr long value = N + Sum<N - 1>::value; };
template <> struct Sum<0> { static constexpr long value = 0; };

struct alignas(256) Wide {
    long numbers[32];
    explicit Wide(long n) { std::fill(std::begin(numbers), std::end(numbers), n); }
};

template <typename T> struct Tree {
    std::unique_ptr<Tree> left, right;
    T value;
    explicit Tree(T value) : value(std::move(value)) {}
    void insert(T other) {
        auto &side = other < value ? left : right;
        if (side) side->insert(std::move(other));
        else side = std::make_unique<Tree>(std::move(other));
    }
    template <typename F> void each(F &&f) const {
        if (left) left->each(f);
        f(value);
        if (right) right->each(f);
    }
};

static std::vector<std::string> *before_main = new std::vector<std::string>(1000, "before main");

int main() {
    Tree<std::string> tree("500");
    for (unsigned i = 0, n = 1; i < 20000; i++, n = n * 1664525u + 1013904223u)
        tree.insert(std::to_string(n % 100000));
    size_t nodes = 0, letters = 0;
    std::string last;
    tree.each([&](const std::string &value) {
        if (value < last) throw std::logic_error("order");
        last = value;
        nodes++;
        letters += value.size();
    });
    std::cout << nodes << ' ' << (letters > nodes) << '\n';

    std::vector<std::future<long>> parts;
    for (int part = 0; part < 8; part++)
        parts.push_back(std::async(std::launch::async, [part] {
            std::unordered_map<long, std::shared_ptr<std::vector<long>>> lists;
            for (long n = part; n < 40000; n += 8) {
                auto &list = lists[n % 97];
                if (!list) list = std::make_shared<std::vector<long>>();
                list->push_back(n);
            }
            long sum = 0;
            for (auto &entry : lists) sum = std::accumulate(entry.second->begin(), entry.second->end(), sum);
            return sum;
        }));
    long sum = 0;
    for (auto &part : parts) sum += part.get();
    std::cout << sum << ' ' << Sum<500>::value << '\n';

    std::vector<std::unique_ptr<Wide>> wide;
    bool aligned = true;
    for (long n = 0; n < 2000; n++) {
        wide.push_back(std::make_unique<Wide>(n));
        aligned &= reinterpret_cast<size_t>(wide.back().get()) % 256 == 0;
    }
    long *none = new (std::nothrow) long[size_t(1) << 58];
    std::unique_ptr<long[]> some(new (std::nothrow) long[1000]());
    int caught = 0;
    for (int n = 0; n < 1000; n++)
        try {
            throw std::runtime_error(std::string(100, 'x') + std::to_string(n));
        } catch (const std::exception &error) {
            caught += std::string(error.what()).size() > 100;
        }
    volatile size_t absurd = size_t(1) << 62;
    try {
        std::string text(absurd / 2, 'x');
    } catch (const std::bad_alloc &) {
        caught++;
    }
    std::cout << aligned << ' ' << (none == nullptr) << ' ' << some[999] << ' ' << caught << '\n';

    std::ostringstream text;
    for (int n = 0; n < 2000; n++) text << "name" << n << "=" << n * n << ";";
    const std::string all = text.str();
    std::regex pair("([a-z]+[0-9]+)=([0-9]+);");
    std::map<std::string, long> values;
    for (std::sregex_iterator match(all.begin(), all.end(), pair), end; match != end; ++match)
        values[(*match)[1]] = std::stol((*match)[2]);
    std::cout << values.size() << ' ' << values["name1999"] << '\n';
    std::cout << before_main->size() << ' ' << before_main->back() << std::endl;
    delete before_main;
}
"#;

#[test]
fn gcc_compiles_the_same_and_its_program_runs() {
    let Some(compiler) = find("g++") else { return };
    let home = place();
    let home = home.path();
    fs::write(home.join("program.cpp"), CPP).unwrap();
    fs::write(home.join("small.cpp"), "int f() { return *new int(7); }").unwrap();
    let mut small = command(&compiler, home, Malloc::Spanalloc);
    is_served(small.args(["-c", "small.cpp"]), &["g++", "cc1plus", "as"]);
    let args = ["-std=c++17", "-O1", "-Wall", "-c", "program.cpp", "-o", "program.o"];
    let objects = BOTH.map(|malloc| {
        answer(command(&compiler, home, malloc).args(args));
        fs::read(home.join("program.o")).unwrap()
    });
    assert!(objects[0] == objects[1], "the object files differ");
    // The linker is served as well.
    let link = ["-pthread", "program.o", "-o", "program"];
    is_served(command(&compiler, home, Malloc::Spanalloc).args(link), &["collect2", "ld"]);
    let program = home.join("program");
    is_served(&mut command(&program, home, Malloc::Spanalloc), &["program", "libstdc++.so"]);
    let expected = "20001 1\n799980000 125250\n1 1 0 1001\n2000 3996001\n1000 before main\n";
    assert_eq!(same_answer(program, home, |command| command), expected);
}

/// A program with an allocator in its executable, which goes before every library's. It has no
/// `reallocarray`, so that is whoever's; of objects that the program's `malloc` made.
const OWN_MALLOC: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char pool[1 << 20];
static size_t used;

void *malloc(size_t size) {
    size_t *object = (size_t *)(pool + used);
    used += (size + 31) & ~(size_t)15;
    object[0] = size;
    return object + 2;
}
void *calloc(size_t count, size_t size) { return memset(malloc(count * size), 0, count * size); }
void free(void *object) { (void)object; }
void *realloc(void *object, size_t size) {
    void *other = malloc(size);
    size_t old = object ? ((size_t *)object)[-2] : 0;
    if (old) memcpy(other, object, old < size ? old : size);
    return other;
}

int main(void) {
    char *text = strcpy(malloc(10), "kept");
    text = reallocarray(text, 100, 2);
    puts(text);
    free(text);
    puts(text = strcpy(reallocarray(NULL, 10, 2), "new"));
    return !(text >= pool && text < pool + sizeof pool);
}
"#;

#[test]
fn a_program_keeps_a_malloc_of_its_own() {
    let Some(compiler) = find("cc") else { return };
    let home = place();
    let home = home.path();
    fs::write(home.join("own.c"), OWN_MALLOC).unwrap();
    let args = ["-fno-builtin", "-rdynamic", "own.c", "-o", "own"];
    answer(command(compiler, home, Malloc::System).args(args));
    assert_eq!(same_answer(home.join("own"), home, |command| command), "kept\nnew\n");
}

/// The files of a crate with modules, traits and generics.
const CRATE: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[package]\nname = \"sample\"\nversion = \"1.2.3\"\nedition = \"2021\"\n\n[lib]\npath = \"src/lib.rs\"\n",
    ),
    ("src/lib.rs", "//! Sample.\npub mod graph;\npub mod matrix;\npub mod text;\n"),
    (
        "src/graph.rs",
        r#"
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::cmp::Reverse;
use std::hash::Hash;

pub struct Graph<N> { edges: HashMap<N, Vec<(N, u64)>> }

impl<N: Copy + Ord + Hash> Graph<N> {
    pub fn new() -> Self { Self { edges: HashMap::new() } }
    pub fn connect(&mut self, from: N, to: N, cost: u64) {
        self.edges.entry(from).or_default().push((to, cost));
    }
    pub fn costs(&self, from: N) -> BTreeMap<N, u64> {
        let mut costs = BTreeMap::new();
        let mut next = BinaryHeap::from([Reverse((0, from))]);
        while let Some(Reverse((cost, node))) = next.pop() {
            if costs.contains_key(&node) { continue }
            costs.insert(node, cost);
            for &(to, more) in self.edges.get(&node).into_iter().flatten() {
                next.push(Reverse((cost + more, to)));
            }
        }
        costs
    }
}
"#,
    ),
    (
        "src/matrix.rs",
        r#"
use std::ops::{Add, Mul};

#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T, const R: usize, const C: usize>(pub [[T; C]; R]);

impl<T: Copy + Default + Add<Output = T> + Mul<Output = T>, const R: usize, const M: usize, const C: usize>
    Mul<&Matrix<T, M, C>> for &Matrix<T, R, M>
{
    type Output = Matrix<T, R, C>;
    fn mul(self, other: &Matrix<T, M, C>) -> Matrix<T, R, C> {
        let mut out = [[T::default(); C]; R];
        for r in 0..R { for c in 0..C { for m in 0..M {
            out[r][c] = out[r][c] + self.0[r][m] * other.0[m][c];
        } } }
        Matrix(out)
    }
}

macro_rules! powers { ($($name:ident: $t:ty, $n:literal;)*) => { $(
    pub fn $name(mut m: Matrix<$t, $n, $n>, times: u32) -> Matrix<$t, $n, $n> {
        let one = m.clone();
        for _ in 1..times { m = &m * &one; }
        m
    }
)* } }
powers! { small: u64, 2; middle: i64, 3; large: u32, 8; wide: f64, 4; }
"#,
    ),
    (
        "src/text.rs",
        r#"
use std::collections::BTreeMap;
use std::fmt::{self, Display};

#[derive(Debug, Clone, PartialEq)]
pub enum Value { Null, Number(f64), Text(String), List(Vec<Value>), Map(BTreeMap<String, Value>) }

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => write!(f, "null"),
            Value::Number(n) => write!(f, "{n}"),
            Value::Text(t) => write!(f, "{t:?}"),
            Value::List(all) => f.debug_list().entries(all.iter().map(|v| v.to_string())).finish(),
            Value::Map(all) => f.debug_map().entries(all.iter().map(|(k, v)| (k, v.to_string()))).finish(),
        }
    }
}

pub trait Visit { fn visit(&self, f: &mut dyn FnMut(&Value)); }
impl Visit for Value {
    fn visit(&self, f: &mut dyn FnMut(&Value)) {
        f(self);
        match self {
            Value::List(all) => all.iter().for_each(|v| v.visit(f)),
            Value::Map(all) => all.values().for_each(|v| v.visit(f)),
            _ => {}
        }
    }
}
"#,
    ),
    (
        "src/main.rs",
        r#"
use sample::{graph::Graph, matrix::{small, Matrix}, text::{Value, Visit}};

fn main() {
    let mut graph = Graph::new();
    for n in 0_u32..5000 { graph.connect(n, (n * 7 + 1) % 5000, 3); graph.connect(n, (n + 1) % 5000, 5); }
    let costs = graph.costs(0);
    println!("{} {}", costs.len(), costs[&1]);
    println!("{:?}", small(Matrix([[1, 1], [1, 0]]), 50).0[0][1]);
    let list = (0..1000).map(|n| Value::Text(n.to_string())).chain([Value::Null, Value::Number(0.5)]);
    let value = Value::Map([("list".to_string(), Value::List(list.collect()))].into());
    let mut seen = 0;
    value.visit(&mut |_| seen += 1);
    let texts: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| value.to_string())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    println!("{seen} {}", texts.iter().all(|text| *text == texts[0]));
}
"#,
    ),
];

/// The compiler as an executable of nothing but a call of its library.
///
/// The `rustc` that rustup installs has an allocator linked into its executable, and an executable's
/// `malloc` goes before every library's. Everything but that executable is in a library of the
/// toolchain, so with this one the whole compiler allocates from the library under test.
fn compiler_without_malloc(home: &Path, sysroot: &Path) -> PathBuf {
    let libraries = sysroot.join("lib");
    let driver = fs::read_dir(&libraries).unwrap().map(|entry| entry.unwrap().path());
    let is_driver = |path: &PathBuf| path.to_string_lossy().contains("/librustc_driver-");
    let driver = driver.filter(|path| path.extension().is_some_and(|end| end == "so"));
    let driver = driver.into_iter().find(is_driver).expect("the library of the compiler");
    let symbols =
        answer(command("nm", home, Malloc::System).args(["-D", "--defined-only"]).arg(&driver));
    let entry = symbols.split_whitespace().find(|name| name.contains("rustc_driver_impl4main"));
    let entry = entry.expect("the entry of the compiler");
    let source = format!(
        "extern void compiler(void) __asm__(\"{entry}\");\nint main(void) {{ compiler(); }}\n"
    );
    fs::write(home.join("rustc.c"), source).unwrap();
    let path = home.join("rustc");
    let mut link = command("cc", home, Malloc::System);
    link.arg("rustc.c").arg(driver).arg("-o").arg(&path);
    answer(link.arg(format!("-Wl,-rpath,{},--allow-shlib-undefined", libraries.display())));
    path
}

/// Builds the crate in `home/sample`, and gives the program and the library it was built to.
fn build(cargo: &Path, rustc: &Path, home: &Path, malloc: Malloc) -> [Vec<u8>; 2] {
    let target = home.join("sample/target");
    let _ = fs::remove_dir_all(&target);
    let mut command = command(cargo, &home.join("sample"), malloc);
    command.env("CARGO_HOME", home.join("cargo")).env("RUSTC", rustc);
    answer(command.env("CARGO_INCREMENTAL", "0").args(["build", "--release", "--offline"]));
    ["sample", "libsample.rlib"].map(|file| fs::read(target.join("release").join(file)).unwrap())
}

#[test]
fn cargo_and_rustc_build_the_same_crate() {
    if [find("cargo"), find("rustc"), find("cc"), find("nm")].contains(&None) {
        return;
    }
    // The tools themselves; those on the path may be a front of them that chooses a toolchain.
    let told = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
    let sysroot = PathBuf::from(String::from_utf8(told).unwrap().trim_end());
    let [cargo, installed] = ["bin/cargo", "bin/rustc"].map(|name| sysroot.join(name));
    let home = place();
    let home = home.path();
    fs::create_dir_all(home.join("sample/src")).unwrap();
    for (name, text) in CRATE {
        fs::write(home.join("sample").join(name), text).unwrap();
    }
    let rustc = compiler_without_malloc(home, &sysroot);
    let mut version = command(&rustc, home, Malloc::Spanalloc);
    is_served(version.arg("-vV"), &["rustc", "librustc_driver", "libLLVM"]);
    is_served(command(&cargo, home, Malloc::Spanalloc).arg("--version"), &["cargo"]);

    let theirs = build(&cargo, &installed, home, Malloc::System);
    for (name, rustc) in [("installed", &installed), ("without malloc", &rustc)] {
        let ours = build(&cargo, rustc, home, Malloc::Spanalloc);
        assert!(ours == theirs, "the compiler {name} builds something else");
    }
    let program = home.join("sample/target/release/sample");
    is_served(&mut command(&program, home, Malloc::Spanalloc), &["sample"]);
    let told = same_answer(program, home, |command| command);
    assert_eq!(told, "5000 3\n12586269025\n1004 true\n");
}
