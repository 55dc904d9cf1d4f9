//! What led to a failure, for a person to read: of all that happened, the lines about the copyset
//! and the cells in question, and the faults.

use std::collections::BTreeSet;

/// A line is cut after so many characters: lists of checksums are long and say little.
const LINE_CHARS_MAX: usize = 220;

/// What a failure is about.
#[derive(Debug, Default, PartialEq, Eq)]
struct Focus {
    /// As messages show it: `CopysetId(3)`, and in words: `c3`.
    copyset: Option<(String, String)>,
    cell: Option<u64>,
}

impl Focus {
    /// From the words of a failure.
    fn of(failure: &str) -> Focus {
        let mut focus = Focus::default();
        let mut words = failure.split(|c: char| !c.is_ascii_alphanumeric()).peekable();
        while let Some(word) = words.next() {
            if word == "cell" && focus.cell.is_none() {
                focus.cell = words.peek().and_then(|number| number.parse().ok());
            }
            let number = word.strip_prefix('c').and_then(|n| n.parse::<u32>().ok());
            if let (Some(number), None) = (number, &focus.copyset) {
                focus.copyset = Some((format!("CopysetId({number})"), format!("c{number}")));
            }
        }
        focus
    }

    fn is_about(&self, text: &str) -> bool {
        let Some((debug, display)) = &self.copyset else { return true };
        let copyset = text.contains(debug.as_str())
            || text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == display);
        let quiet = text.contains("Heartbeats(");
        copyset && !quiet || self.cell.is_some_and(|cell| covers(text, cell))
    }
}

/// Whether a line names a range of cells (`cells FIRST+COUNT`) that holds this one.
fn covers(text: &str, cell: u64) -> bool {
    let range = text.split("cells ").nth(1).and_then(|rest| {
        let (first, rest) = rest.split_once('+')?;
        let count: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((first.parse::<u64>().ok()?, count.parse::<u64>().ok()?))
    });
    range.is_some_and(|(first, count)| (first..first + count).contains(&cell))
}

/// What changes the world, whoever it is about.
fn is_turn(text: &str) -> bool {
    let marks = ["fault: ", "repair: ", " starts", " is killed", "loses its power", "attaches"];
    text.starts_with("---") || marks.iter().any(|mark| text.contains(mark))
}

/// The operation of a client that a line is about: `client 3 op 17`.
fn operation(text: &str) -> Option<&str> {
    let text = text.starts_with("client ").then_some(text)?;
    text.split_once(':').map(|(name, _)| name).filter(|name| name.contains(" op "))
}

/// The last `keep` lines, of all that was printed, that tell of the failure in them.
pub(crate) fn story(output: &[&str], keep: usize) -> Vec<String> {
    let is_time = |word: &str| word.contains('.') && word.parse::<f64>().is_ok();
    let timed = output.iter().filter_map(|line| {
        let (time, text) = line.trim_start().split_once(' ')?;
        is_time(time).then_some((*line, text))
    });
    let lines: Vec<(&str, &str)> = timed.collect();
    let failure = output.iter().find(|line| line.contains("FAILED")).copied().unwrap_or_default();
    let focus = Focus::of(failure);
    let mut operations = BTreeSet::new();
    let mut told = Vec::new();
    for (line, text) in lines {
        let known = operation(text).is_some_and(|name| operations.contains(name));
        if is_turn(text) || known || focus.is_about(text) {
            operations.extend(operation(text));
            told.push(line.chars().take(LINE_CHARS_MAX).collect::<String>());
        }
    }
    let end = output.iter().position(|line| line.contains("FAILED")).unwrap_or(output.len());
    let last: Vec<String> = output[end..].iter().map(|line| (*line).to_owned()).collect();
    told.retain(|line| !line.contains("FAILED"));
    let from = told.len().saturating_sub(keep);
    told.drain(from..).chain(last.into_iter().take(20)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_says_what_it_is_about() {
        let focus =
            Focus::of("seed 3 FAILED: v1 is not one disk, in c2: cell 77, read 1..2: wrong");
        let copyset = Some(("CopysetId(2)".to_owned(), "c2".to_owned()));
        assert_eq!(focus, Focus { copyset, cell: Some(77) });
        assert_eq!(Focus::of("panicked at somewhere"), Focus::default());
    }

    #[test]
    fn a_story_holds_the_copyset_the_cells_and_the_faults() {
        let output = [
            "   1.000001 client 0 op 1: write Some(4) cells 70+10",
            "   1.000002 s1/0 <- request 1 on 2: Append(CopysetId(2), ..)",
            "   1.000003 s1/0 <- request 2 on 2: Append(CopysetId(20), ..)",
            "   1.000004 client 0 op 1: Ok(Done)",
            "   1.000005 client 0 op 2: write Some(5) cells 80+10",
            "   1.000006 fault: kill",
            " INFO a line of the shard about c2",
            "   1.000007 FAILED: v1 is not one disk, in c2: cell 77, read 1..2: wrong",
            "   w4 data",
        ];
        let told = story(&output, 10);
        let expected = [0, 1, 3, 5, 7, 8].map(|at| output[at]);
        assert_eq!(told, expected);
        assert_eq!(story(&output, 1), [output[5], output[7], output[8]]);
    }
}
