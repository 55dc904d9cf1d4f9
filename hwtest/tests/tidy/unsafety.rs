//! Each use of `unsafe` says why it is sound.

use crate::Finding;
use crate::source::code_only;
use crate::tree::File;

/// Lines above an `unsafe` in which the reason may begin: one reason may cover a few statements.
const REACH: usize = 12;

pub(crate) fn undocumented(file: &File) -> Vec<Finding> {
    let code = code_only(&file.text);
    let text: Vec<&str> = file.text.lines().collect();
    let mut findings = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if !needs_reason(line) || has_reason(&text, number) {
            continue;
        }
        let what = "`unsafe` without `// SAFETY:`; say above it why it is sound";
        findings.push(Finding::new(file, number + 1, what));
    }
    findings
}

/// True for unsafe blocks and implementations; an `unsafe fn` has its conditions in `# Safety`.
fn needs_reason(code: &str) -> bool {
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '{'));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.iter().enumerate().any(|(at, word)| {
        let next = words.get(at + 1);
        *word == "unsafe{"
            || *word == "unsafe" && next.is_none_or(|next| next.starts_with('{') || *next == "impl")
    })
}

/// True when the comment stands on the line, or above it without another block between.
fn has_reason(text: &[&str], number: usize) -> bool {
    let first = number.saturating_sub(REACH);
    let above = text[first..=number].iter().rev();
    let mut reached = above.take_while(|line| !line.trim().is_empty());
    reached.any(|line| line.contains("SAFETY:"))
}

#[test]
fn reasons_are_asked_for() {
    let at = |text: &str| {
        let found = undocumented(&File::sample("a.rs", text));
        found.iter().map(|finding| finding.line).collect::<Vec<_>>()
    };
    assert_eq!(at("let a = unsafe { f() };"), [1]);
    assert_eq!(at("// SAFETY: fine.\nlet a = unsafe { f() };"), [0; 0]);
    assert_eq!(at("// SAFETY: fine.\n\nlet a = unsafe { f() };"), [3]);
    assert_eq!(at("unsafe impl Send for X {}"), [1]);
    assert_eq!(at("/// # Safety\npub unsafe fn f() {}"), [0; 0]);
    assert_eq!(at("// unsafe { }\nlet s = \"unsafe {\";"), [0; 0]);
    assert_eq!(at("#![deny(unsafe_code)]"), [0; 0]);
}
