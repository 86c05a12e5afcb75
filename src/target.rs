//! An edge device, the one type for it, and target files: the limits of a device and the schemes it runs. The schema is
//! closed; a number that nobody knows is absent, never 0, and each number names its source. The targets in `targets/` are
//! part of the program; a person's own file is read by path.

use crate::disk::schema::{self, SchemaError, nearest, positive, positive_rate};
use crate::model::id::LinearId;
use crate::model::scheme::{Assignment, QuantScheme};
use crate::model::transform::NmPattern;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use slm_runtime::layout::{ALIGNMENT, Layout};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod pace;
mod report;

pub use pace::{PER_MILLISECOND, Pace};
pub use report::TargetsReport;

/// Name and text of every target that is part of the program, in the order they are listed.
const EMBEDDED: [(&str, &str); 7] = [
    ("generic", include_str!("../targets/generic.toml")),
    ("x86-64-v3", include_str!("../targets/x86-64-v3.toml")),
    ("cortex-a76", include_str!("../targets/cortex-a76.toml")),
    ("cortex-m4", include_str!("../targets/cortex-m4.toml")),
    ("cortex-m55", include_str!("../targets/cortex-m55.toml")),
    ("wasm32", include_str!("../targets/wasm32.toml")),
    ("generic-npu-2to4", include_str!("../targets/generic-npu-2to4.toml")),
];

/// Why a target is refused.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No target has this name.
    #[error(
        "unknown target `{name}`{suggestion}; known: {known}; a file of your own is given by a path that ends in .toml"
    )]
    Unknown {
        /// The name.
        name: String,
        /// ", did you mean `…`?" or nothing.
        suggestion: String,
        /// Every known name, joined by commas.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read the target file {}; check the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a target.
    #[error("{file} is not a target file")]
    Schema {
        /// Path, or name of an embedded target.
        file: String,
        /// Line and reason.
        source: SchemaError,
    },
    /// A value contradicts another one or a rule.
    #[error("{file}: `{key}` is {found}; expected {expected}")]
    Invalid {
        /// Path, or name of an embedded target.
        file: String,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The rule.
        expected: String,
    },
    /// A matrix whose scheme the target does not run.
    #[error("target {target} does not run {scheme}, the scheme of `{id}`; quantize it to {runs}")]
    Scheme {
        /// The target.
        target: String,
        /// The first such matrix.
        id: LinearId,
        /// Its scheme.
        scheme: QuantScheme,
        /// The schemes that the target runs.
        runs: String,
    },
}

/// A device, or a class of devices; a limit that is absent does not limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name in commands; the file's name without `.toml`.
    pub name: String,
    /// One line for a person who chooses.
    pub description: String,
    /// Rust's name of the platform; absent where any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triple: Option<String>,
    /// Instruction set of the kernels that the layout is made for; absent where any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
    /// How weights are interleaved.
    #[serde(deserialize_with = "layout_from_name", serialize_with = "layout_to_name")]
    #[schemars(with = "String")]
    pub layout: Layout,
    /// The weights section of an artifact starts on a multiple of this: a power of two, at least 64.
    pub page_bytes: u64,
    /// Flash that is there for the artifact.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub flash_bytes: Option<u64>,
    /// RAM of the device.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub ram_bytes: Option<u64>,
    /// Part of `ram_bytes` that the program around the model needs.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub ram_reserved_bytes: Option<u64>,
    /// Peak rate at which weights can be read from where they lie (flash, or RAM where they are mapped).
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub flash_bandwidth_bytes_per_s: Option<u64>,
    /// Storage that artifacts are streamed from and that cannot be addressed: a card, serial flash without mapping.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub storage_bytes: Option<u64>,
    /// Rate at which it is read.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub storage_bandwidth_bytes_per_s: Option<u64>,
    /// Peak multiply-accumulates per cycle of one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs_per_cycle: Option<MacsPerCycle>,
    /// Clock of one core.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub clock_hz: Option<u64>,
    /// Cores that can work on one model.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub cores: Option<u64>,
    /// The only models that the device takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<Required>,
    /// Largest model it takes, whatever its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Max>,
    /// Where each number is from, by its key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

/// Peak multiply-accumulates per cycle of one core, by weight format.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MacsPerCycle {
    /// 8-bit weights.
    #[serde(default, deserialize_with = "positive_rate", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub w8: Option<f64>,
    /// 4-bit weights, unpacking included.
    #[serde(default, deserialize_with = "positive_rate", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub w4: Option<f64>,
}

