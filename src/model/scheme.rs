//! Weight formats: how a quantized matrix is stored, as a table ([`SCHEMES`]) of bits, group, range and storage. Parsing,
//! names, limits and byte counts derive from it. Definitions and bounds: docs/numerics.md.

use super::error::NameError;
use super::id::{Class, LinearId, Role};
use super::spec::ModelSpec;
use super::transform::NmPattern;
pub use slm_runtime::kernels::Width;
use slm_runtime::layout::Storage;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

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
    /// As [`QuantScheme::W4G32`], one multiplier per 64 columns.
    W4G64,
    /// As [`QuantScheme::W4G32`], 3-bit values.
    W3G32,
}

/// A row of the table: a scheme that all rows of a matrix share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemeDef {
    /// Which scheme.
    pub scheme: QuantScheme,
    /// As it is displayed and parsed.
    pub name: &'static str,
    /// A short name that parses for it too.
    pub alias: Option<&'static str>,
    /// Bits of a value.
    pub bits: usize,
    /// Columns that share a multiplier; `None` where there are no multipliers.
    pub group: Option<usize>,
    /// Least and largest value.
    pub range: (i8, i8),
    /// In an artifact.
    pub storage: Storage,
    /// The same of two kept values of every four; a 2:4 matrix of a scheme without one is stored as a dense matrix.
    pub two_of_four: Option<Storage>,
    /// Most columns for which a row's sum is certain to stay in 32 bits.
    pub max_columns: usize,
}

/// Every scheme that all rows of a matrix share.
pub const SCHEMES: [SchemeDef; 4] = [
    row(QuantScheme::W8, None, Storage::W8, Some(Storage::W8S24)),
    row(QuantScheme::W4G32, Some("w4"), Storage::W4G32, Some(Storage::W4G32S24)),
    row(QuantScheme::W4G64, None, Storage::W4G64, None),
    row(QuantScheme::W3G32, None, Storage::W3G32, None),
];

/// A row of [`SCHEMES`]: its numbers are those of the storage.
const fn row(
    scheme: QuantScheme,
    alias: Option<&'static str>,
    storage: Storage,
    two_of_four: Option<Storage>,
) -> SchemeDef {
    let of_storage = storage.def();
    SchemeDef {
        scheme,
        name: of_storage.name,
        alias,
        bits: of_storage.coding.bits(),
        group: of_storage.group,
        range: of_storage.range,
        storage,
        two_of_four,
        max_columns: of_storage.max_columns,
    }
}

impl SchemeDef {
    /// Least and largest value, for arithmetic on rows that are rounded.
    pub fn limits(&self) -> (f32, f32) {
        (f32::from(self.range.0), f32::from(self.range.1))
    }
}

/// Every name: `w8, w4.g32, …`.
pub fn names() -> String {
    SCHEMES.map(|def| def.name).join(", ")
}

impl QuantScheme {
    /// How many of `rows` rows, the first ones, have 8-bit values and no multipliers.
    pub fn wide_rows(self, rows: usize) -> usize {
        match self {
            QuantScheme::Split { wide_rows } => rows.min(wide_rows as usize),
            whole if whole.def().group.is_none() => rows,
            _ => 0,
        }
    }

    /// The scheme of one row: never a split.
    pub fn of_row(self, row: usize) -> QuantScheme {
        match self {
            QuantScheme::Split { wide_rows } if row < wide_rows as usize => QuantScheme::W8,
            QuantScheme::Split { .. } => QuantScheme::W4G32,
            whole => whole,
        }
    }

