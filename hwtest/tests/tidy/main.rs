//! Keeps the repository as it is meant to be read: sizes, links, crate edges, the top level.
//!
//! Every rule is a pure function from files to findings, with tests on bad samples in its own file;
//! here they meet the files that git knows. A finding names file and line and what to do.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // It reads the repository's files.

mod edges;
mod functions;
mod lines;
mod links;
mod source;
mod toplevel;
mod tree;
mod unsafety;

use tree::{File, Tree};

/// Something to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 for the whole file.
    line: usize,
    what: String,
}

impl Finding {
    fn new(file: &File, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: file.path.clone(), line, what: what.into() }
    }
}

fn report(findings: &[Finding]) {
    let text: Vec<String> =
        findings.iter().map(|f| format!("  {}:{}: {}", f.path, f.line, f.what)).collect();
    assert!(findings.is_empty(), "{} to be changed:\n{}", findings.len(), text.join("\n"));
}

fn over(files: &[File], rule: impl Fn(&File) -> Vec<Finding>) {
    report(&files.iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn lines_are_short() {
    over(&Tree::open().text_files(), lines::too_long);
}

#[test]
fn files_are_short() {
    over(&Tree::open().files("rs"), lines::file_too_long);
}

#[test]
fn nothing_is_left_undone() {
    over(&Tree::open().text_files(), lines::unfinished);
}

#[test]
fn no_text_names_a_machine() {
    over(&Tree::open().text_files(), lines::machine_names);
}

#[test]
fn functions_are_short() {
    over(&Tree::open().files("rs"), functions::too_long);
}

#[test]
fn functions_over_the_aim_do_not_become_more() {
    let files = Tree::open().files("rs");
    let long: Vec<Finding> = files.iter().flat_map(functions::over_aim).collect();
    let (count, most) = (long.len(), functions::OVER_AIM_MAX);
    let advice = "split the newest one; when there are fewer now, lower OVER_AIM_MAX";
    let list: Vec<String> = long.iter().map(|f| format!("  {}:{}", f.path, f.line)).collect();
    let aim = functions::AIM_LINES;
    assert!(
        count <= most,
        "{count} functions over {aim} lines, {most} allowed; {advice}:\n{}",
        list.join("\n")
    );
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    over(&Tree::open().files("rs"), unsafety::undocumented);
}

#[test]
fn links_resolve() {
    let tree = Tree::open();
    over(&tree.files("md"), |file| links::broken(file, |path| tree.has(path)));
}

#[test]
fn crates_depend_one_way() {
    over(&Tree::open().named("Cargo.toml"), edges::unlisted);
}

#[test]
fn the_top_level_is_the_known_one() {
    report(&toplevel::unknown(Tree::open().paths()));
}
