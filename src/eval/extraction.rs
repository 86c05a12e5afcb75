//! The answer within a text that a model generated, and when two answers are the same.
//!
//! ```text
//! whole     all of it                          same: equal, spaces at both ends left out
//! line      the last line that is not blank    same: equal, runs of space as one, a full stop at the end left out
//! number    the last number                    same: equal, commas between digits, + and trailing zeros of a fraction left out
//! ```
//!
//! With a marker only what stands after its last occurrence is looked at; a text without it has no answer.

use serde::Serialize;

/// What of a generated text is its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AnswerIs {
    /// All of it
    #[default]
    Whole,
    /// The last line that is not blank
    Line,
    /// The last number
    Number,
}

/// How answers are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extraction {
    /// What of the text.
    pub answer_is: AnswerIs,
    /// Text that stands before the answer.
    pub after: Option<String>,
}

impl Extraction {
    /// The answer of a generated text; `None` where there is none.
    pub fn found(&self, text: &str) -> Option<String> {
        let rest = match &self.after {
            Some(marker) => &text[text.rfind(marker.as_str())? + marker.len()..],
            None => text,
        };
        match self.answer_is {
            AnswerIs::Whole => Some(rest.trim().to_owned()),
            AnswerIs::Line => rest.lines().rev().find(|line| !line.trim().is_empty()).map(plain),
            AnswerIs::Number => last_number(rest),
        }
    }

    /// A wanted answer in the form in which it is compared. One without the marker is an answer by itself.
    pub fn wanted(&self, text: &str) -> String {
        let marked = self.after.as_ref().is_some_and(|marker| text.contains(marker.as_str()));
        let plain = Extraction { after: None, ..self.clone() };
        let found = if marked { self.found(text) } else { plain.found(text) };
        found.unwrap_or_else(|| text.trim().to_owned())
    }
}

/// Runs of space as one, and without a full stop at the end.
fn plain(line: &str) -> String {
    let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
    words.strip_suffix('.').map_or(words.clone(), |rest| rest.trim_end().to_owned())
}

/// The last number of a text, in one spelling.
fn last_number(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |place: usize| bytes.get(place).is_some_and(u8::is_ascii_digit);
    let end = (0..bytes.len()).rfind(|&place| is_digit(place))? + 1;
    let mut start = end - 1;
    // Separators count between digits only.
    while start > 0
        && (is_digit(start - 1) || matches!(bytes[start - 1], b',' | b'.') && start > 1 && is_digit(start - 2))
    {
        start -= 1;
    }
    let before = text[..start].trim_end_matches('$');
    // A minus between two numbers is a difference, not a sign.
    let minus = before.strip_suffix('-').or_else(|| before.strip_suffix('−'));
    let negative = minus.is_some_and(|rest| !rest.ends_with(|before: char| before.is_alphanumeric()));
    let digits: String = text[start..end].chars().filter(|character| *character != ',').collect();
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(answer_is: AnswerIs, after: Option<&str>, text: &str) -> Option<String> {
        Extraction { answer_is, after: after.map(str::to_owned) }.found(text)
    }

    #[test]
    fn answers_are_found_by_line_number_and_marker() {
        let text = "First 3 apples.\nThen 4 more:\n7 apples .\n\n";
        assert_eq!(found(AnswerIs::Whole, None, " a b \n").as_deref(), Some("a b"));
        assert_eq!(found(AnswerIs::Line, None, text).as_deref(), Some("7 apples"));
        assert_eq!(found(AnswerIs::Number, None, text).as_deref(), Some("7"));
        assert_eq!(found(AnswerIs::Whole, Some("####"), "2 + 2 = 4 #### 4 #### 5\n").as_deref(), Some("5"));
        assert_eq!(found(AnswerIs::Number, Some("answer is"), "the answer is: 12").as_deref(), Some("12"));
        for (kind, after, text) in
            [(AnswerIs::Line, None, " \n"), (AnswerIs::Number, None, "none"), (AnswerIs::Whole, Some("####"), "4")]
        {
            assert_eq!(found(kind, after, text), None, "{text}");
        }
    }

    #[test]
    fn numbers_have_one_spelling() {
        for (text, number) in [
            ("1,234.50", "1234.5"),
            ("$3.00.", "3"),
            ("007", "7"),
            ("it is -12", "-12"),
            ("-0.0", "0"),
            ("5-3", "3"),
            ("5 - 3", "3"),
            ("x = −4", "-4"),
            ("1, 2", "2"),
            ("0.05", "0.05"),
            ("-$5", "-5"),
        ] {
            assert_eq!(last_number(text).as_deref(), Some(number), "{text}");
        }
    }

    #[test]
    fn wanted_answers_need_no_marker() {
        let extraction = Extraction { answer_is: AnswerIs::Number, after: Some("####".to_owned()) };
        assert_eq!(extraction.wanted("1,000"), "1000");
        assert_eq!(extraction.wanted("12 of 5 #### 7"), "7");
        assert_eq!(extraction.wanted("none"), "none");
    }
}
