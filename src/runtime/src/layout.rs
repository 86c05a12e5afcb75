//! Where each weight stands in the artifact: one family of layouts covers every target, given by the rows interleaved,
//! the consecutive columns per row and the coding of nibbles. The packer, the unpacker and the scalar kernel all work
//! from the address formula here, with n the row, k the column, R rows per tile, G = 32 columns per group and kq
//! consecutive columns:
//!
//! ```text
//! w8:  tile(n / R) + (k / G) · 32 R + ((k % G) / kq) · R · kq + (n % R) · kq + k % kq
//! w4:  tile(n / R) + (k / G) · 16 R + ((k % 16) / kq) · R · kq + (n % R) · kq + k % kq,
//!      low nibble for k % 32 < 16, high nibble for the rest
//! ```
//!
//! A tile holds all values, then R multipliers per group (w4 only), then R row scales (f32, little-endian), and starts
//! on 64 bytes. Rows are padded to R and columns to 32 with zeros; the row scale of a padding row is zero.
//!
//! **2:4.** Of every four columns of a row, the matrix keeps two: kept column j = 2 · (k / 4) + s is the first (s = 0) or
//! the second (s = 1) of them, in ascending order. Kept columns are laid out by the formulas above with j in the place of
//! k, padded to 16 kept columns in w8 (32 dense ones: nothing more than a dense matrix) and to 32 in w4 (64 dense ones,
//! since a byte holds columns 16 apart: the low nibbles belong to an even group of 32 dense columns, the high ones to the
//! odd group after it). After a tile's values come its index planes, 2 bits a kept column, 4 R bytes for each group of 32
//! dense columns; then multipliers per 32 dense columns and row scales as above. With kp = min(kq, 4):
//!
//! ```text
//! index: tile(n / R) + values + (j / 4 kp) · R · kp + (n % R) · kp + j % kp,   bits 2 h and 2 h + 1, h = (j / kp) % 4
//! k    = 4 · (j / 2) + index
//! ```
//!
//! So with kq 4 the bytes of a plane stand as the values of one step of a kernel do (R rows, 4 kept columns, 8 dense ones),
//! and the control of the byte shuffle that selects the activations of step t is `(plane >> 2 (t % 4)) & 3` plus {0, 0,
//! 4, 4}; with kq 1 likewise, by rows. With kq 8 and 16 the four bytes of a row are repeated over its run, and each
//! repetition is shifted by its own count, so that no layout pads its planes. Four columns with fewer than two values other
//! than zero keep the lowest further columns beside them, in padding too, so that equal matrices give equal bytes.

/// Columns that share one multiplier, and to which columns are padded.
pub const GROUP: usize = 32;

/// Tiles and tensors start on multiples of this.
pub const ALIGNMENT: usize = 64;

/// How the values of a tensor are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Storage {
    /// f32, little-endian, row by row, no tiles: norms, biases, key maps.
    F32 = 0,
    /// One signed byte a value, one f32 scale a row.
    W8 = 1,
    /// One nibble a value, one signed multiplier per 32 columns, one f32 scale a row.
    W4G32 = 2,
    /// [`Storage::W8`] of two kept values of each four, with 2-bit indices.
    W8S24 = 3,
    /// [`Storage::W4G32`] of two kept values of each four, with 2-bit indices.
    W4G32S24 = 4,
}

/// Kept columns of a group of [`GROUP`] dense ones, where two of four are kept.
pub const KEPT: usize = GROUP / 2;

/// Rows of the first part of a matrix that is stored in two are a multiple of this, and so of every layout's rows.
pub const SPLIT_ROWS: usize = 64;

impl Storage {
    /// Every storage.
    pub const ALL: [Storage; 5] = [Storage::F32, Storage::W8, Storage::W4G32, Storage::W8S24, Storage::W4G32S24];

    /// From the tensor table's byte.
    pub fn from_id(id: u8) -> Option<Self> {
        Storage::ALL.into_iter().find(|storage| *storage as u8 == id)
    }

