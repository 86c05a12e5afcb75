//! How the integers and scales of a matrix of (rows, columns) stand in an ONNX file. A matrix is one part, or two where its
//! first rows have another scheme; every part is a tensor of integers and one of scales in f32.
//!
//! ```text
//! Blocked  MatMulNBits           uint8 (rows, blocks, block · bits / 8)    scales (rows, blocks)
//! Table    GatherBlockQuantized  uint8 (rows, blocks · block · bits / 8)   scales (rows, blocks)      the same bytes
//! Columns  DequantizeLinear      int8 or int4 (columns, rows)              scales (rows) or (blocks, rows)
//! Rows     DequantizeLinear      int8 or int4 (rows, columns)              scales (rows) or (rows, blocks)
//!
//! weight[o, i] = integer[o, i] · scale[o, i / block]      scale = row_scale[o] · multiplier[o, i / block], a product in f32
//! ```
//!
//! Unsigned integers have 128 or 8 added; the columns that the last block lacks are zero. Four bits stand two to a byte, the
//! first below. Three-bit integers are stored in four bits. Schemes without groups have one scale a row, which the first two
//! layouts repeat in blocks of [`ROW_BLOCK`].

use super::messages::DataType;
use super::variant::Operators;
use crate::model::id::{Class, LinearId};
use crate::model::matrix::row_major;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::model::spec::ModelSpec;
use std::ops::Range;

/// Columns of a block of a row that has one scale.
const ROW_BLOCK: usize = 32;

/// Where the integers of a part are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By rows, in blocks with a dimension of their own.
    Blocked,
    /// By rows, in blocks side by side.
    Table,
    /// By columns.
    Columns,
    /// By rows.
    Rows,
}

/// Rows of a matrix that share a scheme, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartLayout {
    /// What its tensors are called.
    pub(super) stem: String,
    /// Its rows of the matrix.
    pub(super) rows: Range<usize>,
    /// Columns of the matrix.
    pub(super) columns: usize,
    /// Order of the integers.
    pub(super) order: Order,
    /// Bits of an integer: 4 or 8.
    pub(super) bits: usize,
    /// Columns that share a scale; `None` where a row does.
    group: Option<usize>,
}

/// The parts of a matrix in the order of its rows.
pub(super) fn parts(
    spec: &ModelSpec,
    id: LinearId,
    scheme: QuantScheme,
    (rows, columns): (usize, usize),
    operators: Operators,
) -> Vec<PartLayout> {
    let table = id.role.class() == Class::Embedding;
    let order = match operators {
        Operators::OnnxRuntime if table && !spec.multiplies(id) => Order::Table,
        Operators::OnnxRuntime => Order::Blocked,
        Operators::Standard if table => Order::Rows,
        Operators::Standard => Order::Columns,
    };
    let parts: Vec<(Range<usize>, QuantScheme)> = scheme.parts(rows).collect();
    let split = parts.len() > 1;
    let part = |(index, (rows, scheme)): (usize, (Range<usize>, QuantScheme))| {
        let group = scheme.def().group;
        let stem = if split { format!("{id}.part{index}") } else { id.to_string() };
        PartLayout { stem, rows, columns, order, bits: if group.is_some() { 4 } else { 8 }, group }
    };
    parts.into_iter().enumerate().map(part).collect()
}

impl PartLayout {
    /// Name of its integers.
    pub(super) fn values_name(&self) -> String {
        format!("{}.values", self.stem)
    }

    /// Name of its scales.
    pub(super) fn scales_name(&self) -> String {
        format!("{}.scales", self.stem)
    }

    /// Columns of a block; of the layouts that repeat a row's scale in blocks, that of its repetition.
    pub(super) fn block(&self) -> usize {
        self.group.unwrap_or(ROW_BLOCK)
    }

    /// Whether every block has a scale of its own in the file.
    pub(super) fn is_blocked(&self) -> bool {
        self.group.is_some() || matches!(self.order, Order::Blocked | Order::Table)
    }

    fn blocks(&self) -> usize {
        self.columns.div_ceil(self.block())
    }

    /// Columns of a row as it is stored: whole blocks where it is divided into them.
    pub(super) fn stored_columns(&self) -> usize {
        match self.order {
            Order::Blocked | Order::Table => self.blocks() * self.block(),
            Order::Columns | Order::Rows => self.columns,
        }
    }

    /// Type of its integers.
    pub(super) fn data_type(&self) -> DataType {
        match (self.order, self.bits) {
            (Order::Blocked | Order::Table, _) => DataType::Uint8,
            (_, 8) => DataType::Int8,
            _ => DataType::Int4,
        }
    }