    /// The row of the table that the last row of a matrix has: of a split that of its second part.
    pub fn def(self) -> &'static SchemeDef {
        match self {
            QuantScheme::W8 => &SCHEMES[0],
            QuantScheme::W4G32 | QuantScheme::Split { .. } => &SCHEMES[1],
            QuantScheme::W4G64 => &SCHEMES[2],
            QuantScheme::W3G32 => &SCHEMES[3],
        }
    }

    /// The ranges of `rows` rows that share a scheme, in order, with that scheme; none of them is empty.
    pub fn parts(self, rows: usize) -> impl Iterator<Item = (Range<usize>, QuantScheme)> {
        let first = match self {
            QuantScheme::Split { .. } => self.wide_rows(rows),
            _ => 0,
        };
        let parts = [(0..first, QuantScheme::W8), (first..rows, self.of_row(usize::MAX))];
        parts.into_iter().filter(|(rows, _)| !rows.is_empty())
    }

    /// Shape of the multipliers of a matrix of (rows, columns): (rows that have any, multipliers of each); none of a scheme
    /// without groups.
    pub fn multiplier_shape(self, (rows, columns): (usize, usize)) -> (usize, usize) {
        (rows - self.wide_rows(rows), self.def().group.map_or(0, |group| columns.div_ceil(group)))
    }

    /// Whether a matrix of `rows` rows can be stored so.
    ///
    /// # Errors
    /// A split of a matrix whose rows are not tokens, or after a number of rows that is not possible.
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

    /// The format that all rows share as the artifact's tensor table names it: compressed where the matrix is 2:4 and the
    /// scheme has a format for it. Other patterns are stored as dense matrices. `None` of a split, whose
    /// [`QuantScheme::parts`] have one each.
    pub fn storage(self, sparsity: Option<NmPattern>) -> Option<Storage> {
        let def = match self {
            QuantScheme::Split { .. } => return None,
            _ => self.def(),
        };
        let compressed = def.two_of_four.filter(|_| sparsity.is_some_and(NmPattern::is_two_of_four));
        Some(compressed.unwrap_or(def.storage))
    }

    /// Least and largest integer of a row.
    pub fn limits(self, row: usize) -> (f32, f32) {
        self.of_row(row).def().limits()
    }

    /// Most columns for which a row's sum is certain to stay in 32 bits.
    pub fn max_columns(self) -> usize {
        self.def().max_columns
    }
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantScheme::Split { wide_rows } => write!(f, "w8:{wide_rows}+w4.g32"),
            _ => f.write_str(self.def().name),
        }
    }
}

/// [`names`], each with the short name that it has.
fn names_with_aliases() -> String {
    let name = |def: &SchemeDef| match def.alias {
        Some(alias) => format!("{} (or {alias})", def.name),
        None => def.name.to_owned(),
    };
    SCHEMES.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl FromStr for QuantScheme {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let unknown = || NameError::Scheme { text: text.to_owned(), known: names_with_aliases() };
        if let Some(def) = SCHEMES.iter().find(|def| def.name == text || def.alias == Some(text)) {
            return Ok(def.scheme);
        }
        let rows = text.strip_prefix("w8:").and_then(|rest| rest.strip_suffix("+w4.g32").or(rest.strip_suffix("+w4")));
        let digits = rows.filter(|rows| rows.bytes().all(|byte| byte.is_ascii_digit()));
        let wide_rows: u32 = digits.and_then(|rows| rows.parse().ok()).ok_or_else(unknown)?;
        if wide_rows == 0 || !wide_rows.is_multiple_of(SPLIT_ROWS) {
            let below = wide_rows / SPLIT_ROWS + u32::from(wide_rows % SPLIT_ROWS >= SPLIT_ROWS / 2);
            return Err(NameError::SplitRows {
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
    /// Its rows are not tokens.
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
        /// Rows of the matrix.
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

/// The width of that name.
pub fn width_of_name(name: &str) -> Option<Width> {
    [Width::Bits8, Width::Bits16].into_iter().find(|width| width_name(*width) == name)
}

/// The scheme of every matrix.
pub type Assignment = BTreeMap<LinearId, QuantScheme>;

/// The named assignments that `--scheme` takes.
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
        // What scores experts is small, and a token that has others than before is a large error.
        if four_bits && role != Role::Router { QuantScheme::W4G32 } else { QuantScheme::W8 }
    }

    /// The scheme of every matrix of a model.
    pub fn assign(self, spec: &ModelSpec) -> Assignment {
        spec.matrices().into_iter().map(|(id, ..)| (id, self.scheme(id.role))).collect()
    }
}

impl FromStr for Preset {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Preset::ALL.into_iter().find(|preset| preset.name() == text).ok_or_else(|| NameError::Preset(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table_are_those_of_their_schemes_and_names() {
        for def in &SCHEMES {
            assert_eq!(def.scheme.def(), def);
            for name in [Some(def.name), def.alias].into_iter().flatten() {
                assert_eq!(name.parse(), Ok(def.scheme));
            }
            assert_eq!(def.scheme.to_string(), def.name);
            assert_eq!(def.scheme.parts(10).collect::<Vec<_>>(), [(0..10, def.scheme)]);
            assert_eq!(def.scheme.storage(None).map(Storage::name), Some(def.name));
            assert!(def.two_of_four.is_none_or(Storage::is_sparse), "{}", def.name);
        }
        let split = QuantScheme::Split { wide_rows: 64 };
        assert_eq!(split.parts(70).collect::<Vec<_>>(), [(0..64, QuantScheme::W8), (64..70, QuantScheme::W4G32)]);
        let message = "w3".parse::<QuantScheme>().expect_err("it has no groups").to_string();
        let known = "known: w8, w4.g32 (or w4), w4.g64, w3.g32, and of a token table or LM head w8:ROWS+w4";
        assert!(message.ends_with(known), "{message}");
    }
}
