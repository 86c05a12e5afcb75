//! What a code of a mistake, a gate or an option of a stage means, from the same texts that the checks and the help use.

use super::gates::definitions;
use super::mistake::{Code, suggestion};
use super::stage::command;
use crate::report::Report;
use crate::stages::STAGES;
use clap::Arg;
use serde::Serialize;

/// Result of `slmc explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Such as `S011`, `gates.kld_max` or `stages.quantize.scheme`.
    pub topic: String,
    /// What it is.
    pub explanation: String,
}

/// A topic that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing is known of `{topic}`; {help}; topics are codes (S011), gates (kld_max) and options (quantize.scheme)"
)]
pub struct UnknownTopic {
    topic: String,
    help: String,
}

impl Report for Explanation {
    const SCHEMA: &'static str = "slmc.explanation/1";

    fn text(&self) -> String {
        format!("{}\n\n{}", self.topic, self.explanation)
    }
}

/// Explains a code, a gate (`kld_max`, `gates.kld_max`) or an option (`quantize.scheme`, `stages.quantize.scheme`).
///
/// # Errors
/// [`UnknownTopic`], with the nearest one.
pub fn explain(topic: &str) -> Result<Explanation, UnknownTopic> {
    let all = topics();
    let short = topic.trim_start_matches("stages.").trim_start_matches("gates.").replace('-', "_");
    let same = |name: &str| name.eq_ignore_ascii_case(&short) || name.ends_with(&format!("gates.{short}"));
    match all.iter().find(|(name, _)| same(name.trim_start_matches("stages."))) {
        Some((topic, explanation)) => Ok(Explanation { topic: topic.clone(), explanation: explanation.clone() }),
        None => {
            let names = all.iter().map(|(name, _)| name.trim_start_matches("stages.").trim_start_matches("gates."));
            let names: Vec<&str> = names.collect();
            let help = suggestion(&short, names.iter().copied());
            // A list of everything is no help.
            let help = if help.starts_with("known") { "nothing is spelled like it".to_owned() } else { help };
            Err(UnknownTopic { topic: topic.to_owned(), help })
        }
    }
}

/// Every topic with its text.
fn topics() -> Vec<(String, String)> {
    let codes = Code::ALL.iter().map(|code| (code.name().to_owned(), code.explanation().to_owned()));
    let gates = definitions().map(|(name, text)| (format!("gates.{name}"), text));
    let mut all: Vec<(String, String)> = codes.chain(gates).collect();
    for kind in STAGES {
        let command = command(kind);
        for argument in command.get_arguments() {
            if let Some(long) = argument.get_long() {
                all.push((format!("stages.{}.{}", kind.name(), long.replace('-', "_")), option(argument)));
            }
        }
    }
    all
}

/// The help of an option, as a paragraph with its values and default.
fn option(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut text = help.map_or_else(String::new, ToString::to_string);
    let values: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !values.is_empty() && !argument.get_action().takes_values() {
        return text;
    }
    if !values.is_empty() {
        text = format!("{text}\n\nValues: {}", values.join(", "));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && argument.get_action().takes_values() {
        text = format!("{text}\n\nDefault: {}", defaults.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_found_by_its_name() {
        for (topic, text) in topics() {
            assert!(text.len() > 8, "{topic}: {text:?}");
            assert_eq!(explain(&topic).map(|found| found.topic), Ok(topic));
        }
        for (asked, topic) in
            [("s011", "S011"), ("kld_max", "gates.kld_max"), ("quantize.keep", "stages.quantize.keep")]
        {
            assert_eq!(explain(asked).expect("known").topic, topic);
        }
        let unknown = explain("kld_mx").expect_err("unknown").to_string();
        assert!(unknown.contains("did you mean `kld_max`?"), "{unknown}");
        assert!(explain("zebra crossing").is_err());
    }
}
