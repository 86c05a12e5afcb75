//! Integers of a matrix as a source stores them, for `quantize --method keep`: a source that has any hands them over with
//! the scales of their groups, and rounding begins where the other tool ended. What a scheme can hold of them is decided here,
//! by their [`Grid`], before any is read.

use super::scheme::QuantScheme;
use ndarray::Array2;
use std::fmt;

/// A matrix on a symmetric grid: `w[o, i] = scales[o, i / group] · values[o, i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedIntegers {
    /// (rows, columns)
    pub values: Array2<i8>,
    /// (rows, ceil(columns / group))
    pub scales: Array2<f32>,
    /// Columns that share a scale.
    pub group: usize,
}

impl GroupedIntegers {
    /// The grid that these integers are on.
    pub fn grid(&self) -> Grid {
        let extremes = |(low, high): (i16, i16), value: &i8| (low.min((*value).into()), high.max((*value).into()));
        Grid {
            range: self.values.iter().fold((0, 0), extremes),
            group: (self.scales.ncols() > 1).then_some(self.group),
            zero_points: false,
        }
    }
}

/// What the integers of a matrix can be, without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Bounds of an integer, its zero point subtracted.
    pub range: (i16, i16),
    /// Columns that share a scale; `None` where a row does.
    pub group: Option<usize>,
    /// Whether zero points other than the middle of the range were subtracted.
    pub zero_points: bool,
}

impl Grid {
    /// Whether every row of a matrix on this grid keeps its integers in a scheme.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, scheme: QuantScheme) -> Result<(), Unfit> {
        scheme.parts(usize::MAX).try_for_each(|(_, scheme)| self.fit_row(scheme))
    }

    fn fit_row(&self, scheme: QuantScheme) -> Result<(), Unfit> {
        let def = scheme.def();
        let (low, high) = (i16::from(def.range.0), i16::from(def.range.1));
        // Rows of w8 hold −127 for the one integer of 8 bits that they lack.
        let least = if def.group.is_none() { low.min(i8::MIN.into()) } else { low };
        let beyond = [self.range.0, self.range.1].into_iter().find(|reach| !(least..=high).contains(reach));
        if let Some(reach) = beyond {
            return Err(Unfit::Range { scheme, range: (low, high), reach, zero_points: self.zero_points });
        }
        match (def.group, self.group) {
            (_, None) => Ok(()),
            (None, Some(group)) => Err(Unfit::OneScale { scheme, group }),
            (Some(own), Some(group)) if !group.is_multiple_of(own) => Err(Unfit::Groups { scheme, own, group }),
            _ => Ok(()),
        }
    }
}

/// Why a matrix is rounded anew instead of keeping its integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It has none.
    Floats,
    /// Every group has a number that is added beside its scale.
    Minima,
    /// The columns of a group are not next to each other.
    Scattered,
    /// They stand for the values of a table.
    Curve,
    /// Its values are those of an adapter too.
    Adapted,
    /// They go beyond the scheme's.
    Range {
        /// The scheme.
        scheme: QuantScheme,
        /// Its least and largest.
        range: (i16, i16),
        /// Where the matrix goes.
        reach: i16,
        /// Whether by zero points.
        zero_points: bool,
    },
    /// The scheme has no groups.
    OneScale {
        /// The scheme.
        scheme: QuantScheme,
        /// Columns of a group of the matrix.
        group: usize,
    },
    /// Groups of the scheme do not divide those of the matrix.
    Groups {
        /// The scheme.
        scheme: QuantScheme,
        /// Columns of its groups.
        own: usize,
        /// Columns of a group of the matrix.
        group: usize,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Floats => f.write_str("it holds floating-point numbers"),
            Unfit::Minima => f.write_str("its groups have a minimum beside their scale"),
            Unfit::Scattered => f.write_str("the columns of its groups are not next to each other"),
            Unfit::Curve => f.write_str("its integers stand for the values of a table"),
            Unfit::Adapted => f.write_str("an adapter changes it"),
            Unfit::Range { scheme, range: (low, high), zero_points: true, .. } => {
                write!(f, "{scheme} holds integers of [{low}, {high}], and zero points take its own beyond")
            }
            Unfit::Range { scheme, range: (low, high), reach, .. } => {
                write!(f, "{scheme} holds integers of [{low}, {high}], and its own reach {reach}")
            }
            Unfit::OneScale { scheme, group } => {
                write!(f, "{scheme} has one scale a row, and its integers have one for {group} columns")
            }
            Unfit::Groups { scheme, own, group } => {
                write!(f, "{scheme} has groups of {own} columns, and its integers have groups of {group}")
            }
        }
    }
}
