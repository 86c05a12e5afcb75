//! Which scheme every matrix gets: a preset, then `--keep PATTERN=SCHEME` in order, the last that matches winning.
//! Patterns are globs over names (`layers.*.attn.q`, `head.*`) or the aliases embedding, attention, conv, ffn, head; the
//! projections of short convolutions are `conv` and not `attention`.

use super::budget::Bounds;
use crate::model::error::NameError;
use crate::model::id::{Class, LinearId, Role};
use crate::model::pattern::matches;
use crate::model::scheme::{Assignment, Preset, QuantScheme, SplitError, Width, width_name, width_of_name};
use crate::model::spec::ModelSpec;
use crate::model::transform::{NmPattern, Sparsity};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Where schemes come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SchemeSource {
    /// A preset.
    Preset(Preset),
    /// Chosen by measurement, within bounds.
    Auto(Bounds),
}

impl SchemeSource {
    /// `w8`, `mixed`, `w4`, `auto`.
    pub fn name(self) -> &'static str {
        match self {
            SchemeSource::Preset(preset) => preset.name(),
            SchemeSource::Auto(_) => "auto",
        }
    }
}

/// One `--keep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Glob or alias.
    pub pattern: String,
    /// For every matrix it matches.
    pub scheme: QuantScheme,
}

impl FromStr for Keep {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (pattern, scheme) = text.split_once('=').ok_or_else(|| PolicyError::Keep(text.to_owned()))?;
        Ok(Keep { pattern: pattern.to_owned(), scheme: scheme.parse()? })
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.scheme)
    }
}

/// One `--activations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activations {
    /// Glob or alias.
    pub pattern: String,
    /// Width of the inputs of every linear it matches.
    pub width: Width,
}

impl FromStr for Activations {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError::Activations(text.to_owned());
        let (pattern, width) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Activations { pattern: pattern.to_owned(), width: width_of_name(width).ok_or_else(wrong)? })
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, width_name(self.width))
    }
}

/// Whether some `--activations` speaks of a linear.
pub fn names_width(spec: &ModelSpec, wanted: &[Activations], id: LinearId) -> bool {
    let head = LinearId::global(Role::LmHead);
    let tied = id.role == Role::TokenEmbedding && spec.tied_head();
    wanted.iter().any(|one| matches(&one.pattern, id) || (tied && matches(&one.pattern, head)))
}

/// Every linear whose inputs are wider than 8 bits, the last match winning.
///
/// # Errors
/// A pattern that matches no linear, and experts whose two first matrices would read other roundings of one input.
pub fn widths(spec: &ModelSpec, wanted: &[Activations]) -> Result<BTreeMap<LinearId, Width>, PolicyError> {
    let linears: Vec<LinearId> =
        spec.matrices().into_iter().map(|(id, ..)| id).filter(|id| spec.multiplies(*id)).collect();
    let mut widths = BTreeMap::new();
    for one in wanted {
        let selects = |id: &LinearId| names_width(spec, std::slice::from_ref(one), *id);
        let matched: Vec<LinearId> = linears.iter().copied().filter(selects).collect();
        if matched.is_empty() {
            let example = linears.get(linears.len() / 2).map(ToString::to_string).unwrap_or_default();
            return Err(PolicyError::NoLinear { activations: one.to_string(), example });
        }
        widths.extend(matched.into_iter().map(|id| (id, one.width)));
    }
    widths.retain(|_, width| *width != Width::Bits8);
    for up in linears.into_iter().filter(|id| id.role == Role::Up && spec.mixture(*id).is_some()) {
        let gate = LinearId { role: Role::Gate, ..up };
        if widths.get(&gate) != widths.get(&up) {
            return Err(PolicyError::ExpertWidths { gate, up });
        }
    }
    Ok(widths)
}

