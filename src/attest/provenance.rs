//! SLSA provenance (`https://slsa.dev/provenance/v1`) of an artifact.
//!
//! ```text
//! buildDefinition  buildType             slmc's, whose page is docs/attest.md
//!                  externalParameters    stages: each with its options, seed and target; recipe: name, file, overrides
//!                  internalParameters    stages: each with its settings as resolved, class of arithmetic, hashes of inputs
//!                  resolvedDependencies  everything that was read and that no stage made; the recipe
//! runDetails       builder               id, the version that compiled, the program that states this (builderDependencies)
//!                  metadata              only what was asked for: invocationId, finishedOn
//! ```

use super::AttestError;
use super::record::{Record, Step};
use super::results::Results;
use crate::disk::hash::file_sha256;
use crate::machine::tool;
use crate::trust::statement::Resource;
use serde_json::{Map, Value, json};

/// The type of the predicate.
pub(super) const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// The kind of build, described in docs/attest.md.
pub(super) const BUILD_TYPE: &str = "slmc:attest/v1";
/// The builder where nobody named one: whoever has the key.
const NO_BUILDER: &str = "slmc:attest/v1#builder-not-named";

/// Who built, as far as that is claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    /// A URI; by the environment of GitHub Actions if absent.
    pub id: Option<String>,
    /// A name of the invocation.
    pub invocation_id: Option<String>,
    /// When the build ended, `YYYY-MM-DDThh:mm:ssZ`.
    pub finished_on: Option<String>,
}

impl Builder {
    /// The same with the id that the environment gives, checked.
    ///
    /// # Errors
    /// [`AttestError::Option`].
    pub fn checked(mut self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, AttestError> {
        let fault = |option, value: &str, fault| AttestError::Option { option, value: value.to_owned(), fault };
        if self.id.is_none() && variable("GITHUB_ACTIONS").as_deref() == Some("true") {
            self.id = variable("GITHUB_SERVER_URL")
                .zip(variable("GITHUB_WORKFLOW_REF"))
                .map(|(server, workflow)| format!("{server}/{workflow}"));
        }
        if let Some(id) = self.id.as_deref().filter(|id| !is_uri(id)) {
            return Err(fault(
                "--builder-id",
                id,
                "is not a URI; pass one that names who builds, such as https://ci.example.com/release",
            ));
        }
        if let Some(time) = self.finished_on.as_deref().filter(|time| !is_time(time)) {
            return Err(fault(
                "--finished-on",
                time,
                "is not a time; expected YYYY-MM-DDThh:mm:ssZ, such as 2026-11-30T09:30:00Z",
            ));
        }
        Ok(self)
    }

    /// Whether anybody is named.
    pub fn is_named(&self) -> bool {
        self.id.is_some()
    }
}

/// A scheme, a colon and something, without spaces (RFC 3986, section 3).
fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !rest.is_empty()
            && rest.chars().all(|c| c.is_ascii_graphic() && !"<>\"{}|\\^`".contains(c))
    })
}

/// `YYYY-MM-DDThh:mm:ssZ` with parts in their ranges.
pub(super) fn is_time(text: &str) -> bool {
    let shape = "dddd-dd-ddTdd:dd:ddZ";
    let fits = text.len() == shape.len()
        && text
            .bytes()
            .zip(shape.bytes())
            .all(|(byte, kind)| if kind == b'd' { byte.is_ascii_digit() } else { byte == kind });
    let part = |from: usize, most: u32, least: u32| {
        text[from..from + 2].parse().is_ok_and(|n: u32| (least..=most).contains(&n))
    };
    fits && part(5, 12, 1) && part(8, 31, 1) && part(11, 23, 0) && part(14, 59, 0) && part(17, 60, 0)
}

