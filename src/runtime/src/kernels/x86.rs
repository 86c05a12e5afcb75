//! x86-64: tables for AVX2, AVX-VNNI and AVX-512 with VNNI, for layout r8k4 with offset-8 nibbles. Each compiles the
//! same bodies and the definitions of [`numerics`] with its own instructions.
//!
//! | file | contents |
//! |---|---|
//! | `vectors` | the operations in which the instruction sets differ |
//! | `decode` | products with one token |
//! | `few` | products with a few rows of activations |
//! | `stream` | prefetch for `decode` and `few` |
//! | `prefill` | products with several tokens |
//! | `curve` | activation curves |
//! | `attention` | scores and mixing of values |
#![expect(unsafe_code, reason = "vector instructions; a table is only returned after its CPU features are checked")]

mod attention;
mod curve;
mod decode;
mod few;
mod prefill;
mod stream;
mod vectors;

use super::columns::Columns;
use super::{Activations, Factors, Kernels, Rows, Sums, VectorStorage, Width, scalar};
use crate::format::artifact::Matrix;
use crate::layout::Layout;
use crate::numerics::{self, Curve, F32Bytes, NumericRange, Rotary};
use core::arch::x86_64::*;
use core::ops::Range;

/// The layout of these tables.
const LAYOUT: Layout = Layout::R8K4Offset8;

/// Functions whose bodies are compiled with some CPU extensions.
macro_rules! entries {
    ($features:literal, $($entry:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $body:expr;)*) => {
        $(
            fn $entry($($argument: $type),*) $(-> $result)? {
                // Never inlined, so that stack frames do not add up.
                #[target_feature(enable = $features)]
                #[inline(never)]
                fn body($($argument: $type),*) $(-> $result)? {
                    $body
                }
                // SAFETY: the table is only returned where the CPU has these extensions.
                unsafe { body($($argument),*) }
            }
        )*
    };
}