    /// Dimensions of the tensor of integers.
    pub(super) fn values_shape(&self) -> Vec<usize> {
        let (rows, bytes) = (self.rows.len(), self.block() * self.bits / 8);
        match self.order {
            Order::Blocked => vec![rows, self.blocks(), bytes],
            Order::Table => vec![rows, self.blocks() * bytes],
            Order::Columns => vec![self.columns, rows],
            Order::Rows => vec![rows, self.columns],
        }
    }

    /// Dimensions of the scales.
    pub(super) fn scales_shape(&self) -> Vec<usize> {
        match (self.is_blocked(), self.order) {
            (false, _) => vec![self.rows.len()],
            (true, Order::Columns) => vec![self.blocks(), self.rows.len()],
            (true, _) => vec![self.rows.len(), self.blocks()],
        }
    }

    /// Bytes of both tensors.
    pub(super) fn bytes(&self) -> usize {
        let count = |shape: Vec<usize>| shape.iter().product::<usize>();
        self.data_type().bytes(count(self.values_shape())) + DataType::Float32.bytes(count(self.scales_shape()))
    }

    /// The tensor of integers of a matrix.
    pub(super) fn encode_values(&self, matrix: &QuantizedMatrix) -> Vec<u8> {
        let values = &row_major(matrix.values.view())[self.rows.start * self.columns..self.rows.end * self.columns];
        match (self.order, self.bits) {
            (Order::Blocked | Order::Table, bits) => {
                let mut out = Vec::with_capacity(self.rows.len() * self.stored_columns() * bits / 8);
                for row in values.chunks(self.columns) {
                    let padding = std::iter::repeat_n(&0, self.stored_columns() - self.columns);
                    let row = row.iter().chain(padding);
                    match bits {
                        8 => out.extend(row.map(|value| value.cast_unsigned() ^ 0x80)),
                        _ => extend_nibbles(&mut out, row.map(|value| value.cast_unsigned().wrapping_add(8))),
                    }
                }
                out
            }
            (Order::Columns, bits) => {
                let columns = self.columns;
                let turned = (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied());
                signed(turned, values.len(), bits)
            }
            (Order::Rows, bits) => signed(values.iter().copied(), values.len(), bits),
        }
    }

    /// The scales of a matrix.
    pub(super) fn encode_scales(&self, matrix: &QuantizedMatrix) -> Vec<u8> {
        let blocks = if self.is_blocked() { self.blocks() } else { 1 };
        let mut scales = Vec::with_capacity(self.rows.len() * blocks);
        for row in self.rows.clone() {
            scales.extend((0..blocks).map(|block| scale(matrix, row, block)));
        }
        if self.is_blocked() && self.order == Order::Columns {
            scales = (0..blocks).flat_map(|block| scales.iter().skip(block).step_by(blocks).copied()).collect();
        }
        scales.iter().flat_map(|scale| scale.to_le_bytes()).collect()
    }

    /// An integer by its row of the part and its column.
    pub(super) fn integer(&self, values: &[u8], row: usize, column: usize) -> i8 {
        let index = match self.order {
            Order::Columns => column * self.rows.len() + row,
            Order::Blocked | Order::Table | Order::Rows => row * self.stored_columns() + column,
        };
        let stored = match self.bits {
            8 => values[index],
            _ => values[index / 2] >> (4 * (index % 2)) & 15,
        };
        match (self.data_type(), self.bits) {
            (DataType::Uint8, 8) => (stored ^ 0x80).cast_signed(),
            (DataType::Uint8, _) => stored.cast_signed() - 8,
            (_, 8) => stored.cast_signed(),
            _ => (stored << 4).cast_signed() >> 4,
        }
    }

    /// The scale of a block of a row of the part; of layouts with one scale a row that one.
    pub(super) fn scale(&self, scales: &[u8], row: usize, block: usize) -> f32 {
        let index = match (self.is_blocked(), self.order) {
            (false, _) => row,
            (true, Order::Columns) => block * self.rows.len() + row,
            (true, _) => row * self.blocks() + block,
        };
        scales.as_chunks().0.get(index).map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
    }
}

/// The scale of a block of a row of a matrix.
pub(super) fn scale(matrix: &QuantizedMatrix, row: usize, block: usize) -> f32 {
    let multiplier = matrix.multipliers(row).get(block).map_or(1.0, |multiplier| f32::from(*multiplier));
    matrix.row_scale[row] * multiplier
}

/// Signed integers, in bytes or two to a byte.
fn signed(values: impl Iterator<Item = i8>, count: usize, bits: usize) -> Vec<u8> {
    if bits == 8 {
        return values.map(i8::cast_unsigned).collect();
    }
    let mut out = Vec::with_capacity(count.div_ceil(2));
    extend_nibbles(&mut out, values.map(i8::cast_unsigned));
    out
}