/// The predicate.
///
/// # Errors
/// The program's own file cannot be hashed.
pub(super) fn predicate(
    record: &Record,
    results: Option<&Results>,
    recipe: Option<&Resource>,
    builder: &Builder,
) -> Result<Value, AttestError> {
    let mut external = Map::new();
    external.insert("stages".to_owned(), record.steps.iter().map(Step::asked).collect());
    if let Some(results) = results {
        let run = &results.run;
        external.insert("recipe".to_owned(), json!({"name": run.recipe, "file": run.file, "overrides": run.settings}));
    }
    let mut internal = Map::new();
    internal.insert("stages".to_owned(), record.steps.iter().map(Step::resolved).collect());
    if !record.withheld.is_empty() {
        internal.insert("withheld".to_owned(), json!(record.withheld));
    }
    let dependencies = record.dependencies.iter().map(super::record::Dependency::resource).chain(recipe.cloned());
    let mut metadata = Map::new();
    for (name, value) in [("invocationId", &builder.invocation_id), ("finishedOn", &builder.finished_on)] {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), json!(value));
        }
    }
    let (name, version) = record.tool().split_once(' ').unwrap_or(("slmc", record.tool()));
    let mut details = json!({
        "builder": {
            "id": builder.id.as_deref().unwrap_or(NO_BUILDER),
            "version": {name: version},
            "builderDependencies": [this_program()?],
        },
    });
    if !metadata.is_empty() {
        details["metadata"] = Value::Object(metadata);
    }
    Ok(json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external,
            "internalParameters": internal,
            "resolvedDependencies": dependencies.collect::<Vec<_>>(),
        },
        "runDetails": details,
    }))
}

/// The program that states all this.
fn this_program() -> Result<Resource, AttestError> {
    let path = std::env::current_exe().map_err(AttestError::Program)?;
    Ok(Resource::file("slmc", &file_sha256(&path)?).annotated(json!({"version": tool()})))
}

#[cfg(test)]
mod tests {
    use super::super::record::example;
    use super::*;
    use std::path::Path;

    #[test]
    fn a_predicate_has_what_slsa_requires_and_nothing_of_the_machine() {
        let record = Record::of(&example(), Path::new("a.slm"), None).expect("a record");
        let builder = Builder { id: Some("https://ci.example.com/a".to_owned()), ..Builder::default() };
        let said = predicate(&record, None, None, &builder).expect("a predicate");
        let definition = &said["buildDefinition"];
        assert_eq!(
            (&definition["buildType"], &said["runDetails"]["builder"]["id"]),
            (&json!(BUILD_TYPE), &json!("https://ci.example.com/a"))
        );
        assert_eq!(definition["externalParameters"]["stages"][2]["options"], json!({"scheme": "w8"}));
        assert_eq!(definition["internalParameters"]["stages"][0]["numerics"], json!("x86-64-v3"));
        assert_eq!(definition["internalParameters"]["withheld"], json!(["distill/data"]));
        assert_eq!(definition["resolvedDependencies"][0]["digest"], json!({"slmcModelSha256": "aa"}));
        assert_eq!(definition["resolvedDependencies"][1]["digest"], json!({"sha256": "bb"}));
        assert_eq!(said["runDetails"]["builder"]["version"], json!({"slmc": "0.1.0"}));
        assert!(said["runDetails"].get("metadata").is_none());
        let text = said.to_string();
        for machine in ["threads", "cpu", "avx", "finishedOn", "startedOn"] {
            assert!(!text.contains(machine), "{machine} in {text}");
        }
        assert_eq!(text, predicate(&record, None, None, &builder).expect("a predicate").to_string());
    }

    #[test]
    fn builders_come_from_the_option_or_from_actions() {
        let nothing = |_: &str| None;
        let actions = |name: &str| match name {
            "GITHUB_ACTIONS" => Some("true".to_owned()),
            "GITHUB_SERVER_URL" => Some("https://github.com".to_owned()),
            "GITHUB_WORKFLOW_REF" => Some("a/b/.github/workflows/c.yml@refs/heads/main".to_owned()),
            _ => None,
        };
        let id = |id: Option<&str>, variable: &dyn Fn(&str) -> Option<String>| {
            Builder { id: id.map(str::to_owned), ..Builder::default() }.checked(variable).map(|builder| builder.id)
        };
        assert_eq!(id(None, &nothing).expect("none"), None);
        let of_actions = id(None, &actions).expect("one").expect("named");
        assert_eq!(of_actions, "https://github.com/a/b/.github/workflows/c.yml@refs/heads/main");
        assert_eq!(id(Some("urn:a:b"), &actions).expect("one").as_deref(), Some("urn:a:b"));
        for wrong in ["", "laptop", "https://a b", ":a", "1a:b", "a:"] {
            assert!(id(Some(wrong), &nothing).is_err(), "{wrong}");
        }
        for (time, sound) in [
            ("2026-11-30T09:30:00Z", true),
            ("2026-13-30T09:30:00Z", false),
            ("2026-11-30T09:30:00", false),
            ("2026-11-30 09:30:00Z", false),
            ("2026-11-3ÄT09:30:00Z", false),
        ] {
            let builder = Builder { finished_on: Some(time.to_owned()), ..Builder::default() };
            assert_eq!(builder.checked(&nothing).is_ok(), sound, "{time}");
        }
    }
}
