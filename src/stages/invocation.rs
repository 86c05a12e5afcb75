//! The command of a stage as its provenance records it, enough to run it again on the same inputs: every option by its long
//! name, defaults among them, without paths; the seed; the target as content. What is read is recorded by its hash
//! ([`super::provenance::Inputs`]), under the name of the option that reads it.

use super::arguments::{Meaning, meaning};
use crate::model::device::without_addresses;
use crate::target::Target;
use clap::{ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The option that says where the output goes.
const OUT: &str = "out";

/// Options, seed and target of a stage; nothing where it was not called as a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Invocation(Arc<Map<String, Value>>);

impl Invocation {
    /// From a command that was parsed.
    pub fn of(command: &Command, matches: &ArgMatches, seed: u64) -> Self {
        let (mut options, mut target) = (Map::new(), None);
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long().filter(|flag| *flag != OUT) else { continue };
            let id = argument.get_id().as_str();
            if matches!(argument.get_action(), ArgAction::SetTrue) {
                if matches.get_flag(id) {
                    options.insert(flag.to_owned(), json!(true));
                }
                continue;
            }
            let raw = matches.get_raw(id).into_iter().flatten();
            let mut values: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
            match meaning(argument) {
                None => {}
                Some(Meaning::Reads(words)) => values.retain(|value| words.contains(&value.as_str())),
                Some(Meaning::Target) => {
                    let named = values.first().and_then(|name| Target::named(name).ok());
                    target = named.and_then(|target| serde_json::to_value(target).ok());
                    continue;
                }
                Some(Meaning::Backend) => {
                    values = values.iter().map(|name| without_addresses(name).to_owned()).collect();
                }
                // That there is one counts, not where it lies.
                Some(Meaning::Shares) => {
                    if !values.is_empty() {
                        options.insert(flag.to_owned(), json!({}));
                    }
                    continue;
                }
                Some(Meaning::Model { .. } | Meaning::Writes) => continue,
            }
            match values.len() {
                0 => {}
                1 => drop(options.insert(flag.to_owned(), json!(values[0]))),
                _ => drop(options.insert(flag.to_owned(), json!(values))),
            }
        }
        options.sort_keys();
        let mut record = Map::new();
        record.insert("options".to_owned(), Value::Object(options));
        record.insert("seed".to_owned(), json!(seed));
        record.extend(target.map(|target| ("target".to_owned(), target)));
        Invocation(Arc::new(record))
    }

    /// Puts it into a record.
    pub fn add_to(&self, record: &mut Value) {
        if let Some(record) = record.as_object_mut() {
            record.extend(self.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::arguments::groups::BackendArg;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        _backend: BackendArg,
    }

    #[test]
    fn addresses_of_workers_are_not_recorded() {
        for (given, recorded) in [("remote:a:3000,b:3000", "remote"), ("remote", "remote"), ("flex", "flex")] {
            let command = Program::command();
            let matches = command.clone().try_get_matches_from(["slmc", "--backend", given]).expect("it parses");
            let mut record = json!({});
            Invocation::of(&command, &matches, 0).add_to(&mut record);
            assert_eq!(record["options"], json!({"backend": recorded}));
        }
    }
}
