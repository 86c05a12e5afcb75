//! The inner loops, as a table of functions per instruction set. The scalar table is complete and is the oracle; a
//! faster one replaces entries and must give the same bits.
//!
//! | file | contents |
//! |---|---|
//! | `scalar` | every entry in portable code, for every layout |
//! | [`columns`] | the part of a product's output that one call writes |
//! | [`workers`] | the threads that run the parts: the caller alone, or a pool |
//! | `x86` | AVX2, AVX-VNNI, AVX-512 with VNNI |
//! | `pool` | a pool of threads, with the feature `std` |
//! | `parallel` | work cut into parts that each worker takes once |
//!
//! An instruction set is one file (or folder) with a `Kernels` constant that starts from [`SCALAR`] and replaces
//! entries, an arm in [`available`], and nothing else. Entries are plain safe functions: one that needs a CPU extension wraps
//! its `#[target_feature]` body, and the table is handed out only where the CPU has been checked.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
pub mod columns;
#[cfg(test)]
mod equality;
#[cfg(all(target_arch = "arm", feature = "helium"))]
mod helium;
pub(crate) mod parallel;
#[cfg(any(feature = "std", test))]
pub mod pool;
#[cfg(all(target_arch = "riscv64", target_os = "linux", feature = "std"))]
mod riscv;
pub(crate) mod root;
pub mod scalar;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod thumb;
#[cfg(any(
    all(target_arch = "aarch64", target_endian = "little"),
    all(target_arch = "wasm32", target_feature = "simd128"),
    all(target_arch = "arm", feature = "dsp"),
    all(target_arch = "arm", feature = "helium"),
    all(target_arch = "riscv64", target_os = "linux", feature = "std"),
))]
mod tiles;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
pub mod workers;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::format::artifact::Matrix;
use crate::layout::{BLOCK_COLUMNS, Layout, Storage};
use crate::numerics::{self, Curve, F32Bytes, NumericRange, Rotary};
use columns::Columns;
use core::ops::Range;

/// Bits of a linear's quantized input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// One row of bytes a token.
    Bits8 = 8,
    /// Two rows of bytes a token: the value is 128 · (first) + (second).
    Bits16 = 16,
}

impl Width {
    /// From the tensor table's number; `None` for a number no linear has.
    pub fn from_number(number: u8) -> Option<Self> {
        [Width::Bits8, Width::Bits16].into_iter().find(|width| *width as u8 == number)
    }

    /// Rows of bytes a token takes.
    pub const fn planes(self) -> usize {
        match self {
            Width::Bits8 => 1,
            Width::Bits16 => 2,
        }
    }
}

/// Quantized inputs of a linear: `planes` rows of bytes and one scale per token.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// (tokens · planes, stride): values in [-127, 127], zero from the linear's width up to the next multiple of 32.
    pub values: &'a [i8],
    /// (tokens · planes, stride / 32): -8 times the sum of each group of 32 values, which offset-8 nibbles need.
    pub offsets: &'a [i32],
    /// From one row to the next, a multiple of 32: exactly the linear's padded width.
    pub stride: usize,
    /// (tokens)
    pub scales: &'a [f32],
    /// Rows per token.
    pub width: Width,
}

impl<'a> Activations<'a> {
    /// Number of tokens.
    #[inline]
    pub fn tokens(&self) -> usize {
        self.scales.len()
    }

    /// Rows of bytes: tokens times planes.
    #[inline]
    pub fn rows(&self) -> usize {
        self.scales.len() * self.width.planes()
    }

    /// The bytes of one row.
    #[inline]
    pub fn row(&self, row: usize) -> &'a [i8] {
        &self.values[row * self.stride..][..self.stride]
    }

    /// The bounds that every product asserts once, so that its inner loops need not.
    ///
    /// # Panics
    /// If slices are shorter than the shapes say.
    #[inline]
    pub fn check(&self, matrix: &Matrix<'_>, tiles: &Range<usize>, output: &Columns<'_>) {
        let shape = &matrix.shape;
        assert!(self.stride == shape.blocks * BLOCK_COLUMNS && self.values.len() >= self.rows() * self.stride);
        assert!(self.offsets.len() >= self.rows() * shape.blocks);
        assert!(tiles.start <= tiles.end && tiles.end <= shape.tiles && matrix.bytes.len() >= shape.bytes());
        assert!(output.tokens() == self.tokens() && output.range() == matrix.rows_of(tiles));
    }
}

/// A row to integers, and [`Activations::offsets`] of its groups; the scale of the row.
pub type QuantizeRow = fn(&[f32], &mut [i8], &mut [i32]) -> Result<f32, NumericRange>;
/// A layer norm in place: values, weight, bias, epsilon.
pub type LayerNorm = fn(&mut [f32], F32Bytes<'_>, F32Bytes<'_>, f32) -> Result<(), NumericRange>;
/// Scores to weights: see [`Kernels::weights`].
pub type Weigh = fn(&[f32], f32, &mut [u32]) -> (u64, f32);
/// Values by weights: see [`Kernels::mix`].
pub type Mix = fn(Rows<'_>, &[u32], Factors, Sums<'_>, &mut [f32]);

