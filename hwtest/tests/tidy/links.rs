//! Links of Markdown files lead somewhere.

use crate::Finding;
use crate::tree::File;

/// Relative links whose target `has` does not know, and anchors of the same file without a heading.
pub(crate) fn broken(file: &File, has: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, target) in links(&file.text) {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        if path.contains("://") || path.starts_with("mailto:") {
            continue;
        }
        if path.is_empty() {
            if !headings(&file.text).any(|heading| heading == anchor) {
                let what = format!("no heading for `#{anchor}`; name one of this file");
                findings.push(Finding::new(file, number, what));
            }
            continue;
        }
        match resolve(&file.path, path) {
            Some(resolved) if has(&resolved) => {}
            _ => {
                let what = format!("`{path}` is not there; paths count from this file's folder");
                findings.push(Finding::new(file, number, what));
            }
        }
    }
    findings
}

/// Line and target of each `[text](target)`, outside code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        let mut code = false;
        for (index, piece) in line.split('`').enumerate() {
            code = if index > 0 { !code } else { code };
            if !code {
                found.extend(targets(line, piece).map(|target| (number + 1, target)));
            }
        }
    }
    found
}

/// Targets whose `](` lies in `piece`; the target itself may go on behind it.
fn targets<'a>(line: &'a str, piece: &'a str) -> impl Iterator<Item = &'a str> {
    let start = piece.as_ptr() as usize - line.as_ptr() as usize;
    piece.match_indices("](").filter_map(move |(at, _)| {
        let rest = &line[start + at + 2..];
        let target = rest.split_once(')')?.0;
        Some(target.split(' ').next().unwrap_or_default().trim_matches(['<', '>']))
    })
}

/// Anchors of the headings, as GitHub makes them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// The path from the root; `None` when it leaves the repository.
fn resolve(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if path.starts_with('/') {
        parts.clear();
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[test]
fn targets_are_looked_up_from_the_files_folder() {
    let has = |path: &str| ["a/b.md", "c.rs", "d"].contains(&path);
    let text = "\
# One `two`, three!
[ok](b.md) and [ok](../c.rs#x) and [web](https://x.y) and [ok](../d/) [ok](#one-two-three)
[bad](none.md) [bad](../../c.rs) `[code](none.md)` [bad](#nothing)
```
[fenced](none.md)
```
[`code`](gone.md \"title\")
";
    let found = broken(&File::sample("a/x.md", text), has);
    let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [3, 3, 3, 7], "{found:?}");
}
