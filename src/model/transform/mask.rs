//! N:M sparsity: of every M consecutive weights along the input dimension of a matrix, at most N are not zero. A mask says
//! which weights may be; groups start at column 0 and never cross a row.

use crate::model::error::NameError;
use crate::model::id::LinearId;
use crate::model::matrix::{from_rows, row_major, row_major_mut};
use ndarray::{Array2, ArrayView2};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Keep at most `keep` of every `of` weights. Displayed and parsed as `2:4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NmPattern {
    keep: usize,
    of: usize,
}

/// Pattern of every matrix that has one.
pub type Sparsity = BTreeMap<LinearId, NmPattern>;

/// Why a matrix does not go with a pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MaskError {
    /// The rows do not divide into groups.
    #[error(
        "`{id}` has {columns} input columns, which {pattern} cannot divide into groups; leave it dense, or take an M that divides them"
    )]
    Columns {
        /// The matrix.
        id: LinearId,
        /// Its input dimension.
        columns: usize,
        /// Asked for.
        pattern: NmPattern,
    },
    /// A group has too many weights.
    #[error(
        "`{id}` is not {pattern}: row {row} has {found} weights other than zero in columns {column} to {}",
        column + pattern.of - 1
    )]
    Group {
        /// The matrix.
        id: LinearId,
        /// The pattern it should have.
        pattern: NmPattern,
        /// Row of the first such group.
        row: usize,
        /// Where the group begins.
        column: usize,
        /// Weights that are not zero.
        found: usize,
    },
    /// The mask is of another shape.
    #[error("the mask of `{id}` is for {} × {} weights, the matrix has {} × {}", expected.0, expected.1, found.0, found.1)]
    Shape {
        /// The matrix.
        id: LinearId,
        /// (rows, columns) of the mask.
        expected: (usize, usize),
        /// Given.
        found: (usize, usize),
    },
}

impl NmPattern {
    /// Groups that patterns may have.
    pub const GROUPS: [usize; 3] = [4, 8, 16];
    /// Two of four: the pattern that artifacts store compressed and sparse hardware runs.
    pub const TWO_OF_FOUR: NmPattern = NmPattern { keep: 2, of: 4 };

    /// A pattern with 0 < `keep` < `of` and `of` one of [`NmPattern::GROUPS`]; `None` for others.
    pub fn new(keep: usize, of: usize) -> Option<Self> {
        (0 < keep && keep < of && Self::GROUPS.contains(&of)).then_some(NmPattern { keep, of })
    }

    /// N: weights that may be other than zero in each group.
    pub fn keep(self) -> usize {
        self.keep
    }

    /// M: columns of a group.
    pub fn of(self) -> usize {
        self.of
    }

    /// Whether every matrix of this pattern is 2:4 as well, and so is stored compressed in artifacts: two or fewer weights
    /// of any group leave at most two in each four.
    pub fn is_two_of_four(self) -> bool {
        self.keep <= Self::TWO_OF_FOUR.keep
    }

    /// Whether rows of `columns` weights divide into groups.
    ///
    /// # Errors
    /// [`MaskError::Columns`], which names the matrix.
    pub fn check_columns(self, id: LinearId, columns: usize) -> Result<(), MaskError> {
        if columns.is_multiple_of(self.of) { Ok(()) } else { Err(MaskError::Columns { id, columns, pattern: self }) }
    }

    /// Whether a matrix satisfies the pattern. `T` is f32 or an integer: values equal to `T::default()` are its zeros.
    ///
    /// # Errors
    /// [`MaskError::Columns`], or [`MaskError::Group`] for the first group with too many weights.
    pub fn check<T: Copy + Default + PartialEq>(
        self,
        id: LinearId,
        values: ArrayView2<'_, T>,
    ) -> Result<(), MaskError> {
        let columns = values.ncols();
        self.check_columns(id, columns)?;
        let weights = |group: &[T]| group.iter().filter(|value| **value != T::default()).count();
        let groups = row_major(values).chunks_exact(self.of).map(weights).enumerate();
        for (group, found) in groups {
            if found > self.keep {
                let (row, column) = (group * self.of / columns, group * self.of % columns);
                return Err(MaskError::Group { id, pattern: self, row, column, found });
            }
        }
        Ok(())
    }
}

impl fmt::Display for NmPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keep, self.of)
    }
}

impl FromStr for NmPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let number = |digits: &str| {
            // `+2` parses as a number but does not belong in a pattern.
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<usize>().ok()).flatten()
        };
        let parts = text.split_once(':').and_then(|(keep, of)| Some((number(keep)?, number(of)?)));
        parts.and_then(|(keep, of)| NmPattern::new(keep, of)).ok_or_else(|| NameError::Pattern(text.to_owned()))
    }
}

/// Which weights of one matrix may be other than zero; every group satisfies the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    id: LinearId,
    pattern: NmPattern,
    keep: Array2<bool>,
}

impl Mask {
    /// Keeps the N largest scores of every group, the first of equal ones; `scores` are one per weight. A score that is not
    /// a number counts as the smallest.
    ///
    /// # Errors
    /// [`MaskError::Columns`].
    pub fn of_largest(id: LinearId, pattern: NmPattern, scores: ArrayView2<'_, f32>) -> Result<Self, MaskError> {
        let columns = scores.ncols();
        pattern.check_columns(id, columns)?;
        let mut keep = vec![false; scores.len()];
        let mut order: Vec<usize> = Vec::with_capacity(pattern.of);
        let groups = row_major(scores).chunks_exact(pattern.of);
        for (scores, keep) in groups.zip(keep.chunks_exact_mut(pattern.of)) {
            let score = |at: &usize| if scores[*at].is_nan() { f32::NEG_INFINITY } else { scores[*at] };
            order.clear();
            order.extend(0..pattern.of);
            // The sort is stable: among equal scores the first column stays first.
            order.sort_by(|a, b| score(b).total_cmp(&score(a)));
            order[..pattern.keep].iter().for_each(|&at| keep[at] = true);
        }
        Ok(Mask { id, pattern, keep: from_rows(keep, columns) })
    }

    /// The mask of a matrix that satisfies the pattern already: its weights other than zero, and of groups with fewer
    /// than N of them the first columns besides.
    ///
    /// # Errors
    /// The errors of [`NmPattern::check`].
    pub fn of_values(id: LinearId, pattern: NmPattern, values: ArrayView2<'_, f32>) -> Result<Self, MaskError> {
        pattern.check(id, values)?;
        let scores = values.mapv(|value| if value == 0.0 { 0.0 } else { 1.0 });
        Self::of_largest(id, pattern, scores.view())
    }

    /// The matrix it is for.
    pub fn id(&self) -> LinearId {
        self.id
    }

    /// The pattern that every group satisfies.
    pub fn pattern(&self) -> NmPattern {
        self.pattern
    }

    /// (rows, columns): true where a weight may be other than zero.
    pub fn keep(&self) -> ArrayView2<'_, bool> {
        self.keep.view()
    }

    /// 1 where a weight may be other than zero and 0 elsewhere, to multiply a matrix with.
    pub fn factors(&self) -> Vec<f32> {
        self.keep.iter().map(|&keep| if keep { 1.0 } else { 0.0 }).collect()
    }

    /// Sets the weights it does not keep to zero.
    ///
    /// # Errors
    /// [`MaskError::Shape`].
    pub fn apply(&self, weights: &mut Array2<f32>) -> Result<(), MaskError> {
        if weights.dim() != self.keep.dim() {
            return Err(MaskError::Shape { id: self.id, expected: self.keep.dim(), found: weights.dim() });
        }
        let pairs = row_major_mut(weights).iter_mut().zip(row_major(self.keep.view()));
        pairs.filter(|(_, keep)| !**keep).for_each(|(weight, _)| *weight = 0.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Role;
    use ndarray::array;
    use proptest::prelude::*;

    fn id() -> LinearId {
        LinearId::layer(1, Role::Up)
    }

    #[test]
    fn patterns_parse_and_display() {
        for text in ["2:4", "1:4", "4:8", "6:8", "15:16"] {
            assert_eq!(text.parse::<NmPattern>().map(|pattern| pattern.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "4:2",
            "4:4",
            "0:4",
            "2:5",
            "2:32",
            "2",
            "2:4:8",
            "",
            ":",
            "-2:4",
            "+2:4",
            "2 :4",
            "99999999999999999999:4",
        ] {
            assert_eq!(text.parse::<NmPattern>(), Err(NameError::Pattern(text.to_owned())));
        }
    }

    #[test]
    fn which_patterns_are_two_of_four() {
        let is = |text: &str| text.parse::<NmPattern>().map(NmPattern::is_two_of_four);
        assert_eq!((is("1:4"), is("2:8"), is("2:16")), (Ok(true), Ok(true), Ok(true)));
        assert_eq!((is("3:4"), is("4:8"), is("3:16")), (Ok(false), Ok(false), Ok(false)));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let pattern = NmPattern::TWO_OF_FOUR;
        let columns = pattern.check_columns(id(), 10).unwrap_err().to_string();
        assert_eq!(
            columns,
            "`layers.1.ffn.up` has 10 input columns, which 2:4 cannot divide into groups; leave it dense, or take an M that divides them"
        );
        let mut values = vec![0i8; 2 * 8];
        values[12..15].fill(-1);
        let group = pattern.check(id(), from_rows(values, 8).view()).unwrap_err().to_string();
        assert_eq!(group, "`layers.1.ffn.up` is not 2:4: row 1 has 3 weights other than zero in columns 4 to 7");
        let mask = Mask::of_largest(id(), pattern, Array2::ones((1, 8)).view()).unwrap();
        let error = mask.apply(&mut Array2::zeros((2, 4))).unwrap_err();
        assert!(matches!(error, MaskError::Shape { expected: (1, 8), found: (2, 4), .. }));
    }

    #[test]
    fn equal_scores_keep_the_first_columns_and_nan_goes_first() {
        let mask = |scores: &[f32]| {
            let scores = from_rows(scores.to_vec(), 4);
            Mask::of_largest(id(), NmPattern::TWO_OF_FOUR, scores.view()).unwrap().keep.row(0).to_vec()
        };
        assert_eq!(mask(&[1.0; 4]), [true, true, false, false]);
        assert_eq!(mask(&[0.0, -0.0, 0.5, f32::NAN]), [true, false, true, false]);
        assert_eq!(mask(&[f32::NAN, f32::INFINITY, 3.0, -7.0]), [false, true, true, false]);
        // A negative zero is a zero.
        assert_eq!(NmPattern::TWO_OF_FOUR.check(id(), array![[-0.0f32, 1.0, 2.0, 0.0]].view()), Ok(()));
    }

    proptest! {
        #[test]
        fn masks_hold_and_keep_what_is_largest(
            pattern in prop::sample::select(vec!["1:4", "2:4", "4:8", "6:8", "5:16"]),
            rows in 1usize..5,
            groups in 1usize..6,
            seed: u64,
        ) {
            let pattern: NmPattern = pattern.parse().unwrap();
            let columns = groups * pattern.of();
            let draw = |n: usize| slm_runtime::sample::random_u64(seed, n as u64) as i8;
            let mut weights = from_rows((0..rows * columns).map(|n| f32::from(draw(n))).collect(), columns);
            let scores = weights.mapv(f32::abs);
            let mask = Mask::of_largest(id(), pattern, scores.view()).unwrap();
            let kept = row_major(mask.keep()).chunks(pattern.of());
            for (keep, scores) in kept.zip(row_major(scores.view()).chunks(pattern.of())) {
                prop_assert_eq!(keep.iter().filter(|keep| **keep).count(), pattern.keep());
                let split = |kept: bool| keep.iter().zip(scores).filter(move |(keep, _)| **keep == kept).map(|(_, s)| *s);
                let (least, most) = (split(true).fold(f32::MAX, f32::min), split(false).fold(0.0, f32::max));
                prop_assert!(least >= most);
            }
            mask.apply(&mut weights).unwrap();
            prop_assert_eq!(pattern.check(id(), weights.view()), Ok(()));
            let again = Mask::of_values(id(), pattern, weights.view()).unwrap();
            prop_assert_eq!(again.keep().iter().filter(|keep| **keep).count(), rows * groups * pattern.keep());
            let mut same = weights.clone();
            again.apply(&mut same).unwrap();
            prop_assert_eq!(same, weights);
        }
    }
}