    /// The name reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Storage::F32 => "f32",
            Storage::W8 => "w8",
            Storage::W4G32 => "w4.g32",
            Storage::W8S24 => "w8.2:4",
            Storage::W4G32S24 => "w4.g32.2:4",
        }
    }

    /// Whether two of every four columns are kept.
    pub const fn is_sparse(self) -> bool {
        matches!(self, Storage::W8S24 | Storage::W4G32S24)
    }

    /// Whether a byte holds two values, and 32 columns share a multiplier.
    pub const fn is_nibbles(self) -> bool {
        matches!(self, Storage::W4G32 | Storage::W4G32S24)
    }

    /// Most columns for which the sum of a row stays in i32 for every value the format allows: 127 · 127 per column in
    /// w8, 8 · 127 · 127 in w4; the same of a sparse matrix, so that pruning changes no bound. A writer never stores the byte -128, as value or as multiplier; a file that does is
    /// damaged, and its sums wrap.
    pub const fn max_columns(self) -> usize {
        match self {
            Storage::F32 => usize::MAX,
            Storage::W8 | Storage::W8S24 => 133_000,
            Storage::W4G32 | Storage::W4G32S24 => 16_640,
        }
    }
}

/// How a nibble codes a value in [-8, 7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NibbleCode {
    /// value + 8
    Offset8,
    /// The low four bits of the value.
    TwosComplement,
}

/// Interleaving of rows and columns within a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Layout {
    /// 8 rows, 4 columns, offset-8 nibbles: x86 and WebAssembly.
    R8K4Offset8 = 1,
    /// 8 rows, 4 columns, two's complement nibbles: AArch64 with dot products.
    R8K4 = 2,
    /// 8 rows, 8 columns, two's complement nibbles: AArch64 with i8mm.
    R8K8 = 3,
    /// 4 rows, 16 columns, two's complement nibbles: Helium.
    R4K16 = 4,
    /// 4 rows, 16 columns, offset-8 nibbles: ESP32-S3.
    R4K16Offset8 = 5,
    /// 4 rows, 4 columns, two's complement nibbles: Cortex-M4 and M7.
    R4K4 = 6,
    /// 16 rows, 1 column, two's complement nibbles: RISC-V V.
    R16K1 = 7,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 7] = [
        Layout::R8K4Offset8,
        Layout::R8K4,
        Layout::R8K8,
        Layout::R4K16,
        Layout::R4K16Offset8,
        Layout::R4K4,
        Layout::R16K1,
    ];

    /// From the header's or the tensor table's number.
    pub fn from_id(id: u8) -> Option<Self> {
        Layout::ALL.into_iter().find(|layout| *layout as u8 == id)
    }

    /// The name target files and reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::R8K4Offset8 => "r8k4.off8.d16.g32",
            Layout::R8K4 => "r8k4.2c.d16.g32",
            Layout::R8K8 => "r8k8.2c.d16.g32",
            Layout::R4K16 => "r4k16.2c.d16.g32",
            Layout::R4K16Offset8 => "r4k16.off8.d16.g32",
            Layout::R4K4 => "r4k4.2c.d16.g32",
            Layout::R16K1 => "r16k1.2c.d16.g32",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Layout::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// R: rows interleaved in a tile.
    pub const fn rows(self) -> usize {
        match self {
            Layout::R8K4Offset8 | Layout::R8K4 | Layout::R8K8 => 8,
            Layout::R4K16 | Layout::R4K16Offset8 | Layout::R4K4 => 4,
            Layout::R16K1 => 16,
        }
    }

    /// kq: consecutive columns of one row.
    pub const fn run(self) -> usize {
        match self {
            Layout::R8K4Offset8 | Layout::R8K4 | Layout::R4K4 => 4,
            Layout::R8K8 => 8,
            Layout::R4K16 | Layout::R4K16Offset8 => 16,
            Layout::R16K1 => 1,
        }
    }

    /// Coding of nibbles.
    pub const fn nibbles(self) -> NibbleCode {
        match self {
            Layout::R8K4Offset8 | Layout::R4K16Offset8 => NibbleCode::Offset8,
            _ => NibbleCode::TwosComplement,
        }
    }
}

/// The sizes of one matrix's tiles, in bytes; every sum is checked, since shapes come from files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileShape {
    /// Coding of values.
    pub storage: Storage,
    /// Interleaving.
    pub layout: Layout,
    /// Groups of 32 columns, the last one padded.
    pub groups: usize,
    /// Tiles, the last one padded.
    pub tiles: usize,
    /// All values of a tile: the index planes follow.
    pub value_bytes: usize,
    /// All index planes of a tile, or none: the multipliers follow.
    pub plane_bytes: usize,
    /// R × groups multipliers, or none: the row scales follow.
    pub multiplier_bytes: usize,
    /// From one tile to the next, a multiple of 64.
    pub stride: usize,
}

