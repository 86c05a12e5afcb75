//! The rows of a tensor of blocks, decoded one by one: some rows of it, in the order that the family has them.

use super::architecture::RowOrder;
use super::block::BlockType;
use super::container::StoredBlocks;
use crate::disk::SharedBytes;
use crate::disk::mmap::MappedFile;
use crate::disk::tensor::Rows;
use crate::model::integers::GroupedIntegers;
use crate::model::matrix::from_rows;
use std::path::Path;
use std::sync::Arc;

/// Rows of a tensor.
#[derive(Debug)]
pub(super) struct BlockRows {
    kind: BlockType,
    bytes: SharedBytes,
    /// Bytes of a row.
    row_bytes: usize,
    /// The tensor's row that is the first of these.
    first: usize,
    order: RowOrder,
    file: Arc<MappedFile>,
}

impl BlockRows {
    /// From row `first` of a tensor on, for a parameter of this shape; the two fit, which the layout has checked.
    pub(super) fn new(stored: &StoredBlocks, first: usize, order: RowOrder, shape: &[usize]) -> Self {
        let columns = shape[1..].iter().product();
        let (kind, bytes, file) = (stored.kind, stored.bytes.clone(), Arc::clone(&stored.file));
        let row_bytes = kind.row_bytes(columns).unwrap_or(0);
        BlockRows { kind, bytes, row_bytes, first, order, file }
    }

    /// A matrix of this shape as integers with a scale for every block, of types that are symmetric.
    pub(super) fn integers(&self, [rows, columns]: [usize; 2]) -> Option<GroupedIntegers> {
        let block = self.kind.symmetric()?;
        let (group, bytes) = (self.kind.values(), self.bytes.as_slice());
        let (mut values, mut scales) = (Vec::with_capacity(rows * columns), Vec::new());
        for row in 0..rows {
            let row = self.first + self.order.stored(row);
            for bytes in bytes[row * self.row_bytes..][..self.row_bytes].chunks_exact(self.kind.bytes()) {
                scales.push(block(bytes, &mut values));
            }
        }
        if self.has_one_scale(rows) {
            let of_row = scales.chunks_exact(columns / group).map(|scales| scales[0]).collect();
            return Some(GroupedIntegers {
                values: from_rows(values, columns),
                scales: from_rows(of_row, 1),
                group: columns,
            });
        }
        Some(GroupedIntegers { values: from_rows(values, columns), scales: from_rows(scales, columns / group), group })
    }

    /// Whether the blocks of every row have the scale of the first, as of a writer that knows one scale a row: only scales are
    /// read.
    pub(super) fn has_one_scale(&self, rows: usize) -> bool {
        if self.kind.symmetric().is_none() {
            return false;
        }
        (0..rows).all(|row| {
            let row = self.first + self.order.stored(row);
            let mut blocks =
                self.bytes.as_slice()[row * self.row_bytes..][..self.row_bytes].chunks_exact(self.kind.bytes());
            let first = blocks.next().map(|block| [block[0], block[1]]);
            blocks.all(|block| Some([block[0], block[1]]) == first)
        })
    }

    /// A vector, whose rows are single values of one run of blocks.
    pub(super) fn vector(&self, length: usize) -> Vec<f32> {
        let blocks = self.bytes.as_slice().len() / self.kind.bytes();
        let mut whole = vec![0.0; blocks * self.kind.values()];
        self.kind.decode(self.bytes.as_slice(), &mut whole);
        (0..length).map(|index| whole[self.first + self.order.stored(index)]).collect()
    }
}

impl Rows for BlockRows {
    fn read(&self, row: usize, out: &mut [f32]) {
        let row = self.first + self.order.stored(row);
        self.kind.decode(&self.bytes.as_slice()[row * self.row_bytes..][..self.row_bytes], out);
    }

    fn file(&self) -> Option<&Path> {
        Some(self.file.path())
    }
}
