//! Address of each weight in the artifact: one family of layouts covers every target, parametrised by the interleaved
//! rows, the consecutive columns per row and the coding of nibbles. The packer, the unpacker and the scalar kernel all
//! use the address formula here, with n the row, k the column, R rows per tile and kq consecutive columns. Columns come
//! in blocks of 32; the g columns that share a multiplier are one block or several:
//!
//! ```text
//! w8:  tile(n / R) + (k / 32) · 32 R + ((k % 32) / kq) · R · kq + (n % R) · kq + k % kq
//! w4:  tile(n / R) + (k / 32) · 16 R + ((k % 16) / kq) · R · kq + (n % R) · kq + k % kq,
//!      low nibble for k % 32 < 16, high nibble for the rest
//! w3:  block = tile(n / R) + (k / 32) · 12 R, j = k % 32, kp = min(kq, 4)
//!      low two bits: block + (j / 4 kp) · R · kp + (n % R) · kp + j % kp,         bits 2 h and 2 h + 1, h = (j / kp) % 4
//!      sign bit:     block + 8 R + (j / 8 kp) · R · kp + (n % R) · kp + j % kp,   bit (j / kp) % 8
//! ```
//!
//! A tile holds all values, then R multipliers per group of g columns where the storage has any, then R row scales
//! (f32, little-endian), and starts on 64 bytes. Rows are padded to R and columns to 32 with zeros; the row scale of a
//! padding row is zero.
//!
//! The planes of w3 are arranged as the index planes of 2:4, below: with kq 4, one load of R · 4 bytes holds the low
//! bits of four steps of a kernel, and another the signs of all eight steps of a block.
//!
//! **2:4.** Of every four columns of a row, the matrix keeps two: kept column j = 2 · (k / 4) + s is the first (s = 0)
//! or the second (s = 1) of them, in ascending order. Kept columns are laid out by the formulas above with j in place
//! of k, padded to 16 kept columns in w8 (32 dense ones: nothing more than a dense matrix) and to 32 in w4 (64 dense
//! ones, since a byte holds columns 16 apart: the low nibbles belong to an even group of 32 dense columns, the high
//! ones to the odd group after it). After a tile's values come its index planes, 2 bits a kept column, 4 R bytes for
//! each group of 32 dense columns; then multipliers per 32 dense columns and row scales as above. With kp = min(kq, 4):
//!
//! ```text
//! index: tile(n / R) + values + (j / 4 kp) · R · kp + (n % R) · kp + j % kp,   bits 2 h and 2 h + 1, h = (j / kp) % 4
//! k    = 4 · (j / 2) + index
//! ```
//!
//! So with kq 4 the bytes of a plane are arranged as the values of one kernel step (R rows, 4 kept columns, 8 dense
//! ones), and the control of the byte shuffle that selects the activations of step t is `(plane >> 2 (t % 4)) & 3` plus
//! {0, 0, 4, 4}; with kq 1 likewise, by rows. With kq 8 and 16 the four bytes of a row are repeated over its run, and
//! each repetition is shifted by its own count, so that no layout pads its planes. Four columns with fewer than two
//! nonzero values also keep the lowest other columns, in padding too, so that equal matrices give equal bytes.

mod storage;

pub use storage::{Coding, MAX_MULTIPLIER, STORAGES, Storage, StorageDef};

/// Columns of a block, the unit of padding and of decoding. Every group is a whole number of blocks.
pub const BLOCK_COLUMNS: usize = 32;

/// Tiles and tensors start on multiples of this.
pub const ALIGNMENT: usize = 64;

/// Kept columns of a block, where two of four are kept.
pub const KEPT: usize = BLOCK_COLUMNS / 2;

/// The first part of a split matrix has a multiple of this many rows, which is a multiple of every layout's rows.
pub const SPLIT_ROWS: usize = 64;

/// How a nibble codes a value in [-8, 7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NibbleCode {
    /// value + 8
    Offset8,
    /// The low four bits of the value.
    TwosComplement,
}