impl TileShape {
    /// Tiles of a (rows, columns) matrix; `None` for f32 tensors, empty matrices, sparse ones whose columns four does not
    /// divide, and sizes that overflow.
    pub fn new(storage: Storage, layout: Layout, rows: usize, columns: usize) -> Option<Self> {
        if rows == 0 || columns == 0 {
            return None;
        }
        let groups = columns.div_ceil(GROUP);
        let interleaved = layout.rows();
        let (values, nibbles) = match storage {
            Storage::F32 => return None,
            Storage::W8 | Storage::W4G32 => (groups.checked_mul(GROUP)?, storage.is_nibbles()),
            _ if !columns.is_multiple_of(4) => return None,
            Storage::W8S24 => (groups.checked_mul(KEPT)?, false),
            Storage::W4G32S24 => (groups.checked_next_multiple_of(2)?.checked_mul(KEPT)?, true),
        };
        let value_bytes = values.checked_mul(interleaved)? / if nibbles { 2 } else { 1 };
        let plane_bytes = if storage.is_sparse() { groups.checked_mul(KEPT / 4 * interleaved)? } else { 0 };
        let multiplier_bytes = if nibbles { groups.checked_mul(interleaved)? } else { 0 };
        let bytes = value_bytes.checked_add(plane_bytes)?.checked_add(multiplier_bytes)?;
        let bytes = bytes.checked_add(interleaved * size_of::<f32>())?;
        let stride = bytes.checked_next_multiple_of(ALIGNMENT)?;
        let tiles = rows.div_ceil(interleaved);
        tiles.checked_mul(stride)?;
        Some(TileShape { storage, layout, groups, tiles, value_bytes, plane_bytes, multiplier_bytes, stride })
    }

    /// Bytes of the whole matrix.
    pub fn bytes(&self) -> usize {
        self.tiles * self.stride
    }

    /// Offset of the value at (row within the tile, column) from the tile's start, and whether it is the high nibble. Of a
    /// sparse matrix, the column is a kept one.
    #[inline]
    pub fn value_offset(&self, row: usize, column: usize) -> (usize, bool) {
        let (rows, run) = (self.layout.rows(), self.layout.run());
        let group = column / GROUP;
        if self.storage.is_nibbles() {
            let within = column % 16;
            let offset = group * rows * 16 + within / run * rows * run + row * run + within % run;
            return (offset, column % GROUP >= 16);
        }
        let within = column % GROUP;
        (group * rows * GROUP + within / run * rows * run + row * run + within % run, false)
    }

    /// Columns that are stored, padding included: kept ones of a sparse matrix.
    pub fn stored_columns(&self) -> usize {
        let slots = if self.storage.is_nibbles() { 2 } else { 1 };
        slots * self.value_bytes / self.layout.rows()
    }

    /// Offset of the index of a kept column of a row within the tile from the tile's start, and how far its two bits are
    /// shifted. Of sparse matrices only, and of kept columns within their groups: the high nibbles that pad an odd number
    /// of groups have none.
    #[inline]
    pub fn index_offset(&self, row: usize, kept: usize) -> (usize, u32) {
        let run = self.layout.run().min(4);
        let start = self.value_bytes + kept / (4 * run) * self.layout.rows() * run;
        (start + row * run + kept % run, 2 * (kept / run % 4) as u32)
    }

    /// Offset of the multiplier of (row within the tile, group) from the tile's start.
    #[inline]
    pub fn multiplier_offset(&self, row: usize, group: usize) -> usize {
        self.value_bytes + self.plane_bytes + group * self.layout.rows() + row
    }

    /// Offset of the row scale of a row within the tile from the tile's start.
    #[inline]
    pub fn scale_offset(&self, row: usize) -> usize {
        self.value_bytes + self.plane_bytes + self.multiplier_bytes + row * size_of::<f32>()
    }
}

