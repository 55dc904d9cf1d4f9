//! Lengths of functions, outside the test modules of a file.

use crate::Finding;
use crate::source::{braced, code_only, test_modules};
use crate::tree::File;

/// Lines that no function passes.
const MOST_LINES: usize = 80;
/// Lines that functions mostly stay within.
pub(crate) const AIM_LINES: usize = 40;
/// How many may be longer than that. It only ever goes down; a new long function is split, or
/// another one is.
pub(crate) const OVER_AIM_MAX: usize = 23;

pub(crate) fn too_long(file: &File) -> Vec<Finding> {
    longer_than(file, MOST_LINES)
}

pub(crate) fn over_aim(file: &File) -> Vec<Finding> {
    // A test that tells a whole story may be longer; `too_long` bounds it all the same.
    if is_test(&file.path) { Vec::new() } else { longer_than(file, AIM_LINES) }
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs") || path.contains("/benches/")
}

fn longer_than(file: &File, most: usize) -> Vec<Finding> {
    let long = functions(&file.text).into_iter().filter(|(_, _, lines)| *lines > most);
    long.map(|(line, name, lines)| {
        let what = format!("`{name}` has {lines} lines; split it, {most} are the most");
        Finding::new(file, line, what)
    })
    .collect()
}

/// First line (from 1), name and number of lines of each function outside test modules.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let code = code_only(text);
    let lines: Vec<&str> = code.lines().collect();
    let tests = test_modules(&code);
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let tested = tests.iter().any(|(at, length)| (*at..at + length).contains(&number));
        if let Some(name) = name(line)
            && !tested
            && has_body(&lines[number..])
        {
            found.push((number + 1, name.to_owned(), braced(&lines[number..])));
        }
    }
    found
}

/// Name of the function that a line declares.
fn name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == "fn")?;
    let rest = words.next()?;
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let before = line.split("fn ").next().unwrap_or_default();
    // `fn` within a type, such as `impl Fn` or `x: fn (u8)`, declares nothing.
    let prefixes = ["pub", "const", "async", "unsafe", "extern", "default", "\""];
    let declares = before
        .split_whitespace()
        .all(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)) || word.ends_with(')'));
    (declares && end > 0).then(|| &rest[..end])
}

/// False for a declaration that ends with `;`.
fn has_body(lines: &[&str]) -> bool {
    let mut depth = 0i64;
    for byte in lines.iter().flat_map(|line| line.bytes()) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' => return true,
            b';' if depth == 0 => return false,
            _ => {}
        }
    }
    false
}

#[test]
fn functions_are_measured() {
    let text = "\
pub(crate) fn a<T>(x: [u8; 2])
where
    T: Fn() -> u8,
{
    let s = \"}\"; // }
}

trait T {
    fn b(&self);
    fn c(&self) {}
}
#[cfg(test)]
mod tests {
    fn d() {
    }
}
const fn e() -> fn (u8) {
    x
}
";
    let found = functions(text);
    let golden = [(1, "a".to_owned(), 6), (10, "c".to_owned(), 1), (17, "e".to_owned(), 3)];
    assert_eq!(found, golden);
}

#[test]
fn long_ones_are_named() {
    let text = format!("fn f() {{\n{}}}\n", "x();\n".repeat(79));
    let found = too_long(&File::sample("a.rs", &text));
    assert_eq!(found.len(), 1);
    assert!(found[0].what.contains("`f` has 81 lines"), "{}", found[0].what);
    assert_eq!(over_aim(&File::sample("a.rs", &text)).len(), 1);
    assert_eq!(over_aim(&File::sample("a/tests/b.rs", &text)), []);
    assert_eq!(over_aim(&File::sample("a.rs", &text.replacen("x();\n", "", 41))), []);
}