impl NibbleCode {
    /// The nibble of a value in [-8, 7].
    pub const fn encode(self, value: i8) -> u8 {
        match self {
            NibbleCode::Offset8 => value.wrapping_add(8) as u8 & 15,
            NibbleCode::TwosComplement => value as u8 & 15,
        }
    }

    /// The value of a nibble.
    #[inline]
    pub const fn decode(self, nibble: u8) -> i8 {
        match self {
            NibbleCode::Offset8 => (nibble & 15) as i8 - 8,
            NibbleCode::TwosComplement => (nibble << 4) as i8 >> 4,
        }
    }
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

    /// The layout with the header's or the tensor table's number.
    pub fn from_id(id: u8) -> Option<Self> {
        Layout::ALL.into_iter().find(|layout| *layout as u8 == id)
    }

    /// The name in target files and reports.
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

    /// The layout with this name.
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
    /// Blocks of 32 columns, the last one padded.
    pub blocks: usize,
    /// Multipliers per row: one for each group of columns, of which the last may be smaller; 0 where there are none.
    pub groups: usize,
    /// Tiles, the last one padded.
    pub tiles: usize,
    /// Bytes of all values of a tile; the index planes follow.
    pub value_bytes: usize,
    /// Bytes of all index planes of a tile, or 0; the multipliers follow.
    pub plane_bytes: usize,
    /// Bytes of the R × groups multipliers, or 0; the row scales follow.
    pub multiplier_bytes: usize,
    /// Distance between tiles, a multiple of 64.
    pub stride: usize,
}

impl TileShape {
    /// The tiles of a (rows, columns) matrix; `None` for f32 tensors, empty matrices, sparse ones whose columns are not
    /// a multiple of four, and sizes that overflow.
    pub fn new(storage: Storage, layout: Layout, rows: usize, columns: usize) -> Option<Self> {
        if rows == 0 || columns == 0 {
            return None;
        }
        let StorageDef { coding, group, two_of_four, .. } = *storage.def();
        let (blocks, interleaved) = (columns.div_ceil(BLOCK_COLUMNS), layout.rows());
        let stored_blocks = match coding {
            Coding::F32 => return None,
            _ if two_of_four && !columns.is_multiple_of(4) => return None,
            // A byte of nibbles holds kept columns of two blocks.
            Coding::Nibble if two_of_four => blocks.checked_next_multiple_of(2)?,
            Coding::Byte | Coding::Nibble | Coding::ThreeBits => blocks,
        };
        let of_block = coding.block_bytes() / if two_of_four { 2 } else { 1 };
        let value_bytes = stored_blocks.checked_mul(of_block)?.checked_mul(interleaved)?;
        let plane_bytes = if two_of_four { blocks.checked_mul(KEPT / 4 * interleaved)? } else { 0 };
        let groups = group.map_or(0, |group| columns.div_ceil(group));
        let multiplier_bytes = groups.checked_mul(interleaved)?;
        let bytes = value_bytes.checked_add(plane_bytes)?.checked_add(multiplier_bytes)?;
        let bytes = bytes.checked_add(interleaved * size_of::<f32>())?;
        let stride = bytes.checked_next_multiple_of(ALIGNMENT)?;
        let tiles = rows.div_ceil(interleaved);
        tiles.checked_mul(stride)?;
        Some(TileShape { storage, layout, blocks, groups, tiles, value_bytes, plane_bytes, multiplier_bytes, stride })
    }

    /// Bytes of the whole matrix.
    pub fn bytes(&self) -> usize {
        self.tiles * self.stride
    }