/// The requirements of an accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Required {
    /// Sparsity that every feed-forward linear must have: `2:4`, the one pattern that artifacts store compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<String>,
    /// The only weight formats it can run; any where the list is absent.
    #[serde(
        default,
        deserialize_with = "schemes_from_names",
        serialize_with = "schemes_to_names",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Vec<String>")]
    pub schemes: Vec<QuantScheme>,
}

impl Required {
    /// The sparsity as a pattern; the file was checked.
    pub fn pattern(&self) -> Option<NmPattern> {
        self.sparsity.as_ref().and_then(|sparsity| sparsity.parse().ok())
    }
}

/// Bounds of an implementation on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Max {
    /// Rows of the token table.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub vocabulary: Option<u64>,
    /// Positions.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub context: Option<u64>,
    /// Layers.
    #[serde(default, deserialize_with = "positive", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub layers: Option<u64>,
}

/// Largest page an artifact's header may state.
const MAX_PAGE_BYTES: u64 = 1 << 24;

impl Target {
    /// A device without limits, for running on this machine.
    pub fn unlimited(name: &str, layout: Layout) -> Self {
        Target {
            name: name.to_owned(),
            description: String::new(),
            triple: None,
            isa: None,
            layout,
            page_bytes: 4096,
            flash_bytes: None,
            ram_bytes: None,
            ram_reserved_bytes: None,
            flash_bandwidth_bytes_per_s: None,
            storage_bytes: None,
            storage_bandwidth_bytes_per_s: None,
            macs_per_cycle: None,
            clock_hz: None,
            cores: None,
            required: None,
            max: None,
            sources: BTreeMap::new(),
        }
    }

