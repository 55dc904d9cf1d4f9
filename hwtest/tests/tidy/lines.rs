//! Rules on lines: their length, their number, words that must not stay.

use crate::Finding;
use crate::source::{code_only, test_modules};
use crate::tree::File;

/// Columns of a line of Rust.
const RUST_COLUMNS: usize = 100;
/// Columns of a line of anything else.
const OTHER_COLUMNS: usize = 120;
/// Lines of a file without its tests.
const FILE_LINES: usize = 800;

/// This folder names what it forbids.
const OWN: &str = "hwtest/tests/tidy/";

pub(crate) fn too_long(file: &File) -> Vec<Finding> {
    let most = if file.ending() == "rs" { RUST_COLUMNS } else { OTHER_COLUMNS };
    let is_long = |line: &str| line.chars().count() > most && !excepted(line, most);
    numbered(file)
        .filter(|(_, line)| is_long(line))
        .map(|(number, line)| {
            let columns = line.chars().count();
            Finding::new(file, number, format!("{columns} columns; break it at {most}"))
        })
        .collect()
}

/// A line that is long because of one word that cannot be broken: an address, a literal.
fn excepted(line: &str, most: usize) -> bool {
    let words = line.split(' ').filter(|word| !word.is_empty());
    let longest = words.map(|word| word.chars().count()).max().unwrap_or(0);
    // A row of a Markdown table, in a document or a comment, is one line by its nature.
    let table = line.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with('|');
    let indent = line.chars().take_while(|c| *c == ' ').count();
    table || line.contains("://") || longest + indent + 8 > most
}

pub(crate) fn file_too_long(file: &File) -> Vec<Finding> {
    let all = file.text.lines().count();
    let tests: usize = test_modules(&code_only(&file.text)).iter().map(|(_, n)| n).sum();
    let own = all - tests;
    if own <= FILE_LINES || file.path.contains("/tests/") && all <= 2 * FILE_LINES {
        return Vec::new();
    }
    let what = format!("{own} lines without tests; split it by concern, {FILE_LINES} are the most");
    vec![Finding::new(file, 0, what)]
}

pub(crate) fn unfinished(file: &File) -> Vec<Finding> {
    if file.path.starts_with(OWN) {
        return Vec::new();
    }
    let macros = ["todo!", "dbg!", "unimplemented!"];
    let marks = ["FIXME", "XXX", "#[ignore"];
    let mut findings = Vec::new();
    let code = if file.ending() == "rs" { code_only(&file.text) } else { String::new() };
    let words = macros.iter().flat_map(|word| find(&code, word));
    let marks = marks.iter().flat_map(|mark| find(&file.text, mark));
    for (number, word) in words.chain(marks) {
        let what = format!("`{word}`: finish it, or file it as an issue and remove the mark");
        findings.push(Finding::new(file, number, what));
    }
    findings
}

/// Lines on which a word stands by itself.
fn find<'a>(text: &str, word: &'a str) -> Vec<(usize, &'a str)> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let stands_alone = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            !(is_word(before) || word.ends_with(char::is_alphanumeric) && is_word(after))
        })
    };
    let lines = text.lines().enumerate().filter(|(_, line)| stands_alone(line));
    lines.map(|(number, _)| (number + 1, word)).collect()
}

pub(crate) fn machine_names(file: &File) -> Vec<Finding> {
    if file.path.starts_with(OWN) {
        return Vec::new();
    }
    let traces = ["/work/", "/root/", "/home/", "/Users/", ".internal/", ".corp/", "192.168."];
    // `/home/` and `/root/` begin a path only at the start of a word.
    let begins = |line: &str, trace: &str| {
        line.match_indices(trace).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-/}$".contains(c))
                || !trace.starts_with('/')
        })
    };
    let mut findings = Vec::new();
    for (number, line) in numbered(file) {
        if let Some(trace) = traces.iter().find(|trace| begins(line, trace)) {
            let what = format!("`{trace}` is of one machine or network; name it in general");
            findings.push(Finding::new(file, number, what));
        }
    }
    findings
}

fn numbered(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.text.lines().enumerate().map(|(number, line)| (number + 1, line))
}

#[test]
fn long_lines() {
    let long = format!("// {}", "word ".repeat(20));
    let at = |path: &str, text: &str| {
        let found = too_long(&File::sample(path, text));
        found.iter().map(|finding| finding.line).collect::<Vec<_>>()
    };
    assert_eq!(at("a.rs", &format!("ok\n{long}")), [2]);
    assert_eq!(at("a.md", &long), [0; 0]);
    assert_eq!(at("a.md", &format!("{long}{long}")), [1]);
    assert_eq!(at("a.rs", &format!("    \"{}\",", "x".repeat(120))), [0; 0]);
    assert_eq!(at("a.rs", &format!("// see https://x.y/ {long}")), [0; 0]);
    assert_eq!(at("a.rs", &"é".repeat(100)), [0; 0]);
    assert_eq!(at("a.rs", &format!("    /// | {long} |")), [0; 0]);
}

#[test]
fn long_files_but_for_their_tests() {
    let body = "x();\n".repeat(801);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{body}}}\n");
    assert_eq!(file_too_long(&File::sample("a.rs", &body)).len(), 1);
    assert_eq!(file_too_long(&File::sample("a.rs", &tests)), []);
    assert_eq!(file_too_long(&File::sample("a/tests/b.rs", &body)), []);
}

#[test]
fn undone_things() {
    let at = |path: &str, text: &str| unfinished(&File::sample(path, text)).len();
    assert_eq!(at("a.rs", "fn f() { todo!() }"), 1);
    assert_eq!(at("a.rs", "// no todo! here\nlet s = \"dbg!\";\nmy_dbg!(x);"), 0);
    assert_eq!(at("a.rs", "x // FIXME later\n#[ignore = \"slow\"]"), 2);
    assert_eq!(at("a.md", "XXX\nmktemp /tmp/a.XXXXXX"), 1);
}

#[test]
fn machine_paths() {
    let at = |text: &str| machine_names(&File::sample("a.md", text)).len();
    assert_eq!(at("cd /work/main"), 1);
    assert_eq!(at("in `/root/.cargo`\nand http://x.internal/y"), 2);
    assert_eq!(at("data/work/ and $d/home/ and https://a.b/home/x"), 0);
}