/// Bytes that a (rows, columns) tensor takes in the artifact, padding to 64 included; `None` where that overflows.
pub fn tensor_bytes(storage: Storage, layout: Layout, rows: usize, columns: usize) -> Option<usize> {
    match storage {
        Storage::F32 => rows.checked_mul(columns)?.checked_mul(size_of::<f32>())?.checked_next_multiple_of(ALIGNMENT),
        _ => Some(TileShape::new(storage, layout, rows, columns)?.bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_tile_are_distinct_and_fill_its_values() {
        for layout in Layout::ALL {
            assert_eq!(Layout::from_id(layout as u8), Some(layout));
            assert_eq!(Layout::from_name(layout.name()), Some(layout));
            for storage in [Storage::W8, Storage::W4G32] {
                let shape = TileShape::new(storage, layout, layout.rows(), 70).expect("small");
                assert_eq!(shape.groups, 3);
                let slots = if storage == Storage::W8 { 1 } else { 2 };
                let mut seen = [0u8; 16 * 96];
                for row in 0..layout.rows() {
                    for column in 0..96 {
                        let (offset, high) = shape.value_offset(row, column);
                        seen[offset] += if high { 16 } else { 1 };
                    }
                }
                let full = if slots == 1 { 1 } else { 17 };
                assert!(seen[..shape.value_bytes].iter().all(|&n| n == full), "{layout:?} {storage:?}");
                assert!(seen[shape.value_bytes..].iter().all(|&n| n == 0), "{layout:?} {storage:?}");
            }
        }
    }

    #[test]
    fn sparse_addresses_are_distinct_and_sizes_those_of_the_format() {
        for layout in Layout::ALL {
            for (storage, columns, stored) in [
                (Storage::W8S24, 68, 48),
                (Storage::W8S24, 256, 128),
                (Storage::W4G32S24, 68, 64),
                (Storage::W4G32S24, 256, 128),
            ] {
                let shape = TileShape::new(storage, layout, layout.rows(), columns).expect("small");
                assert_eq!(shape.stored_columns(), stored, "{layout:?} {storage:?}");
                let mut seen = [0u8; 16 * 256];
                for row in 0..layout.rows() {
                    for kept in 0..stored {
                        let (offset, high) = shape.value_offset(row, kept);
                        assert!(offset < shape.value_bytes);
                        seen[offset] += if high { 16 } else { 1 };
                    }
                    for kept in 0..shape.groups * KEPT {
                        let (offset, shift) = shape.index_offset(row, kept);
                        assert_eq!(seen[offset] >> shift & 3, 0, "{layout:?} {storage:?}");
                        seen[offset] |= 3 << shift;
                    }
                }
                let full = if storage == Storage::W8S24 { 1 } else { 17 };
                assert!(seen[..shape.value_bytes].iter().all(|&n| n == full), "{layout:?} {storage:?}");
                let planes = &seen[shape.value_bytes..][..shape.plane_bytes];
                assert!(planes.iter().all(|&bits| bits == 0xff), "{layout:?} {storage:?}");
                assert!(
                    seen[shape.value_bytes + shape.plane_bytes..].iter().all(|&n| n == 0),
                    "{layout:?} {storage:?}"
                );
                if columns == 256 {
                    // 5 and 3.25 bits a weight besides row scales and the padding of the tile.
                    let bits = 8 * (shape.value_bytes + shape.plane_bytes + shape.multiplier_bytes);
                    let quarters = if storage == Storage::W8S24 { 20 } else { 13 };
                    assert_eq!(4 * bits, quarters * layout.rows() * columns, "{layout:?} {storage:?}");
                }
            }
            assert_eq!(TileShape::new(Storage::W8S24, layout, 8, 70), None);
        }
    }

    /// The example of docs/format.md: row 9, column 37 of a 10 × 40 matrix, the second one kept of its four.
    #[test]
    fn sparse_addresses_are_those_of_the_document() {
        let address = |storage: Storage| {
            let shape = TileShape::new(storage, Layout::R8K4Offset8, 10, 40).expect("small");
            let tile = shape.stride;
            let ((value, high), (index, shift)) = (shape.value_offset(1, 19), shape.index_offset(1, 19));
            let multiplier = tile + shape.multiplier_offset(1, 1);
            (shape.bytes(), tile + value, high, tile + index, shift, multiplier, tile + shape.scale_offset(1))
        };
        let (bytes, value, high, index, shift, _, scale) = address(Storage::W8S24);
        assert_eq!((bytes, value, high, index, shift, scale), (768, 519, false, 679, 0, 708));
        assert_eq!(address(Storage::W4G32S24), (512, 263, true, 423, 0, 457, 468));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert_eq!(tensor_bytes(Storage::W8, Layout::R8K4, usize::MAX, 64), None);
        assert_eq!(tensor_bytes(Storage::W4G32, Layout::R8K4, 8, usize::MAX), None);
        assert_eq!(tensor_bytes(Storage::F32, Layout::R8K4, usize::MAX / 2, 8), None);
        for layout in Layout::ALL {
            for storage in [Storage::W8S24, Storage::W4G32S24] {
                assert_eq!(tensor_bytes(storage, layout, 8, usize::MAX - 3), None);
                assert_eq!(tensor_bytes(storage, layout, usize::MAX, 64), None);
            }
        }
    }
}