/// Adds the lower halves of bytes, two to a byte.
fn extend_nibbles(out: &mut Vec<u8>, mut values: impl Iterator<Item = u8>) {
    while let Some(low) = values.next() {
        out.push(low & 15 | values.next().unwrap_or(0) << 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::onnx::testing::decoder_spec;
    use crate::model::id::Role;
    use crate::model::scheme::SCHEMES;
    use ndarray::Array2;

    /// A matrix of every integer of its scheme.
    fn matrix(scheme: QuantScheme, (rows, columns): (usize, usize)) -> QuantizedMatrix {
        let value = |(row, column): (usize, usize)| {
            let (low, high) = scheme.of_row(row).def().range;
            let span = i32::from(high) - i32::from(low) + 1;
            (i32::from(low) + (row * 31 + column * 7) as i32 % span) as i8
        };
        let (multiplied, groups) = scheme.multiplier_shape((rows, columns));
        let multipliers = (0..multiplied * groups).map(|n| if n % 2 == 0 { 3 + n as i8 } else { -5 - n as i8 });
        let scales = (0..rows).map(|row| 0.01 + row as f32 / 512.0).collect();
        QuantizedMatrix::new(scheme, Array2::from_shape_fn((rows, columns), value), scales, multipliers.collect())
    }

    #[test]
    fn integers_and_scales_come_back_from_every_layout() {
        let spec = decoder_spec(true);
        let split = QuantScheme::Split { wide_rows: 64 };
        let roles = [Role::TokenEmbedding, Role::LmHead];
        for scheme in SCHEMES.map(|def| def.scheme).into_iter().chain([split]) {
            for columns in [64, 40, 7] {
                for (role, operators) in roles.into_iter().flat_map(|role| Operators::ALL.map(|all| (role, all))) {
                    let (id, shape) = (LinearId::global(role), (67, columns));
                    let matrix = matrix(scheme, shape);
                    let mut next = 0;
                    for part in parts(&spec, id, scheme, shape, operators) {
                        assert_eq!(part.rows.start, next);
                        next = part.rows.end;
                        let (values, scales) = (part.encode_values(&matrix), part.encode_scales(&matrix));
                        assert_eq!(values.len() + scales.len(), part.bytes(), "{scheme} {operators:?}");
                        for row in 0..part.rows.len() {
                            let of = part.rows.start + row;
                            for column in 0..columns {
                                let label = format!("{scheme} {operators:?} {role:?} {of} {column}");
                                assert_eq!(part.integer(&values, row, column), matrix.values[[of, column]], "{label}");
                                let block = column / part.block();
                                assert_eq!(part.scale(&scales, row, block), scale(&matrix, of, block), "{label}");
                            }
                        }
                    }
                    assert_eq!(next, 67);
                }
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_definitions() {
        let spec = decoder_spec(true);
        let layout = |scheme: QuantScheme, role: Role, operators, shape| {
            parts(&spec, LinearId::global(role), scheme, shape, operators).remove(0)
        };
        let values = Array2::from_shape_vec((2, 3), vec![-8, 7, 1, 0, -1, 2]).expect("six values");
        let four = QuantizedMatrix::new(QuantScheme::W4G32, values.clone(), vec![0.5, 2.0], vec![-3, 4]);
        let contrib = layout(QuantScheme::W4G32, Role::LmHead, Operators::OnnxRuntime, (2, 3));
        let bytes = contrib.encode_values(&four);
        assert_eq!(
            (contrib.values_shape(), &bytes[..2], &bytes[16..18]),
            (vec![2, 1, 16], &[0xf0, 0x89][..], &[0x78, 0x8a][..])
        );
        assert!(bytes[2..16].iter().all(|byte| *byte == 0x88), "columns that are not there are zero");
        let standard = layout(QuantScheme::W4G32, Role::LmHead, Operators::Standard, (2, 3));
        // Columns (-8, 0), (7, -1), (1, 2).
        assert_eq!((standard.values_shape(), standard.encode_values(&four)), (vec![3, 2], vec![0x08, 0xf7, 0x21]));
        let table = layout(QuantScheme::W4G32, Role::TokenEmbedding, Operators::Standard, (2, 3));
        assert_eq!((table.values_shape(), table.encode_values(&four)), (vec![2, 3], vec![0x78, 0x01, 0x2f]));
        let scales = [(-1.5f32).to_le_bytes(), 8f32.to_le_bytes()].concat();
        for part in [contrib, standard, table] {
            assert_eq!(part.encode_scales(&four), scales);
        }
        let eight = QuantizedMatrix::new(QuantScheme::W8, values, vec![0.5, 2.0], Vec::new());
        let contrib = layout(QuantScheme::W8, Role::LmHead, Operators::OnnxRuntime, (2, 3));
        assert_eq!(contrib.encode_values(&eight)[..4], [120, 135, 129, 128]);
    }
}