    /// Offset of the value at (row within the tile, column) from the tile's start, and whether it is the high nibble.
    /// In a sparse matrix, the column is a kept one. Three-bit values have two addresses: [`TileShape::plane_offsets`].
    #[inline]
    pub fn value_offset(&self, row: usize, column: usize) -> (usize, bool) {
        let (rows, run) = (self.layout.rows(), self.layout.run());
        let block = column / BLOCK_COLUMNS;
        if self.storage.is_nibbles() {
            let within = column % 16;
            let offset = block * rows * 16 + within / run * rows * run + row * run + within % run;
            return (offset, column % BLOCK_COLUMNS >= 16);
        }
        let within = column % BLOCK_COLUMNS;
        (block * rows * BLOCK_COLUMNS + within / run * rows * run + row * run + within % run, false)
    }

    /// Offsets of the low two bits and of the sign of a three-bit value from the tile's start, each with its shift.
    #[inline]
    pub fn plane_offsets(&self, row: usize, column: usize) -> [(usize, u32); 2] {
        let (rows, run) = (self.layout.rows(), self.layout.run().min(4));
        let (block, within) = (column / BLOCK_COLUMNS, column % BLOCK_COLUMNS);
        let start = block * rows * Coding::ThreeBits.block_bytes() + row * run + within % run;
        let step = within / run;
        let low = (start + step / 4 * rows * run, 2 * (step % 4) as u32);
        let sign = (start + rows * (BLOCK_COLUMNS / 4) + step / 8 * rows * run, (step % 8) as u32);
        [low, sign]
    }

    /// The value at (row within the tile, column) of a tile; in a sparse matrix, the column is a kept one.
    ///
    /// # Panics
    /// If the tile is shorter than its shape.
    pub fn value(&self, tile: &[u8], row: usize, column: usize) -> i8 {
        if self.storage.def().coding == Coding::ThreeBits {
            let [(low, shift), (sign, bit)] = self.plane_offsets(row, column);
            return three_bits(tile[low] >> shift & 3, tile[sign] >> bit & 1);
        }
        let (offset, high) = self.value_offset(row, column);
        match self.storage.is_nibbles() {
            true => self.layout.nibbles().decode(if high { tile[offset] >> 4 } else { tile[offset] }),
            false => tile[offset] as i8,
        }
    }

    /// Writes a value at (row within the tile, column) of a zeroed tile; in a sparse matrix, the column is a kept one.
    ///
    /// # Panics
    /// If the tile is shorter than its shape.
    pub fn put_value(&self, tile: &mut [u8], row: usize, column: usize, value: i8) {
        if self.storage.def().coding == Coding::ThreeBits {
            let [(low, shift), (sign, bit)] = self.plane_offsets(row, column);
            tile[low] |= (value as u8 & 3) << shift;
            tile[sign] |= (value as u8 >> 2 & 1) << bit;
            return;
        }
        let (offset, high) = self.value_offset(row, column);
        match self.storage.is_nibbles() {
            true => tile[offset] |= self.layout.nibbles().encode(value) << if high { 4 } else { 0 },
            false => tile[offset] = value as u8,
        }
    }

    /// Stored columns, padding included: the kept ones of a sparse matrix.
    pub fn stored_columns(&self) -> usize {
        self.value_bytes / self.layout.rows() * 8 / self.storage.def().coding.bits()
    }

    /// Offset of the index of a kept column of a row within the tile from the tile's start, and the shift of its two
    /// bits. Only for sparse matrices, and for kept columns within their blocks: the high nibbles that pad an odd
    /// number of blocks have no index.
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

/// The three-bit value of its low two bits and its sign bit.
#[inline]
pub(crate) const fn three_bits(low: u8, sign: u8) -> i8 {
    low as i8 - 4 * sign as i8
}

/// Bytes that a (rows, columns) tensor takes in the artifact, padding to 64 included; `None` where that overflows.
pub fn tensor_bytes(storage: Storage, layout: Layout, rows: usize, columns: usize) -> Option<usize> {
    match storage {
        Storage::F32 => rows.checked_mul(columns)?.checked_mul(size_of::<f32>())?.checked_next_multiple_of(ALIGNMENT),
        _ => Some(TileShape::new(storage, layout, rows, columns)?.bytes()),
    }
}

#[cfg(test)]
mod tests;