/// Options that do not parse, and sets of schemes that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// A `--keep` without `=`.
    #[error("`{0}` is not PATTERN=SCHEME, such as embedding=w8 or layers.0.*=w8")]
    Keep(String),
    /// A `--keep` with an unknown scheme.
    #[error(transparent)]
    Scheme(#[from] NameError),
    /// An `--activations` that does not parse.
    #[error("`{0}` is not PATTERN=a8 or PATTERN=a16, such as layers.*.ffn.down=a16")]
    Activations(String),
    /// A `--method` that does not exist.
    #[error("unknown method `{0}`; known: keep, rtn, search, gptq")]
    Method(String),
    /// The pattern selects nothing.
    #[error(
        "--keep {keep}: the pattern matches no matrix of this model; names look like {example}, aliases are embedding, \
         attention, conv, ffn, head"
    )]
    MatchesNothing {
        /// The option.
        keep: String,
        /// A name that exists.
        example: String,
    },
    /// Two matrices of an expert would read two roundings.
    #[error(
        "--activations gives `{gate}` and `{up}` inputs of other widths; the experts of a mixture read one: \
         name both (--activations 'layers.*.ffn.*=a16')"
    )]
    ExpertWidths {
        /// One.
        gate: LinearId,
        /// The other.
        up: LinearId,
    },
    /// The pattern selects nothing that is multiplied with inputs.
    #[error(
        "--activations {activations}: the pattern matches no linear of this model; names look like {example}, aliases are \
         attention, conv, ffn, head (and embedding where it is the head too)"
    )]
    NoLinear {
        /// The option.
        activations: String,
        /// A name that exists.
        example: String,
    },
    /// The pattern selects a matrix that cannot be split so.
    #[error("--keep {keep}: {fault}")]
    Split {
        /// The option.
        keep: String,
        /// Which matrix, and why.
        fault: SplitError,
    },
    /// Embedding and head are one tensor.
    #[error(
        "embed.token and head.lm are one tensor in this model (tied), so they cannot be {embedding} and {head}; give \
         both the same scheme"
    )]
    Tied {
        /// By the last match for the token table.
        embedding: QuantScheme,
        /// By the last match for the head.
        head: QuantScheme,
    },
}

/// The scheme of every matrix.
pub fn assign(spec: &ModelSpec, preset: Preset, keeps: &[Keep]) -> Result<Assignment, PolicyError> {
    let mut assignment = preset.assign(spec);
    let rows: BTreeMap<LinearId, usize> = spec.matrices().into_iter().map(|(id, rows, _)| (id, rows)).collect();
    let (embedding, head) = (LinearId::global(Role::TokenEmbedding), LinearId::global(Role::LmHead));
    // The schemes that were asked for, by name, for the two names of a tied tensor.
    let (mut for_embedding, mut for_head) = (None, None);
    for keep in keeps {
        let mut matched = false;
        for (id, scheme) in &mut assignment {
            if matches(&keep.pattern, *id) {
                let refused = |fault| PolicyError::Split { keep: keep.to_string(), fault };
                keep.scheme.check(*id, rows[id]).map_err(refused)?;
                *scheme = keep.scheme;
                matched = true;
            }
        }
        if spec.tied_head() {
            if matches(&keep.pattern, embedding) {
                for_embedding = Some(keep.scheme);
            }
            if matches(&keep.pattern, head) {
                let refused = |fault| PolicyError::Split { keep: keep.to_string(), fault };
                keep.scheme.check(embedding, rows[&embedding]).map_err(refused)?;
                for_head = Some(keep.scheme);
                matched = true;
            }
        }
        if !matched {
            let example = assignment.keys().nth(assignment.len() / 2).map(ToString::to_string).unwrap_or_default();
            return Err(PolicyError::MatchesNothing { keep: keep.to_string(), example });
        }
    }
    if let (Some(for_embedding), Some(for_head)) = (for_embedding, for_head)
        && for_embedding != for_head
    {
        return Err(PolicyError::Tied { embedding: for_embedding, head: for_head });
    }
    if let Some(scheme) = for_head {
        assignment.insert(embedding, scheme);
    }
    Ok(assignment)
}

/// The first linear of a feed-forward network that is not of the pattern.
pub fn not_sparse(spec: &ModelSpec, sparsity: &Sparsity, pattern: NmPattern) -> Option<LinearId> {
    let mut ffn = spec.matrices().into_iter().map(|(id, ..)| id).filter(|id| id.role.class() == Class::Ffn);
    // What scores experts stays dense.
    ffn.find(|id| id.role != Role::Router && sparsity.get(id) != Some(&pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_parse_and_say_what_is_wrong() {
        assert_eq!("embedding=w8".parse(), Ok(Keep { pattern: "embedding".into(), scheme: QuantScheme::W8 }));
        assert!(matches!("embedding".parse::<Keep>(), Err(PolicyError::Keep(_))));
        assert!(matches!("embedding=w5".parse::<Keep>(), Err(PolicyError::Scheme(_))));
        let split = QuantScheme::Split { wide_rows: 2304 };
        assert_eq!("head=w8:2304+w4".parse(), Ok(Keep { pattern: "head".into(), scheme: split }));
        assert_eq!(split.to_string().parse(), Ok(split));
        for (text, nearest) in [("w8:2303+w4", 2304), ("w8:0+w4", 64), ("w8:95+w4.g32", 64), ("w8:96+w4", 128)] {
            let wrong = NameError::SplitRows { text: text.into(), nearest };
            assert_eq!(text.parse::<QuantScheme>(), Err(wrong));
        }
        for text in ["w8:+w4", "w8:64", "w4:64+w8", "w8:-64+w4", "w8:64+w4 ", "w8:99999999999+w4"] {
            let error = text.parse::<QuantScheme>().unwrap_err();
            assert!(matches!(&error, NameError::Scheme { text: named, .. } if named == text), "{error}");
        }
    }
}
