//! Licence expressions: SPDX with AND, OR, parentheses, and the old form with a slash.

/// What may be linked into a program under Apache-2.0 and passed on in source and binary.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// True when the expression can be met with allowed licences.
pub(crate) fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let verdict = any_of(&mut rest);
    verdict && rest.is_empty()
}

fn any_of(rest: &mut &[&str]) -> bool {
    let mut verdict = all_of(rest);
    while take(rest, "OR") {
        // Both sides are read in any case: the rest must stand behind them.
        verdict |= all_of(rest);
    }
    verdict
}

fn all_of(rest: &mut &[&str]) -> bool {
    let mut verdict = one(rest);
    while take(rest, "AND") {
        verdict &= one(rest);
    }
    verdict
}

fn one(rest: &mut &[&str]) -> bool {
    if take(rest, "(") {
        let verdict = any_of(rest);
        return take(rest, ")") && verdict;
    }
    let Some((name, after)) = rest.split_first() else { return false };
    *rest = after;
    if take(rest, "WITH") {
        let Some((exception, after)) = rest.split_first() else { return false };
        *rest = after;
        return ALLOWED.contains(&format!("{name} WITH {exception}").as_str());
    }
    // `MPL-2.0+` is that version or, at our choice, a later one.
    ALLOWED.contains(&name.strip_suffix('+').unwrap_or(name))
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    match rest.split_first() {
        Some((first, after)) if *first == word => {
            *rest = after;
            true
        }
        _ => false,
    }
}

#[test]
fn expressions() {
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "MPL-2.0+",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in [
        "",
        "none stated",
        "GPL-3.0",
        "AGPL-3.0-only",
        "MIT AND GPL-3.0",
        "GPL-2.0 WITH LLVM-exception",
        "(MIT",
        "MIT)",
        "(MIT OR Apache-2.0) AND GPL-3.0",
    ] {
        assert!(!allowed(bad), "{bad}");
    }
}
