//! The result of a command: one serialisable value, of which the text on a terminal and the JSON line are two
//! renderings. Plain data and formatting only; writing it anywhere is `shell`'s business.

pub mod annotation;
pub mod chart;
pub mod figure;
pub mod page;
mod shell;
mod table;
mod visible;

pub use shell::shell;
pub use table::{Align, Table, grouped};
pub use visible::visible;

use serde::Serialize;

/// The result of one command.
pub trait Report: Serialize {
    /// Name and version of its JSON form: `slmc.eval/1`.
    const SCHEMA: &'static str;

    /// The same result for a person, without a final line break.
    fn text(&self) -> String;
}

/// The report as one JSON object on one line, without a line break, `schema` first. Fails only where the type cannot
/// be JSON (a map whose keys are not strings); numbers that are not finite become `null`.
pub fn json_line<R: Report>(report: &R) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Tagged<'a, R> {
        schema: &'static str,
        #[serde(flatten)]
        report: &'a R,
    }
    serde_json::to_string(&Tagged { schema: R::SCHEMA, report })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Inner {
        bytes: u64,
    }

    #[derive(Serialize)]
    struct Sample {
        name: &'static str,
        #[serde(flatten)]
        inner: Inner,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<f64>,
    }

    impl Report for Sample {
        const SCHEMA: &'static str = "slmc.sample/1";
        fn text(&self) -> String {
            self.name.to_owned()
        }
    }

    #[test]
    fn the_schema_comes_first_and_absent_values_are_left_out() {
        let line = json_line(&Sample { name: "a\nb", inner: Inner { bytes: 7 }, absent: None }).expect("serialises");
        assert_eq!(line, r#"{"schema":"slmc.sample/1","name":"a\nb","bytes":7}"#);
    }
}
