//! Weight formats: what a quantized matrix is made of, as plain data. Definitions and bounds: docs/numerics.md.

use super::id::{Class, LinearId, Role};
use super::size::Assignment;
use super::spec::ModelSpec;
use super::transform::NmPattern;
pub use slm_runtime::kernels::Width;
use slm_runtime::layout::Storage;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Weights that share one integer multiplier in `w4.g32`, along the input dimension.
pub const GROUP: usize = slm_runtime::layout::GROUP;

/// Rows of a split's first part come in multiples of this: whole tiles in every layout.
pub const SPLIT_ROWS: u32 = slm_runtime::layout::SPLIT_ROWS as u32;

/// How one matrix is stored. Displayed as `w8`, `w4.g32` or `w8:2304+w4.g32`; `w4` parses for `w4.g32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuantScheme {
    /// 8-bit values and one f32 scale per row: `w[o,i] = row_scale[o] · q[o,i]`.
    W8,
    /// 4-bit values, one signed 8-bit multiplier per 32 columns, one f32 scale per row:
    /// `w[o,i] = row_scale[o] · multiplier[o, i/32] · q[o,i]`.
    W4G32,
    /// The first rows as [`QuantScheme::W8`], the others as [`QuantScheme::W4G32`]: for matrices whose rows are tokens, of
    /// which the first are the frequent ones.
    Split {
        /// A multiple of [`SPLIT_ROWS`], more than 0 and fewer than all.
        wide_rows: u32,
    },
}

impl QuantScheme {
    /// Every scheme that all rows of a matrix share, largest first.
    pub const ALL: [QuantScheme; 2] = [QuantScheme::W8, QuantScheme::W4G32];

    /// How many of `rows` rows, the first ones, have 8-bit values and no multipliers.
    pub fn wide_rows(self, rows: usize) -> usize {
        match self {
            QuantScheme::W8 => rows,
            QuantScheme::W4G32 => 0,
            QuantScheme::Split { wide_rows } => rows.min(wide_rows as usize),
        }
    }

    /// The scheme of one row: never a split.
    pub fn of_row(self, row: usize) -> QuantScheme {
        if row < self.wide_rows(usize::MAX) { QuantScheme::W8 } else { QuantScheme::W4G32 }
    }

    /// The ranges of `rows` rows that share a scheme, in order, with that scheme; none of them is empty.
    pub fn parts(self, rows: usize) -> impl Iterator<Item = (Range<usize>, QuantScheme)> {
        let wide = self.wide_rows(rows);
        let parts = [(0..wide, QuantScheme::W8), (wide..rows, QuantScheme::W4G32)];
        parts.into_iter().filter(|(rows, _)| !rows.is_empty())
    }

    /// Whether a matrix of `rows` rows can be stored so.
    ///
    /// # Errors
    /// A split of a matrix whose rows are no tokens, or after a number of rows that is not possible.
    pub fn check(self, id: LinearId, rows: usize) -> Result<(), SplitError> {
        match self {
            QuantScheme::Split { .. } if !matches!(id.role, Role::TokenEmbedding | Role::LmHead) => {
                Err(SplitError::NoTokens { id, scheme: self })
            }
            QuantScheme::Split { wide_rows } if wide_rows == 0 || wide_rows as usize >= rows => {
                Err(SplitError::Rows { id, scheme: self, rows })
            }
            _ => Ok(()),
        }
    }

    /// The format that all rows share as the artifact's tensor table names it: compressed where the matrix is 2:4. Other
    /// patterns are stored as dense matrices. `None` of a split, whose [`QuantScheme::parts`] have one each.
    pub fn storage(self, sparsity: Option<NmPattern>) -> Option<Storage> {
        match (self, sparsity.is_some_and(NmPattern::is_two_of_four)) {
            (QuantScheme::W8, false) => Some(Storage::W8),
            (QuantScheme::W4G32, false) => Some(Storage::W4G32),
            (QuantScheme::W8, true) => Some(Storage::W8S24),
            (QuantScheme::W4G32, true) => Some(Storage::W4G32S24),
            (QuantScheme::Split { .. }, _) => None,
        }
    }

    /// Least and largest integer of a row.
    pub fn limits(self, row: usize) -> (f32, f32) {
        match self.of_row(row) {
            QuantScheme::W8 => (-127.0, 127.0),
            _ => (-8.0, 7.0),
        }
    }

    /// Most columns for which a row's sum is certain to stay in 32 bits.
    pub fn max_columns(self) -> usize {
        match self {
            QuantScheme::W8 => Storage::W8.max_columns(),
            QuantScheme::W4G32 | QuantScheme::Split { .. } => Storage::W4G32.max_columns(),
        }
    }
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantScheme::W8 => f.write_str("w8"),
            QuantScheme::W4G32 => f.write_str("w4.g32"),
            QuantScheme::Split { wide_rows } => write!(f, "w8:{wide_rows}+w4.g32"),
        }
    }
}

/// A string that names no scheme.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnknownScheme {
    /// Of no form.
    #[error("unknown scheme `{0}`; known: w8, w4.g32 (or w4), and of a token table or LM head w8:ROWS+w4")]
    Name(String),
    /// A split within a tile.
    #[error(
        "`{text}`: the first part of a split has a multiple of {SPLIT_ROWS} rows, more than 0, so that it is whole tiles on \
         every target; nearest is w8:{nearest}+w4"
    )]
    Rows {
        /// As written.
        text: String,
        /// The nearest number that is one.
        nearest: u32,
    },
}

impl FromStr for QuantScheme {
    type Err = UnknownScheme;

    fn from_str(text: &str) -> Result<Self, UnknownScheme> {
        let unknown = || UnknownScheme::Name(text.to_owned());
        match text {
            "w8" => return Ok(QuantScheme::W8),
            "w4" | "w4.g32" => return Ok(QuantScheme::W4G32),
            _ => {}
        }
        let rows = text.strip_prefix("w8:").and_then(|rest| rest.strip_suffix("+w4.g32").or(rest.strip_suffix("+w4")));
        let digits = rows.filter(|rows| rows.bytes().all(|byte| byte.is_ascii_digit()));
        let wide_rows: u32 = digits.and_then(|rows| rows.parse().ok()).ok_or_else(unknown)?;
        if wide_rows == 0 || !wide_rows.is_multiple_of(SPLIT_ROWS) {
            let below = wide_rows / SPLIT_ROWS + u32::from(wide_rows % SPLIT_ROWS >= SPLIT_ROWS / 2);
            return Err(UnknownScheme::Rows {
                text: text.to_owned(),
                nearest: below.max(1).saturating_mul(SPLIT_ROWS),
            });
        }
        Ok(QuantScheme::Split { wide_rows })
    }
}

/// A split that a matrix cannot have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SplitError {
    /// Its rows are no tokens.
    #[error(
        "`{id}` cannot be {scheme}: only the rows of embed.token and head.lm are tokens, the frequent ones first; give it w8 \
         or w4, and the split by name (--keep embed.token={scheme})"
    )]
    NoTokens {
        /// The matrix.
        id: LinearId,
        /// Asked for.
        scheme: QuantScheme,
    },
    /// Nothing is left for the second part, or nothing for the first.
    #[error(
        "`{id}` has {rows} rows, which leaves no second part for {scheme}; {}give it w8 or w4",
        if *rows > SPLIT_ROWS as usize { format!("split it after a multiple of {SPLIT_ROWS} below {rows}, or ") } else { String::new() }
    )]
    Rows {
        /// The matrix.
        id: LinearId,
        /// Asked for.
        scheme: QuantScheme,
        /// Of the matrix.
        rows: usize,
    },
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
