//! Results on standard output: tables for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

/// Prints a result as JSON when `json` is set, and with `human` otherwise.
pub fn print<T: Serialize>(
    json: bool,
    result: &T,
    human: impl FnOnce(&T) -> String,
) -> io::Result<()> {
    let mut text = if json { serde_json::to_string(result)? } else { human(result) };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    write(text.as_bytes())
}

/// Writes to standard output. A reader that goes away (`ogive status | head`) is not an error.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A table with aligned columns; numbers, with their units, to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub fn new(titles: &[&str]) -> Table {
        Table { rows: vec![titles.iter().map(|t| (*t).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows[0].len();
        let cell = |row: &Vec<String>, i: usize| row.get(i).map_or(0, |c| c.chars().count());
        let widths: Vec<usize> = (0..columns)
            .map(|i| self.rows.iter().map(|row| cell(row, i)).max().unwrap_or(0))
            .collect();
        let numeric: Vec<bool> =
            (0..columns).map(|i| self.rows[1..].iter().all(|r| is_number(r, i))).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (i, text) in row.iter().enumerate() {
                let pad = " ".repeat(widths[i].saturating_sub(text.chars().count()));
                let cell = if numeric[i] { format!("{pad}{text}") } else { format!("{text}{pad}") };
                line.push_str(if i == 0 { "" } else { "  " });
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn is_number(row: &[String], column: usize) -> bool {
    row.get(column)
        .is_none_or(|c| c.is_empty() || c == "-" || c.starts_with(|ch: char| ch.is_ascii_digit()))
}

/// A size for people, in powers of 1024.
pub fn bytes(n: u64) -> String {
    bytesize::ByteSize(n).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["name", "size"]);
        table.row(["a".to_owned(), "12".to_owned()]);
        table.row(["long".to_owned(), "1234567".to_owned()]);
        assert_eq!(table.to_string(), "name     size\na          12\nlong  1234567\n");
    }
}