    /// Names of the embedded targets, in the order they are listed.
    pub fn names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.into_iter().map(|(name, _)| name)
    }

    /// Every embedded target, in the order they are listed.
    ///
    /// # Errors
    /// None in a program whose tests pass: they parse every embedded file.
    pub fn all() -> Result<Vec<Target>, TargetError> {
        EMBEDDED.into_iter().map(|(name, text)| Target::parse(name, text)).collect()
    }

    /// The target that a flag or recipe names: an embedded one, or a file where `name` ends in `.toml` or contains a
    /// slash. A relative path is relative to the working directory.
    ///
    /// # Errors
    /// Every variant of [`TargetError`].
    pub fn named(name: &str) -> Result<Target, TargetError> {
        if name.ends_with(".toml") || name.contains(['/', std::path::MAIN_SEPARATOR]) {
            return Target::load(Path::new(name));
        }
        match EMBEDDED.into_iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Target::parse(name, text),
            None => Err(TargetError::Unknown {
                name: name.to_owned(),
                suggestion: nearest(name, Target::names())
                    .map_or_else(String::new, |n| format!(", did you mean `{n}`?")),
                known: Target::names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Reads a target file.
    ///
    /// # Errors
    /// Every variant of [`TargetError`] but `Unknown`.
    pub fn load(path: &Path) -> Result<Target, TargetError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| TargetError::Read { path: path.to_owned(), source })?;
        Target::parse(&path.display().to_string(), &text)
    }

    /// Parses the text of a target file; `file` is its name in errors.
    ///
    /// # Errors
    /// [`TargetError::Schema`] and [`TargetError::Invalid`].
    pub fn parse(file: &str, text: &str) -> Result<Target, TargetError> {
        let target: Target =
            schema::parse(text).map_err(|source| TargetError::Schema { file: file.to_owned(), source })?;
        target.check(file)?;
        Ok(target)
    }

    /// RAM that is left for the model: absent where the RAM is unknown.
    pub fn usable_ram_bytes(&self) -> Option<u64> {
        self.ram_bytes.map(|ram| ram.saturating_sub(self.ram_reserved_bytes.unwrap_or(0)))
    }

    /// Whether the target runs every scheme of a model.
    ///
    /// # Errors
    /// [`TargetError::Scheme`] of the first matrix, some of whose rows it does not run.
    pub fn check_schemes(&self, assignment: &Assignment) -> Result<(), TargetError> {
        let Some(runs) = self.required.as_ref().map(|required| &required.schemes).filter(|runs| !runs.is_empty())
        else {
            return Ok(());
        };
        let foreign = |scheme: &QuantScheme| !scheme.parts(usize::MAX).all(|(_, scheme)| runs.contains(&scheme));
        match assignment.iter().find(|(_, scheme)| foreign(scheme)) {
            None => Ok(()),
            Some((id, scheme)) => Err(TargetError::Scheme {
                target: self.name.clone(),
                id: *id,
                scheme: *scheme,
                runs: runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            }),
        }
    }

    fn check(&self, file: &str) -> Result<(), TargetError> {
        let invalid = |key: &str, found: String, expected: &str| {
            Err(TargetError::Invalid {
                file: file.to_owned(),
                key: key.to_owned(),
                found,
                expected: expected.to_owned(),
            })
        };
        if self.name.trim().is_empty() {
            return invalid("name", "empty".to_owned(), "a name");
        }
        let pages = ALIGNMENT as u64..=MAX_PAGE_BYTES;
        if !self.page_bytes.is_power_of_two() || !pages.contains(&self.page_bytes) {
            return invalid("page_bytes", self.page_bytes.to_string(), "a power of two from 64 to 16777216");
        }
        if let Some(reserved) = self.ram_reserved_bytes
            && self.ram_bytes.is_none_or(|ram| reserved >= ram)
        {
            return invalid(
                "ram_reserved_bytes",
                reserved.to_string(),
                "less than `ram_bytes`, which must be given too",
            );
        }
        if let Some(sparsity) = self.required.as_ref().and_then(|required| required.sparsity.as_ref())
            && sparsity.parse() != Ok(NmPattern::TWO_OF_FOUR)
        {
            let expected = "2:4, the one pattern that artifacts store compressed";
            return invalid("required.sparsity", format!("`{sparsity}`"), expected);
        }
        let numbers = self.numbers();
        if let Some(key) = self.sources.keys().find(|key| !numbers.contains(&key.as_str())) {
            let expected = format!("the source of a number this file gives: {}", numbers.join(", "));
            return invalid(&format!("sources.{key}"), "the source of nothing".to_owned(), &expected);
        }
        Ok(())
    }

    /// Keys of the numbers that are given.
    fn numbers(&self) -> Vec<&'static str> {
        let max = self.max.unwrap_or(Max { vocabulary: None, context: None, layers: None });
        let all = [
            ("page_bytes", true),
            ("flash_bytes", self.flash_bytes.is_some()),
            ("ram_bytes", self.ram_bytes.is_some()),
            ("ram_reserved_bytes", self.ram_reserved_bytes.is_some()),
            ("flash_bandwidth_bytes_per_s", self.flash_bandwidth_bytes_per_s.is_some()),
            ("storage_bytes", self.storage_bytes.is_some()),
            ("storage_bandwidth_bytes_per_s", self.storage_bandwidth_bytes_per_s.is_some()),
            ("macs_per_cycle", self.macs_per_cycle.is_some()),
            ("clock_hz", self.clock_hz.is_some()),
            ("cores", self.cores.is_some()),
            ("max.vocabulary", max.vocabulary.is_some()),
            ("max.context", max.context.is_some()),
            ("max.layers", max.layers.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }
}

fn layout_from_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Layout, D::Error> {
    let name = String::deserialize(deserializer)?;
    Layout::from_name(&name).ok_or_else(|| {
        let known: Vec<&str> = Layout::ALL.iter().map(|layout| layout.name()).collect();
        serde::de::Error::custom(format!("unknown layout `{name}`; known: {}", known.join(", ")))
    })
}

fn layout_to_name<S: Serializer>(layout: &Layout, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(layout.name())
}

fn schemes_from_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<QuantScheme>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    if names.is_empty() {
        return Err(serde::de::Error::custom("an empty list allows no scheme; leave the key out to allow all"));
    }
    let plain = |name: &String| {
        let scheme: QuantScheme = name.parse().map_err(serde::de::Error::custom)?;
        match scheme.storage(None) {
            Some(_) => Ok(scheme),
            None => Err(serde::de::Error::custom(format!(
                "`{name}` is two schemes; a device that runs w8 and w4.g32 runs it: list those"
            ))),
        }
    };
    names.iter().map(plain).collect()
}

fn schemes_to_names<S: Serializer>(schemes: &[QuantScheme], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(schemes.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests;
