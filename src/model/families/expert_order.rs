//! The order of a mixture's rows in files that stack the matrices of its experts, (experts, rows, columns). slmc holds the inner
//! channels of all experts after one another ([`crate::model::spec::Mixture`]): those are rows of gate and up, which share a
//! tensor, and columns of down. With E experts of width I, on H hidden channels:
//!
//! ```text
//! stored (E, 2 · I, H)   expert 0's gate, expert 0's up, expert 1's gate …   here (E · I, H) twice: every gate, then every up
//! stored (E, H, I)       expert 0's rows, expert 1's …                        here (H, E · I): row h of every expert
//! ```

use crate::disk::DenseTensor;

/// How the matrices of experts are stacked in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertOrder {
    experts: usize,
    /// Whether the experts' inner channels are columns of the matrix.
    columns: bool,
}

impl ExpertOrder {
    /// Matrices whose rows are inner channels.
    pub(super) fn of_rows(experts: usize) -> Self {
        ExpertOrder { experts, columns: false }
    }

    /// The matrix whose columns are inner channels.
    pub(super) fn of_columns(experts: usize) -> Self {
        ExpertOrder { experts, columns: true }
    }

    /// The shape of the stored tensor of a matrix, or of several after one another, of shape `shape`.
    pub fn stored_shape(self, shape: &[usize]) -> Vec<usize> {
        match (shape, self.columns) {
            (&[rows, columns], false) => vec![self.experts, rows / self.experts, columns],
            (&[rows, columns], true) => vec![self.experts, rows, columns / self.experts],
            _ => shape.to_vec(),
        }
    }

    /// The rows `first ..` of the stored tensor's matrices, of shape `shape`; `None` where the tensor has another shape.
    pub(super) fn taken(self, stored: &DenseTensor, first: usize, shape: &[usize]) -> Option<DenseTensor> {
        let (&[experts, of_one, columns], &[rows, _]) = (stored.shape(), shape) else { return None };
        if experts != self.experts {
            return None;
        }
        let all = stored.reshaped(vec![experts * of_one, columns])?;
        let order: Vec<u32> = match self.columns {
            true => (0..of_one * experts).map(|n| (n % experts * of_one + n / experts) as u32).collect(),
            false => {
                let width = rows / experts;
                let row = |n: usize| n % rows / width * of_one + n / rows * width + n % width;
                (first..first + rows).map(|n| row(n) as u32).collect()
            }
        };
        all.gathered(&order)?.reshaped(shape.to_vec())
    }

    /// The stored tensor of matrices after one another, `parts` of them.
    pub fn stacked(self, joined: &DenseTensor, parts: usize) -> Option<DenseTensor> {
        let &[rows, columns] = joined.shape() else { return None };
        let stored = self.stored_shape(joined.shape());
        let (joined, order): (DenseTensor, Vec<u32>) = match self.columns {
            true => {
                let all = joined.reshaped(vec![rows * self.experts, columns / self.experts])?;
                (all, (0..rows * self.experts).map(|n| (n % rows * self.experts + n / rows) as u32).collect())
            }
            false => {
                let (of_part, of_one) = (rows / parts, rows / self.experts);
                let width = of_part / self.experts;
                let row = |n: usize| n % of_one / width * of_part + n / of_one * width + n % width;
                (joined.clone(), (0..rows).map(|n| row(n) as u32).collect())
            }
        };
        joined.gathered(&order)?.reshaped(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(shape: Vec<usize>) -> DenseTensor {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|n| n as f32).collect();
        DenseTensor::from_f32(shape, &values).unwrap()
    }

    #[test]
    fn stacked_experts_are_taken_apart_and_stacked_again() {
        // Two experts of width 2 on 3 channels.
        let (order, stored) = (ExpertOrder::of_rows(2), numbered(vec![2, 4, 3]));
        let gate = order.taken(&stored, 0, &[4, 3]).unwrap();
        let up = order.taken(&stored, 4, &[4, 3]).unwrap();
        assert_eq!(gate.to_f32("gate").unwrap(), [0., 1., 2., 3., 4., 5., 12., 13., 14., 15., 16., 17.]);
        assert_eq!(up.to_f32("up").unwrap(), [6., 7., 8., 9., 10., 11., 18., 19., 20., 21., 22., 23.]);
        let parts = [("gate".to_owned(), &gate), ("up".to_owned(), &up)];
        let joined = DenseTensor::joined(parts.into_iter()).unwrap();
        assert_eq!(order.stored_shape(joined.shape()), [2, 4, 3]);
        assert_eq!(order.stacked(&joined, 2), Some(stored));

        let (order, stored) = (ExpertOrder::of_columns(2), numbered(vec![2, 3, 2]));
        let down = order.taken(&stored, 0, &[3, 4]).unwrap();
        assert_eq!(down.to_f32("down").unwrap(), [0., 1., 6., 7., 2., 3., 8., 9., 4., 5., 10., 11.]);
        assert_eq!(order.stored_shape(down.shape()), [2, 3, 2]);
        assert_eq!(order.stacked(&down, 1), Some(stored));
        assert_eq!(order.taken(&numbered(vec![3, 2, 2]), 0, &[3, 4]), None);
    }
}
