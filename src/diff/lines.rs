//! The lines of the table of differences, for people: what differs alike in several layers is one line, and a sum that another
//! key has too is left out. JSON has every difference by itself.
//!
//! ```text
//! tensors.layers.0-4.attn.q.weight.storage       w8    w4.g32
//! ```

use super::Difference;
use crate::report::visible;
use serde_json::Value;

/// Longest value of a line.
const MOST_CHARACTERS: usize = 48;
/// Before the number of a layer.
const LAYERS: &str = "layers.";
/// Bytes of classes of tensors, which `classes` has with more.
const TWICE: &str = "bytes_by_class.";

/// A line: path, both values, and by how much a number changed, in parts of it.
pub(super) type Line = [String; 4];

/// The lines of differences, in their order.
pub(super) fn lines(differences: &[Difference]) -> Vec<Line> {
    let has_classes = differences.iter().any(|difference| difference.path.starts_with("classes."));
    let kept = differences.iter().filter(|difference| !(has_classes && difference.path.starts_with(TWICE)));
    // A path with the places of its layers' numbers, what it says, and the layers in which it does.
    let mut groups: Vec<(Place<'_>, Line, Vec<usize>)> = Vec::new();
    for difference in kept {
        let [a, b] = [&difference.a, &difference.b].map(|value| shown(value.as_ref()));
        let (place, layer) = Place::of(&difference.path);
        let line = [String::new(), a, b, change(difference)];
        match groups.iter_mut().find(|(other, said, _)| layer.is_some() && *other == place && *said == line) {
            Some((_, _, layers)) => layers.extend(layer),
            None => groups.push((place, line, layer.into_iter().collect())),
        }
    }
    let finished =
        |(place, [_, a, b, change], layers): (Place<'_>, Line, Vec<usize>)| [place.of_layers(&layers), a, b, change];
    groups.into_iter().map(finished).collect()
}

/// A path around the number of a layer.
#[derive(PartialEq)]
struct Place<'p> {
    before: &'p str,
    after: &'p str,
}

impl<'p> Place<'p> {
    /// With the number, where the path has one.
    fn of(path: &'p str) -> (Self, Option<usize>) {
        let whole = (Place { before: path, after: "" }, None);
        let Some(at) = path.find(LAYERS).map(|at| at + LAYERS.len()) else { return whole };
        let end = path[at..].find('.').map_or(path.len(), |end| at + end);
        match path[at..end].parse() {
            Ok(layer) => (Place { before: &path[..at], after: &path[end..] }, Some(layer)),
            Err(_) => whole,
        }
    }

    fn of_layers(&self, layers: &[usize]) -> String {
        let mut ranges: Vec<[usize; 2]> = Vec::new();
        for &layer in layers {
            match ranges.last_mut() {
                Some([_, end]) if *end + 1 == layer => *end = layer,
                _ => ranges.push([layer, layer]),
            }
        }
        let range = |[first, last]: &[usize; 2]| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let numbers = ranges.iter().map(range).collect::<Vec<_>>().join(",");
        format!("{}{numbers}{}", self.before, self.after)
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None => return "-".to_owned(),
        Some(Value::String(text)) => visible(text).replace(['\n', '\t'], " "),
        Some(Value::Number(number)) if number.is_f64() => match number.as_f64().unwrap_or_default() {
            small if small.abs() < 1e-3 && small != 0.0 => format!("{small:.4e}"),
            other => format!("{other:.4}"),
        },
        Some(value) => value.to_string(),
    };
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn change(difference: &Difference) -> String {
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    match (number(&difference.a), number(&difference.b)) {
        (Some(a), Some(b)) if a != 0.0 => format!("{:+.2} %", 100.0 * (b - a) / a.abs()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_layers_have_alike_is_one_line_and_sums_are_there_once() {
        let difference = |path: &str, a: Value, b: Value| Difference { path: path.to_owned(), a: Some(a), b: Some(b) };
        let mut all = vec![
            difference("bytes_by_class.ffn", json!(8), json!(4)),
            difference("classes.ffn.bytes", json!(8), json!(4)),
            difference("kld", json!(0.123_456_7), json!(1e-5)),
        ];
        for layer in [0, 1, 2, 5] {
            all.push(difference(&format!("tensors.layers.{layer}.q.storage"), json!("w8"), json!("w4")));
            all.push(difference(&format!("tensors.layers.{layer}.q.bytes"), json!(2 * layer + 2), json!(1)));
        }
        let lines: Vec<String> = lines(&all).iter().map(|line| line.join(" ").trim_end().to_owned()).collect();
        let expected = [
            "classes.ffn.bytes 8 4 -50.00 %",
            "kld 0.1235 1.0000e-5 -99.99 %",
            "tensors.layers.0-2,5.q.storage w8 w4",
            "tensors.layers.0.q.bytes 2 1 -50.00 %",
            "tensors.layers.1.q.bytes 4 1 -75.00 %",
            "tensors.layers.2.q.bytes 6 1 -83.33 %",
            "tensors.layers.5.q.bytes 12 1 -91.67 %",
        ];
        assert_eq!(lines, expected);
    }
}