/// Functions of one instruction set. Every function gives the same bits in every table.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// `scalar`, `avx2`, …
    pub name: &'static str,
    /// The layout `multiply` is made for; matrices in others, and those of a storage that [`VectorStorage`] does not have, go
    /// through the scalar kernel. `None`: all alike.
    pub layout: Option<Layout>,
    /// The rows of `tiles` of a product, for every token:
    /// `output[t, o] = f32(A[t, o]) · row_scale[o] · scale[t]`, each one f32 operation, with `A = Σ_i w[o, i] · a[t, i]` in
    /// i32 for 8-bit activations and 128 · Σ w·first + Σ w·second in i64, converted to f32 once, for 16-bit ones. One
    /// token is the decode case; with several, a tile is best unpacked once.
    pub multiply: fn(&Matrix<'_>, &Activations<'_>, Range<usize>, &mut Columns<'_>),
    /// One row to 8 bits: [`numerics::quantize`], then zeros to the end of `out`, and [`Activations::offsets`] of as many
    /// groups as there are places for.
    pub quantize: QuantizeRow,
    /// One row to 16 bits: [`numerics::quantize_a16`] into the two halves of `out`, each padded with zeros, and the
    /// offsets of their groups.
    pub quantize_a16: QuantizeRow,
    /// [`numerics::rms_norm`].
    pub rms_norm: fn(&mut [f32], F32Bytes<'_>, f32) -> Result<(), NumericRange>,
    /// [`numerics::layer_norm`].
    pub layer_norm: LayerNorm,
    /// `x[i] = curve(x[i])`.
    pub activate: fn(&Curve<'_>, &mut [f32]),
    /// `gate[i] = curve(gate[i]) · up[i]`.
    pub gate: fn(&Curve<'_>, &mut [f32], &[f32]),
    /// [`Rotary::rotate`] of one head at a position.
    pub rotate: fn(&Rotary<'_>, &mut [f32], usize),
    /// `x[i] += y[i]`.
    pub add: fn(&mut [f32], &[f32]),
    /// Scores of one query head: `score[p] = f32(Σ query · key[p]) · key_scale[p] · scale` as f32 bits, and the largest.
    pub scores: fn(Rows<'_>, &[i8], f32, &mut [u32]) -> f32,
    /// Scores to weights: `e[p] = 2^-round(min(top - score[p], 2^21))` in Q24 in their place; Σ e and max f32(e) · scale.
    pub weights: Weigh,
    /// Values by weights: `out[i] = f32(Σ_p w[p] · value[p, i]) · back`, `w[p] = round(f32(e[p]) · value_scale[p] · ratio)`,
    /// the sum in i64; up to [`scalar::BLOCK`] positions fit in i32.
    pub mix: Mix,
}

/// Factors of attention's second product.
#[derive(Clone, Copy)]
pub struct Factors {
    /// From weights times value scales to 14-bit integers.
    pub ratio: f32,
    /// And back.
    pub back: f32,
}

/// Scratch of attention's second product, (head_dim) each.
pub struct Sums<'a> {
    /// Sums over at most [`scalar::BLOCK`] positions.
    pub block: &'a mut [i32],
    /// Sums over all positions.
    pub total: &'a mut [i64],
}

/// Keys or values of one head at consecutive positions. More may follow than a function needs; it may read them,
/// and their values change nothing.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// (positions, head_dim)
    pub values: &'a [i8],
    /// (positions)
    pub scales: &'a [f32],
}

/// The storages that tables of vector instructions multiply. Matrices of every other one go through the scalar kernel: the
/// bits are the same, the time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of `Storage`")]
pub enum VectorStorage {
    W8,
    W4G32,
    W8S24,
    W4G32S24,
}

impl VectorStorage {
    /// Of a storage; `None` of one that the scalar kernel alone has.
    pub const fn of(storage: Storage) -> Option<Self> {
        match storage {
            Storage::W8 => Some(VectorStorage::W8),
            Storage::W4G32 => Some(VectorStorage::W4G32),
            Storage::W8S24 => Some(VectorStorage::W8S24),
            Storage::W4G32S24 => Some(VectorStorage::W4G32S24),
            Storage::F32 | Storage::W4G64 | Storage::W3G32 => None,
        }
    }

    /// Whether a byte holds two values, and 32 columns share a multiplier.
    pub const fn is_nibbles(self) -> bool {
        matches!(self, VectorStorage::W4G32 | VectorStorage::W4G32S24)
    }
}

/// The portable table.
pub const SCALAR: Kernels = Kernels {
    name: "scalar",
    layout: None,
    multiply: scalar::multiply,
    quantize: numerics::quantize_row,
    quantize_a16: numerics::quantize_a16_row,
    rms_norm: numerics::rms_norm,
    layer_norm: numerics::layer_norm,
    activate: numerics::activate,
    gate: numerics::gate,
    rotate: scalar::rotate,
    add: numerics::add,
    scores: scalar::scores,
    weights: numerics::softmax_weights,
    mix: scalar::mix,
};

/// The tables this CPU can run, best first; the last is [`SCALAR`]. With the feature `std` the CPU is detected at run time;
/// without, it has the features that the compiler was told.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    // One line for each table, behind the architecture's `cfg`; each function returns its table where the CPU has it.
    let tables: &[fn() -> Option<&'static Kernels>] = &[
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        aarch64::i8mm,
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        aarch64::dotprod,
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        helium::helium,
        #[cfg(all(target_arch = "arm", feature = "dsp"))]
        thumb::dsp,
        #[cfg(all(target_arch = "riscv64", target_os = "linux", feature = "std"))]
        riscv::vector,
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        wasm::simd128,
        #[cfg(target_arch = "x86_64")]
        x86::avx512_vnni,
        #[cfg(target_arch = "x86_64")]
        x86::avx_vnni,
        #[cfg(target_arch = "x86_64")]
        x86::avx2,
        || Some(const { &SCALAR }),
    ];
    tables.iter().filter_map(|table| table())
}

/// The best table this CPU can run for artifacts in a layout.
pub fn best(layout: Layout) -> &'static Kernels {
    let fits = |table: &&'static Kernels| table.layout.is_none_or(|own| own == layout);
    available().find(fits).unwrap_or(const { &SCALAR })
}
