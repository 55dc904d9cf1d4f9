//! Rust source without the insides of comments and literals, so that the other rules see code only.

/// What a byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    LineComment,
    /// With its depth: block comments nest.
    BlockComment(usize),
    Text,
    /// With the number of `#`.
    RawText(usize),
}

/// The same text with blanks for comments and for the insides of strings and characters; every
/// line keeps its number.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut part = Part::Code;
    let mut at = 0;
    while at < bytes.len() {
        let (next, length, keep) = step(bytes, at, part);
        for byte in &bytes[at..(at + length).min(bytes.len())] {
            out.push(if keep || *byte == b'\n' { *byte } else { b' ' });
        }
        part = next;
        at += length;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The part after the bytes at `at`, how many they are, and whether they are kept.
fn step(bytes: &[u8], at: usize, part: Part) -> (Part, usize, bool) {
    let rest = &bytes[at..];
    match part {
        Part::Code => step_code(bytes, at),
        Part::LineComment if rest[0] == b'\n' => (Part::Code, 1, true),
        Part::LineComment => (part, 1, false),
        Part::BlockComment(depth) if rest.starts_with(b"/*") => {
            (Part::BlockComment(depth + 1), 2, false)
        }
        Part::BlockComment(1) if rest.starts_with(b"*/") => (Part::Code, 2, false),
        Part::BlockComment(depth) if rest.starts_with(b"*/") => {
            (Part::BlockComment(depth - 1), 2, false)
        }
        Part::BlockComment(_) => (part, 1, false),
        Part::Text if rest[0] == b'\\' => (part, 2, false),
        Part::Text if rest[0] == b'"' => (Part::Code, 1, true),
        Part::Text => (part, 1, false),
        Part::RawText(hashes) => {
            let ends = rest[0] == b'"'
                && rest.len() > hashes
                && rest[1..=hashes].iter().all(|byte| *byte == b'#');
            if ends { (Part::Code, 1 + hashes, true) } else { (part, 1, false) }
        }
    }
}

fn step_code(bytes: &[u8], at: usize) -> (Part, usize, bool) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return (Part::LineComment, 2, false);
    }
    if rest.starts_with(b"/*") {
        return (Part::BlockComment(1), 2, false);
    }
    if rest[0] == b'"' {
        return (Part::Text, 1, true);
    }
    let in_word = at > 0 && is_word(bytes[at - 1]);
    if !in_word && let Some(length) = raw_start(rest) {
        return (Part::RawText(length.1), length.0, true);
    }
    if rest[0] == b'\''
        && let Some(length) = character(rest)
    {
        return (Part::Code, length, false);
    }
    (Part::Code, 1, true)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Length of `r##"` (also `br`, `cr`) and its number of `#`.
fn raw_start(rest: &[u8]) -> Option<(usize, usize)> {
    let letters = [&b"r"[..], b"br", b"cr"]
        .into_iter()
        .find(|l| rest.starts_with(l) && matches!(rest.get(l.len()), Some(b'"' | b'#')))?;
    let hashes = rest[letters.len()..].iter().take_while(|byte| **byte == b'#').count();
    let quote = rest.get(letters.len() + hashes) == Some(&b'"');
    quote.then_some((letters.len() + hashes + 1, hashes))
}

/// Length of a character literal; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        // The escaped byte may itself be a quote.
        return rest.iter().skip(3).position(|byte| *byte == b'\'').map(|end| end + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(5)])
        .or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]))
        .ok()?;
    let length = text.chars().next()?.len_utf8();
    (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

/// Lines of `#[cfg(test)]` modules written in the file, in a text that `code_only` made: number of
/// the first line (from 0) and how many.
pub(crate) fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let length = test_module(&lines[at..]).unwrap_or(0);
        if length > 0 {
            found.push((at, length));
        }
        at += length.max(1);
    }
    found
}

fn test_module(lines: &[&str]) -> Option<usize> {
    if lines.first()?.trim() != "#[cfg(test)]" {
        return None;
    }
    let attributes = lines.iter().skip(1).take_while(|l| l.trim().starts_with("#[")).count();
    let head = lines.get(1 + attributes)?.trim();
    let is_module = head.starts_with("mod ") || head.contains(" mod ");
    (is_module && head.ends_with('{')).then(|| 1 + attributes + braced(&lines[1 + attributes..]))
}

/// Lines up to the one that closes the first brace.
pub(crate) fn braced(lines: &[&str]) -> usize {
    let mut depth = 0i64;
    for (number, line) in lines.iter().enumerate() {
        for byte in line.bytes() {
            depth += i64::from(byte == b'{') - i64::from(byte == b'}');
            if byte == b'}' && depth == 0 {
                return number + 1;
            }
        }
    }
    lines.len()
}

#[test]
fn comments_and_literals_become_blank() {
    let cases = [
        ("a // b {\nc", "a       \nc"),
        ("a /* b /* c */ { */ d", "a                   d"),
        (r#"f("{ \" {") + 1"#, r#"f("      ") + 1"#),
        (r##"f(r#"{"}"#)"##, r##"f(r#"   "#)"##),
        ("('{', '\\'', '\\u{7b}')", "(   ,     ,         )"),
        ("fn f<'a>(x: &'a str) {", "fn f<'a>(x: &'a str) {"),
        ("bar\"x\"", "bar\" \""),
        ("'é' {", "     {"),
    ];
    for (given, wanted) in cases {
        assert_eq!(code_only(given), wanted, "{given}");
    }
}

#[test]
fn test_modules_are_found() {
    let text = "fn a() {}\n#[cfg(test)]\n#[x]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n";
    assert_eq!(test_modules(text), [(1, 6)]);
    assert_eq!(test_modules("#[cfg(test)]\nmod tests;\n"), []);
}
