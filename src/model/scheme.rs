//! Weight formats: what a quantized matrix is made of, as plain data. Definitions and bounds: docs/numerics.md.

use super::id::{Class, Role};
use super::size::Assignment;
use super::spec::ModelSpec;
use super::transform::NmPattern;
pub use slm_runtime::kernels::Width;
use slm_runtime::layout::Storage;
use std::fmt;
use std::str::FromStr;

/// Weights that share one integer multiplier in `w4.g32`, along the input dimension.
pub const GROUP: usize = slm_runtime::layout::GROUP;

/// How one matrix is stored. Displayed as `w8` or `w4.g32`; `w4` parses too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuantScheme {
    /// 8-bit values and one f32 scale per row: `w[o,i] = row_scale[o] · q[o,i]`.
    W8,
    /// 4-bit values, one signed 8-bit multiplier per 32 columns, one f32 scale per row:
    /// `w[o,i] = row_scale[o] · multiplier[o, i/32] · q[o,i]`.
    W4G32,
}

impl QuantScheme {
    /// Every scheme, largest first.
    pub const ALL: [QuantScheme; 2] = [QuantScheme::W8, QuantScheme::W4G32];

    /// The same format as the artifact's tensor table names it: compressed where the matrix is 2:4. Other patterns are
    /// stored as dense matrices.
    pub fn storage(self, sparsity: Option<NmPattern>) -> Storage {
        match (self, sparsity.is_some_and(NmPattern::is_two_of_four)) {
            (QuantScheme::W8, false) => Storage::W8,
            (QuantScheme::W4G32, false) => Storage::W4G32,
            (QuantScheme::W8, true) => Storage::W8S24,
            (QuantScheme::W4G32, true) => Storage::W4G32S24,
        }
    }

    /// Least and largest integer.
    pub fn limits(self) -> (f32, f32) {
        match self {
            QuantScheme::W8 => (-127.0, 127.0),
            QuantScheme::W4G32 => (-8.0, 7.0),
        }
    }

    /// Most columns for which a row's sum is certain to stay in 32 bits.
    pub fn max_columns(self) -> usize {
        self.storage(None).max_columns()
    }
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuantScheme::W8 => "w8",
            QuantScheme::W4G32 => "w4.g32",
        })
    }
}

/// A string that names no scheme.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown scheme `{0}`; known: w8, w4.g32 (or w4)")]
pub struct UnknownScheme(pub String);

impl FromStr for QuantScheme {
    type Err = UnknownScheme;

    fn from_str(text: &str) -> Result<Self, UnknownScheme> {
        match text {
            "w8" => Ok(QuantScheme::W8),
            "w4" | "w4.g32" => Ok(QuantScheme::W4G32),
            _ => Err(UnknownScheme(text.to_owned())),
        }
    }
}

/// How the width of a linear's inputs is written: `a8`, `a16`.
pub fn width_name(width: Width) -> &'static str {
    match width {
        Width::Bits8 => "a8",
        Width::Bits16 => "a16",
    }
}

/// The width that [`width_name`] writes so.
pub fn width_of_name(name: &str) -> Option<Width> {
    [Width::Bits8, Width::Bits16].into_iter().find(|width| width_name(*width) == name)
}

/// The named mixes of schemes that `--scheme` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Every matrix w8.
    W8,
    /// Feed-forward networks w4.g32, everything else w8.
    Mixed,
    /// Linears, token table and LM head w4.g32; position and type tables, pooler, classifier and MLM transform w8.
    W4,
}

impl Preset {
    /// Every preset, largest first.
    pub const ALL: [Preset; 3] = [Preset::W8, Preset::Mixed, Preset::W4];

    /// `w8`, `mixed`, `w4`.
    pub fn name(self) -> &'static str {
        match self {
            Preset::W8 => "w8",
            Preset::Mixed => "mixed",
            Preset::W4 => "w4",
        }
    }

    /// The scheme of one role.
    pub fn scheme(self, role: Role) -> QuantScheme {
        let four_bits = match self {
            Preset::W8 => false,
            Preset::Mixed => role.class() == Class::Ffn,
            Preset::W4 => {
                matches!(role.class(), Class::Attention | Class::Conv | Class::Ffn)
                    || matches!(role, Role::TokenEmbedding | Role::LmHead)
            }
        };
        if four_bits { QuantScheme::W4G32 } else { QuantScheme::W8 }
    }

    /// The scheme of every matrix of a model.
    pub fn assign(self, spec: &ModelSpec) -> Assignment {
        spec.matrices().into_iter().map(|(id, ..)| (id, self.scheme(id.role))).collect()
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Self, UnknownPreset> {
        Preset::ALL.into_iter().find(|preset| preset.name() == text).ok_or_else(|| UnknownPreset(text.to_owned()))
    }
}

/// A string that names no preset.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown scheme `{0}`; known: w8, mixed, w4")]
pub struct UnknownPreset(pub String);
