//! Interpreters and tools that count, sort, pack and unpack text; the right answer is computed here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::program::{BOTH, Malloc, Numbers, answer, command, find, is_served, place, same_answer};

const WORDS: usize = 150_000;

/// Lines of words, of which many are the same.
fn text() -> String {
    let mut numbers = Numbers::new();
    let mut text = String::new();
    for word in 1..=WORDS {
        let rank = numbers.below(20_000);
        let rank = numbers.below(rank + 1);
        write!(text, "w{rank}{}", "xyz".repeat(rank % 4)).unwrap();
        text.push(if word % 10 == 0 { '\n' } else { ' ' });
    }
    text
}

/// "WORD COUNT" lines, sorted by word.
fn counts(text: &str) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    counts.iter().map(|(word, count)| format!("{word} {count}\n")).collect()
}

/// A program counts the words of the file `text` as it is told by `args`.
fn counts_words(name: &str, args: &[&str]) {
    let Some(program) = find(name) else { return };
    let home = place();
    let text = text();
    fs::write(home.path().join("text"), &text).unwrap();
    is_served(command(&program, home.path(), Malloc::Spanalloc).args(args), &[name]);
    let told = same_answer(&program, home.path(), |command| command.args(args));
    assert!(told == counts(&text), "{name} counts differently");
}

#[test]
fn perl_counts_words() {
    let program = r#"
        while (<>) { $count{$_}++ for split }
        push @{$by_count{$count{$_}}}, $_ for keys %count;
        %again = map { my $n = $_; map { ($_ => $n) } @{$by_count{$n}} } keys %by_count;
        print map { "$_ $again{$_}\n" } sort keys %again;
    "#;
    counts_words("perl", &["-e", program, "text"]);
}

#[test]
fn gawk_counts_words() {
    let program = r#"
        { for (i = 1; i <= NF; i++) count[$i]++ }
        END { n = asorti(count, words); for (i = 1; i <= n; i++) print words[i], count[words[i]] }
    "#;
    counts_words("gawk", &[program, "text"]);
}

#[test]
fn lua_counts_words() {
    let program = r#"
        local count, words = {}, {}
        for line in io.lines("text") do
            for word in line:gmatch("%S+") do count[word] = (count[word] or 0) + 1 end
        end
        for word in pairs(count) do words[#words + 1] = word end
        table.sort(words)
        for i, word in ipairs(words) do words[i] = word .. " " .. count[word] .. "\n" end
        io.write(table.concat(words))
    "#;
    counts_words("lua5.4", &["-e", program]);
}

#[test]
fn jq_counts_words() {
    let program = r#"
        split("\n") | map(split(" ")[]) | group_by(.) | map("\(.[0]) \(length)") | .[]
    "#;
    counts_words("jq", &["-R", "-s", "-r", program, "text"]);
}

#[test]
fn sort_sorts_in_threads() {
    let Some(sort) = find("sort") else { return };
    let home = place();
    let text = text().replace(' ', "\n");
    fs::write(home.path().join("text"), &text).unwrap();
    let args = ["--parallel=4", "-S", "4M", "text"];
    is_served(command(&sort, home.path(), Malloc::Spanalloc).args(args), &["sort"]);
    let told = same_answer(sort, home.path(), |command| command.args(args));
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert!(told == lines.join("\n") + "\n");
}

#[test]
fn an_archive_is_packed_and_unpacked() {
    let programs = ["tar", "xz", "gzip"].map(find);
    let [Some(tar), Some(xz), Some(gzip)] = programs else { return };
    let home = place();
    let home = home.path();
    fs::create_dir(home.join("tree")).unwrap();
    let text = text();
    for (number, part) in text.as_bytes().chunks(20_000).enumerate() {
        fs::write(home.join(format!("tree/{number}")), part).unwrap();
    }
    let ours = |program: &Path, args: &[&str]| {
        answer(command(program, home, Malloc::Spanalloc).args(args));
    };
    ours(&tar, &["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", "ours.tar", "tree"]);
    ours(&xz, &["-k", "-T", "4", "--block-size=256KiB", "ours.tar"]);
    ours(&gzip, &["-k", "-n", "ours.tar"]);
    // The system unpacks what was packed under the library, and the other way round.
    fs::rename(home.join("ours.tar"), home.join("first.tar")).unwrap();
    let packed = [(&xz, "ours.tar.xz"), (&gzip, "ours.tar.gz")];
    for (program, file) in packed {
        for malloc in BOTH {
            answer(command(program, home, malloc).args(["-d", "-k", file]));
            let [first, again] = ["first.tar", "ours.tar"].map(|file| fs::read(home.join(file)));
            assert!(first.unwrap() == again.unwrap(), "{file} is another archive");
            fs::remove_file(home.join("ours.tar")).unwrap();
        }
    }
    fs::remove_dir_all(home.join("tree")).unwrap();
    ours(&tar, &["-xf", "first.tar"]);
    let mut again = Vec::new();
    for number in 0..text.len().div_ceil(20_000) {
        again.extend(fs::read(home.join(format!("tree/{number}"))).unwrap());
    }
    assert!(again == text.as_bytes());
}
