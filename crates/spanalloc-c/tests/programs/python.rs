//! Python, which takes every object from `malloc` here: dicts, JSON, threads, processes.

use std::path::PathBuf;
use std::process::Command;

use crate::program::{Malloc, command, find, is_served, place, same_answer};

/// The interpreter itself; what is first on the path may be a script that finds it.
fn python() -> Option<PathBuf> {
    let python = find("python3")?;
    let told = Command::new(python).args(["-c", "import sys; print(sys.executable)"]).output();
    Some(PathBuf::from(String::from_utf8(told.unwrap().stdout).unwrap().trim_end()))
}

fn with_malloc(command: &mut Command) -> &mut Command {
    command.env("PYTHONMALLOC", "malloc").env("PYTHONHASHSEED", "0")
}

/// What the program prints, the same under the library and without it.
fn prints(program: &str) -> Option<String> {
    let python = python()?;
    let home = place();
    Some(same_answer(python, home.path(), |command| with_malloc(command).args(["-c", program])))
}

#[test]
fn the_interpreter_is_served() {
    let Some(python) = python() else { return };
    let home = place();
    // Modules that bring libraries of their own, as far as this Python has them.
    let program = "
for name in 'ctypes', 'decimal', 'json', 'lzma', 'sqlite3', 'ssl', 'threading':
    try: __import__(name)
    except ImportError: pass
";
    let mut command = command(python, home.path(), Malloc::Spanalloc);
    is_served(with_malloc(&mut command).args(["-c", program]), &["python3"]);
}

#[test]
fn big_dicts_are_built_and_sorted() {
    let told = prints(
        r#"
import hashlib
dicts = [{} for _ in range(4)]
state = 1
for i in range(120_000):
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    dicts[i % 4]["key%020d" % state] = (i, [i], str(state))
total = sum(len(d) for d in dicts)
merged = {}
for d in dicts:
    merged.update(d)
keys = sorted(merged)
assert all(a < b for a, b in zip(keys, keys[1:]))
assert all(merged[key][2] == str(int(key[3:])) for key in keys)
by_number = sorted(merged.items(), key=lambda item: item[1][0])
assert [item[1][0] for item in by_number] == list(range(120_000))
for key in keys[::2]:
    del merged[key]
print(total, len(merged), sum(len(value[2]) for value in merged.values()) > 0)
print(hashlib.sha256("\n".join(keys).encode()).hexdigest())
"#,
    );
    let Some(told) = told else { return };
    assert!(told.starts_with("120000 60000 True\n"), "{told}");
}

#[test]
fn json_of_megabytes_is_written_and_parsed() {
    let told = prints(
        r#"
import hashlib, json
rows = [{"id": i, "name": "name %d" % (i * 7919 % 10007), "tags": ["t%d" % (i % n) for n in (2, 3, 5)],
         "nested": {"half": i / 2, "none": None, "flag": i % 3 == 0}} for i in range(25_000)]
text = json.dumps(rows, sort_keys=True)
again = json.loads(text)
assert again == rows
pretty = json.dumps(again, indent=2)
assert json.loads(pretty) == rows
print(len(again), sum(row["id"] for row in again), sum(row["nested"]["flag"] for row in again))
print(len(text) > 3_000_000, len(pretty) > 4_000_000)
print(hashlib.sha256(pretty.encode()).hexdigest())
"#,
    );
    let Some(told) = told else { return };
    assert!(told.starts_with("25000 312487500 8334\nTrue True\n"), "{told}");
}

#[test]
fn threads_hand_objects_to_each_other() {
    let told = prints(
        r#"
import queue, sys, threading
sys.setswitchinterval(0.0005)
there, back = queue.Queue(100), queue.Queue()
def work():
    while (batch := there.get()) is not None:
        back.put({word: word.upper() * 3 for word in batch})
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for i in range(400):
    there.put(["word%d" % n for n in range(i * 100, i * 100 + 100)])
for _ in threads: there.put(None)
for thread in threads: thread.join()
merged = {}
while not back.empty(): merged.update(back.get())
print(len(merged), all(value == key.upper() * 3 for key, value in merged.items()))
# Many threads, each of which ends.
ends = []
for round in range(60):
    threads = [threading.Thread(target=lambda: ends.append(len([str(n) for n in range(200)])))
               for _ in range(5)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(len(ends), sum(ends))
"#,
    );
    let Some(told) = told else { return };
    assert_eq!(told, "40000 True\n300 60000\n");
}

#[test]
fn processes_are_forked_and_started() {
    let told = prints(
        r#"
import multiprocessing, os, subprocess, sys, threading
sys.setswitchinterval(0.0005)
def count(n):
    words = {}
    for i in range(n): words["w%d" % (i % 97)] = words.get("w%d" % (i % 97), 0) + 1
    return n, sum(words.values()), len(words)
multiprocessing.set_start_method("fork")
with multiprocessing.Pool(4) as pool:
    results = pool.map(count, range(1000, 1200), chunksize=5)
print(len(results), all(n == total and kinds == 97 for n, total, kinds in results))

# A fork while other threads allocate; the child allocates, in a thread of its own too.
stop = False
def hammer():
    while not stop: [str(n) * 9 for n in range(500)]
threads = [threading.Thread(target=hammer) for _ in range(4)]
for thread in threads: thread.start()
codes = []
for i in range(40):
    child = os.fork()
    if child == 0:
        made = []
        thread = threading.Thread(target=lambda: made.append(count(1000)))
        thread.start()
        thread.join()
        os._exit(7 if made == [(1000, 1000, 97)] and len(bytearray(3_000_000)) == 3_000_000 else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(codes == [7] * 40)

answers = [subprocess.run(["/bin/sh", "-c", "echo $(( %d * 2 ))" % i], capture_output=True, check=True)
           for i in range(30)]
stop = True
for thread in threads: thread.join()
print([int(answer.stdout) for answer in answers] == [2 * i for i in range(30)])
print(b"".join(answer.stderr for answer in answers))
"#,
    );
    let Some(told) = told else { return };
    assert_eq!(told, "200 True\nTrue\nTrue\nb''\n");
}

#[test]
fn its_own_small_object_allocator_works_as_well() {
    let Some(python) = python() else { return };
    let program = "print(sum(len(word) for word in sorted({str(n): n for n in range(200_000)})))";
    let home = place();
    let told = same_answer(python, home.path(), |command| command.args(["-c", program]));
    assert_eq!(told, "1088890\n");
}
