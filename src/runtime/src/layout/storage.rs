//! Storages of tensors: one row of [`STORAGES`] for each, from which sizes, bounds on columns, names and the checks of
//! the reader derive. With q a value of `range`, m the signed multiplier of its group of columns (1 where the storage
//! has no groups) and s the f32 scale of the row, a weight is
//!
//! ```text
//! w[o, i] = s[o] · (m[o, i / group] · q[o, i])
//! ```

use super::BLOCK_COLUMNS;

/// A storage, with its number in the tensor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Storage {
    /// f32, little-endian, row by row, no tiles: norms, biases, key maps.
    F32 = 0,
    /// One signed byte per value, one f32 scale per row.
    W8 = 1,
    /// One nibble per value, one signed multiplier per 32 columns, one f32 scale per row.
    W4G32 = 2,
    /// 2:4 [`Storage::W8`]: two kept values of every four, with 2-bit indices.
    W8S24 = 3,
    /// 2:4 [`Storage::W4G32`]: two kept values of every four, with 2-bit indices.
    W4G32S24 = 4,
    /// One nibble per value, one signed multiplier per 64 columns, one f32 scale per row.
    W4G64 = 5,
    /// Three bits per value in two planes, one signed multiplier per 32 columns, one f32 scale per row.
    W3G32 = 6,
}

/// Coding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not stored in tiles.
    F32,
    /// A signed byte.
    Byte,
    /// Four bits, as the layout's [`NibbleCode`](super::NibbleCode) says.
    Nibble,
    /// Three bits, two's complement: the low two in one plane of bytes, the sign in another.
    ThreeBits,
}

impl Coding {
    /// Bits of a value.
    pub const fn bits(self) -> usize {
        match self {
            Coding::F32 => 32,
            Coding::Byte => 8,
            Coding::Nibble => 4,
            Coding::ThreeBits => 3,
        }
    }

    /// Bytes that [`BLOCK_COLUMNS`] values of a row take.
    pub const fn block_bytes(self) -> usize {
        BLOCK_COLUMNS * self.bits() / 8
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageDef {
    /// The storage.
    pub storage: Storage,
    /// The name in reports.
    pub name: &'static str,
    /// Coding of a value.
    pub coding: Coding,
    /// Columns that share a multiplier: a power of two, at least [`BLOCK_COLUMNS`]. `None`: there are no multipliers.
    pub group: Option<usize>,
    /// Smallest and largest value; integer storages only.
    pub range: (i8, i8),
    /// Whether two of every four columns are kept.
    pub two_of_four: bool,
    /// Largest number of columns for which every sum of a row fits in i32.
    pub max_columns: usize,
    /// The first minor version of the format that has it.
    pub minor: u16,
}

/// Largest magnitude of a group's multiplier; 0 is not a multiplier.
pub const MAX_MULTIPLIER: i8 = 127;

const W8: StorageDef = StorageDef {
    storage: Storage::W8,
    name: "w8",
    coding: Coding::Byte,
    group: None,
    range: (-127, 127),
    two_of_four: false,
    max_columns: 133_000,
    minor: 1,
};

const W4G32: StorageDef = StorageDef {
    storage: Storage::W4G32,
    name: "w4.g32",
    coding: Coding::Nibble,
    group: Some(32),
    range: (-8, 7),
    max_columns: 16_640,
    ..W8
};

/// Every storage, by number. A sparse storage has the bound on columns of the dense one. No range includes the byte
/// -128; a file that holds it, as value or as multiplier, is damaged, and its sums wrap.
pub const STORAGES: [StorageDef; 7] = [
    StorageDef { storage: Storage::F32, name: "f32", coding: Coding::F32, max_columns: usize::MAX, ..W8 },
    W8,
    W4G32,
    StorageDef { storage: Storage::W8S24, name: "w8.2:4", two_of_four: true, ..W8 },
    StorageDef { storage: Storage::W4G32S24, name: "w4.g32.2:4", two_of_four: true, ..W4G32 },
    StorageDef { storage: Storage::W4G64, name: "w4.g64", group: Some(64), minor: 4, ..W4G32 },
    StorageDef {
        storage: Storage::W3G32,
        name: "w3.g32",
        coding: Coding::ThreeBits,
        range: (-4, 3),
        max_columns: 33_280,
        minor: 4,
        ..W4G32
    },
];

/// Largest activation.
const MAX_ACTIVATION: usize = 127;

const _: () = {
    let mut number = 0;
    while number < STORAGES.len() {
        let StorageDef { storage, coding, group, range: (low, high), max_columns, .. } = STORAGES[number];
        assert!(storage as usize == number, "rows stand by number");
        let multiplier = match group {
            None => 1,
            Some(group) => {
                assert!(group.is_power_of_two() && group >= BLOCK_COLUMNS, "a block of columns has one multiplier");
                MAX_MULTIPLIER as usize
            }
        };
        if !matches!(coding, Coding::F32) {
            let largest = if low.unsigned_abs() > high.unsigned_abs() { low } else { high };
            let per_column = largest.unsigned_abs() as usize * multiplier * MAX_ACTIVATION;
            assert!(max_columns <= i32::MAX as usize / per_column, "sums stay in 32 bits");
        }
        number += 1;
    }
};

impl Storage {
    /// The storage with the tensor table's number.
    pub fn from_id(id: u8) -> Option<Self> {
        STORAGES.get(usize::from(id)).map(|row| row.storage)
    }

    /// Its row of the table.
    pub const fn def(self) -> &'static StorageDef {
        &STORAGES[self as usize]
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        self.def().name
    }

    /// Whether two of every four columns are kept.
    pub const fn is_sparse(self) -> bool {
        self.def().two_of_four
    }

    /// Whether a byte holds two values.
    pub const fn is_nibbles(self) -> bool {
        matches!(self.def().coding, Coding::Nibble)
    }

    /// Largest number of columns for which every sum of a row fits in i32.
    pub const fn max_columns(self) -> usize {
        self.def().max_columns
    }
}
