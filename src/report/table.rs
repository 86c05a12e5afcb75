//! Plain text tables: columns aligned left or right, two spaces between them, no colour, no line drawing, so that they
//! read the same in a terminal, a log and a diff.

use std::fmt;

/// Where the cells of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under a heading. Displays without a final line break, trailing spaces and columns in which
/// nothing stands.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns from left to right. A table whose headings are all empty has no heading line.
    pub fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        Table::of(columns.map(|(heading, align)| (heading.to_owned(), align)).into())
    }

    /// As many columns as there are.
    pub fn of(columns: Vec<(String, Align)>) -> Self {
        Table { columns, rows: Vec::new() }
    }

    /// Two columns without headings: names and values, which may be words as well as numbers.
    pub fn pairs() -> Self {
        Table::new([("", Align::Left), ("", Align::Left)])
    }

    /// Appends a row. Cells that are missing are empty, cells beyond the last column are an error of the caller.
    pub fn row<I>(&mut self, cells: I) -> &mut Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        debug_assert!(cells.len() <= self.columns.len());
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        let headed = headings.iter().any(|heading| !heading.is_empty());
        let lines: Vec<&Vec<String>> = headed.then_some(&headings).into_iter().chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        for (n, line) in lines.iter().enumerate() {
            let mut text = String::new();
            for ((cell, &width), (_, align)) in line.iter().zip(&widths).zip(&self.columns) {
                // A column of nothing: what some reports have and this one does not.
                if width == 0 {
                    continue;
                }
                let padding = " ".repeat(width - cell.chars().count());
                match align {
                    Align::Left => text.extend([cell, padding.as_str(), "  "]),
                    Align::Right => text.extend([padding.as_str(), cell, "  "]),
                }
            }
            if n > 0 {
                f.write_str("\n")?;
            }
            f.write_str(text.trim_end())?;
        }
        Ok(())
    }
}

/// A count with a comma between thousands: `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_have_no_trailing_spaces() {
        let mut table = Table::new([("name", Align::Left), ("bytes", Align::Right), ("note", Align::Left)]);
        table.row(["embed.token", &grouped(1_048_576), ""]).row(["µ", "7", "tied"]);
        assert_eq!(
            table.to_string(),
            "name             bytes  note\nembed.token  1,048,576\nµ                    7  tied"
        );
        let mut pairs = Table::pairs();
        pairs.row(["tokens", "12"]).row(["kld_mean", "0.5"]);
        assert_eq!(pairs.to_string(), "tokens    12\nkld_mean  0.5");
        let mut absent = Table::new([("a", Align::Left), ("", Align::Right), ("b", Align::Left)]);
        absent.row(["1", "", "2"]);
        assert_eq!(absent.to_string(), "a  b\n1  2");
    }

    #[test]
    fn thousands_are_separated() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")];
        for (count, text) in cases {
            assert_eq!(grouped(count), text);
        }
    }
}