/// A table: bodies compiled with some CPU extensions, and the functions that enter them.
macro_rules! table {
    ($module:ident, $name:literal, $features:literal, $decode:ty, $prefill:ty, |$acc:ident, $weight:ident, $value:ident| $dot:expr) => {
        mod $module {
            use super::*;

            entries! { $features,
                multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) = {
                    let storage = match VectorStorage::of(matrix.shape.storage) {
                        Some(storage) if matrix.shape.layout == LAYOUT => storage,
                        _ => return scalar::multiply(matrix, input, tiles, output),
                    };
                    input.check(matrix, &tiles, output);
                    match (input.tokens(), input.width) {
                        (1, Width::Bits8) => one_token(matrix, storage, input, tiles, output),
                        (1, Width::Bits16) => one_token_a16(matrix, storage, input, tiles, output),
                        _ if input.rows() <= few::MOST_ROWS => few_rows(matrix, storage, input, tiles, output),
                        _ => several_tokens(matrix, storage, input, tiles, output),
                    }
                };
                one_token(matrix: &Matrix<'_>, storage: VectorStorage, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) = {
                    // SAFETY: the extensions are there, and `multiply` has checked all else.
                    unsafe { decode::multiply::<$decode, 1>(matrix, storage, input, tiles, output) }
                };
                one_token_a16(matrix: &Matrix<'_>, storage: VectorStorage, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) = {
                    // SAFETY: likewise.
                    unsafe { decode::multiply::<$decode, 2>(matrix, storage, input, tiles, output) }
                };
                few_rows(matrix: &Matrix<'_>, storage: VectorStorage, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) = {
                    // SAFETY: likewise.
                    unsafe { few::multiply::<$decode>(matrix, storage, input, tiles, output) }
                };
                several_tokens(matrix: &Matrix<'_>, storage: VectorStorage, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) = {
                    // SAFETY: likewise.
                    unsafe { prefill::multiply::<$prefill>(matrix, storage, input, tiles, output) }
                };
                quantize(x: &[f32], out: &mut [i8], offsets: &mut [i32]) -> Result<f32, NumericRange> =
                    numerics::quantize_row(x, out, offsets);
                quantize_a16(x: &[f32], out: &mut [i8], offsets: &mut [i32]) -> Result<f32, NumericRange> =
                    numerics::quantize_a16_row(x, out, offsets);
                rms_norm(x: &mut [f32], weight: F32Bytes<'_>, epsilon: f32) -> Result<(), NumericRange> =
                    numerics::rms_norm(x, weight, epsilon);
                layer_norm(x: &mut [f32], weight: F32Bytes<'_>, bias: F32Bytes<'_>, epsilon: f32) -> Result<(), NumericRange> =
                    numerics::layer_norm(x, weight, bias, epsilon);
                activate(curve: &Curve<'_>, x: &mut [f32]) = {
                    // SAFETY: the extensions are there.
                    unsafe { curve::activate(curve, x) }
                };
                gate(curve: &Curve<'_>, gate: &mut [f32], up: &[f32]) = {
                    // SAFETY: the extensions are there.
                    unsafe { curve::gate(curve, gate, up) }
                };
                rotate(rotary: &Rotary<'_>, head: &mut [f32], position: usize) = rotary.rotate(head, position);
                add(x: &mut [f32], y: &[f32]) = numerics::add(x, y);
                scores(keys: Rows<'_>, query: &[i8], scale: f32, scores: &mut [u32]) -> f32 = {
                    if query.len() > attention::MAX_HEAD {
                        return scalar::scores(keys, query, scale, scores);
                    }
                    // SAFETY: the extensions are there, and the query fits.
                    unsafe { attention::scores::<$decode>(keys, query, scale, scores) }
                };
                weights(scales: &[f32], top: f32, scores: &mut [u32]) -> (u64, f32) =
                    numerics::softmax_weights(scales, top, scores);
                mix(values: Rows<'_>, weights: &[u32], factors: Factors, sums: Sums<'_>, out: &mut [f32]) = {
                    let dot = |$acc: __m256i, $weight: __m256i, $value: __m256i| $dot;
                    // SAFETY: the extensions are there.
                    unsafe { attention::mix(values, weights, factors, sums, out, dot) }
                };
            }

            pub(super) const TABLE: Kernels = Kernels {
                name: $name,
                layout: Some(LAYOUT),
                multiply,
                quantize,
                quantize_a16,
                rms_norm,
                layer_norm,
                activate,
                gate,
                rotate,
                add,
                scores,
                weights,
                mix,
            };
        }
    };
}

table!(with_avx2, "avx2", "avx2", vectors::Avx2, vectors::Avx2, |acc, weight, value| {
    // A pair is at most 2 · 127 · 127, which fits i16.
    let pairs = _mm256_maddubs_epi16(weight, value);
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
});
table!(with_avx_vnni, "avx-vnni", "avx2,avxvnni", vectors::AvxVnni, vectors::AvxVnni, |acc, weight, value| {
    _mm256_dpbusd_avx_epi32(acc, weight, value)
});
table!(
    with_avx512_vnni,
    "avx512-vnni",
    "avx2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
    vectors::Avx512Vnni,
    vectors::Avx512Vnni,
    |acc, weight, value| _mm256_dpbusd_epi32(acc, weight, value)
);

#[cfg(test)]
table!(
    with_narrow_vnni,
    "avx-vnni in the encoding of avx512-vnni",
    "avx2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
    vectors::Narrow,
    vectors::Narrow,
    |acc, weight, value| _mm256_dpbusd_epi32(acc, weight, value)
);

/// Whether the CPU has some features: detected with `std`, else the target features of the build.
macro_rules! has {
    ($($feature:tt),*) => {{
        #[cfg(any(feature = "std", test))]
        {
            $(std::arch::is_x86_feature_detected!($feature))&&*
        }
        #[cfg(not(any(feature = "std", test)))]
        {
            $(cfg!(target_feature = $feature))&&*
        }
    }};
}

/// AVX-512 with VNNI: Ice Lake, Zen 4 and later.
pub(super) fn avx512_vnni() -> Option<&'static Kernels> {
    let there = has!("avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni");
    there.then_some(const { &with_avx512_vnni::TABLE })
}

/// AVX-VNNI: Alder Lake, Zen 5 and later.
pub(super) fn avx_vnni() -> Option<&'static Kernels> {
    has!("avx2", "avxvnni").then_some(const { &with_avx_vnni::TABLE })
}

/// AVX2: Haswell, Zen and later.
pub(super) fn avx2() -> Option<&'static Kernels> {
    has!("avx2").then_some(const { &with_avx2::TABLE })
}

/// The operations of [`avx_vnni`] in AVX-512's encoding, for CPUs without AVX-VNNI.
#[cfg(test)]
pub(super) fn narrow_vnni() -> Option<&'static Kernels> {
    avx512_vnni().map(|_| const { &with_narrow_vnni::TABLE })
}
