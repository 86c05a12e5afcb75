//! Cortex-M55 and M85 with Helium (the integer part of MVE), layout r4k16.2c: a row's 16 columns are one vector, and
//! `vmlava` adds the 16 products into a general register. Nibbles stay sixteen times too large, which a shift of the
//! group's sum undoes exactly. For 2:4 matrices a gather load selects the activations of the kept columns.
//!
//! Whole loops are assembly, since Rust has no vector types for this target. Attention and f32 rows are plain Rust,
//! whose integer part the compiler vectorizes. f32 vectors must be off (`-Ctarget-feature=-mve.fp`): they flush
//! subnormals to zero, which docs/numerics.md forbids.

#![expect(unsafe_code, reason = "instructions; bounds are those that `tiles::multiply` checks")]

use super::columns::Columns;
use super::tiles::{self, TileSums};
use super::{Activations, Kernels, SCALAR, scalar};
use crate::format::artifact::Matrix;
use crate::layout::{BLOCK_COLUMNS, KEPT, Layout, TileShape};
use core::arch::asm;
use core::ops::Range;

/// The table of Helium, enabled by the feature `helium`.
pub(super) fn helium() -> Option<&'static Kernels> {
    Some(const { &HELIUM })
}

const HELIUM: Kernels = Kernels { name: "helium", layout: Some(Layout::R4K16), multiply, ..SCALAR };

fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    match matrix.shape.layout {
        Layout::R4K16 => tiles::multiply::<ROWS, Helium>(matrix, input, tiles, output),
        _ => scalar::multiply(matrix, input, tiles, output),
    }
}

const ROWS: usize = 4;
/// Bytes of a step: 4 rows of 16 columns.
const STEP: usize = ROWS * 16;

struct Helium;

/// Sums of `steps` steps of 16 columns of a tile in w8.
///
/// # Safety
/// There are 64 · steps bytes of weights and 16 · steps activations, and at least one step.
#[inline(always)]
unsafe fn dense_bytes(weights: *const u8, row: *const i8, steps: usize) -> [i32; ROWS] {
    let (mut a, mut b, mut c, mut d) = (0, 0, 0, 0);
    // SAFETY: reads only the ranges that the caller promises. `vmlava` wants even registers.
    unsafe {
        asm!(
            "dls lr, {steps}",
            "2:",
            "vldrb.8 q0, [{row}], #16",
            "vldrb.8 q1, [{weights}], #16",
            "vmlava.s8 r0, q1, q0",
            "vldrb.8 q2, [{weights}], #16",
            "vmlava.s8 r2, q2, q0",
            "vldrb.8 q1, [{weights}], #16",
            "vmlava.s8 r4, q1, q0",
            "vldrb.8 q2, [{weights}], #16",
            "vmlava.s8 r8, q2, q0",
            "le lr, 2b",
            steps = in(reg) steps,
            row = inout(reg) row => _,
            weights = inout(reg) weights => _,
            inout("r0") a,
            inout("r2") b,
            inout("r4") c,
            inout("r8") d,
            out("lr") _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
            options(nostack, readonly),
        );
    }
    [a, b, c, d]
}

/// `groups` groups of a tile in w4: sums times multipliers.
///
/// # Safety
/// There are 64 bytes of weights, 4 multipliers and 32 activations for each group, and at least one group.
#[inline(always)]
unsafe fn dense_nibbles(weights: *const u8, multipliers: *const u8, row: *const i8, groups: usize) -> [i32; ROWS] {
    let mut sums = [0i32; ROWS];
    // SAFETY: reads only the ranges that the caller promises and writes `sums`. The sum of a row stays in memory, since
    // four registers are missing.
    unsafe {
        asm!(
            "vmov.i8 q7, #0xf0",
            "dls lr, {groups}",
            "2:",
            "vldrb.8 q0, [{row}], #16",
            "vldrb.8 q1, [{row}], #16",
            ".irp place, 0, 4, 8, 12",
            "vldrb.8 q2, [{weights}], #16",
            "vshl.i8 q3, q2, #4",
            "vmlav.s8 r0, q3, q0",
            "vand q2, q2, q7",
            "ldrsb {multiplier}, [{multipliers}], #1",
            "vmlava.s8 r0, q2, q1",
            "ldr {sum}, [{sums}, #\\place]",
            "asrs r0, r0, #4",
            "mla {sum}, r0, {multiplier}, {sum}",
            "str {sum}, [{sums}, #\\place]",
            ".endr",
            "le lr, 2b",
            groups = in(reg) groups,
            row = inout(reg) row => _,
            weights = inout(reg) weights => _,
            multipliers = inout(reg) multipliers => _,
            sums = in(reg) sums.as_mut_ptr(),
            sum = out(reg) _,
            multiplier = out(reg) _,
            out("r0") _,
            out("lr") _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
            out("d14") _, out("d15") _,
            options(nostack),
        );
    }
    sums
}

/// First index of the four columns of each kept value of a group; shifts of the indices.
const BASE: [u8; 16] = [0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28];
const DOWN: [i8; 16] = [0, 0, 0, 0, -2, -2, -2, -2, -4, -4, -4, -4, -6, -6, -6, -6];

/// Sums of one group of a 2:4 matrix. SIDE: 0 for bytes, 1 for low nibbles and 2 for high ones, both sixteen times too
/// large.
///
/// # Safety
/// There are 64 bytes of weights, 16 of planes and 32 activations.
#[inline(always)]
unsafe fn sparse<const SIDE: usize>(weights: *const u8, planes: *const u8, row: *const i8) -> [i32; ROWS] {
    let (mut a, mut b, mut c, mut d) = (0, 0, 0, 0);
    macro_rules! rows {
        ($($value:literal),*) => {
            // SAFETY: reads only the ranges that the caller promises: two bits select one of four activations. `vmlava` wants even
            // registers.
            unsafe {
                asm!(
                    "vldrb.8 q4, [{base}]",
                    "vldrb.8 q5, [{down}]",
                    "vmov.i8 q6, #3",
                    "vmov.i8 q7, #0xf0",
                    ".irp sum, r0, r2, r4, r8",
                    "ldr {plane}, [{planes}], #4",
                    "vdup.32 q0, {plane}",
                    "vldrb.8 q2, [{weights}], #16",
                    "vshl.u8 q0, q0, q5",
                    $($value,)*
                    "vand q0, q0, q6",
                    "vorr q0, q0, q4",
                    "vldrb.u8 q1, [{row}, q0]",
                    "vmlava.s8 \\sum, q2, q1",
                    ".endr",
                    base = in(reg) BASE.as_ptr(),
                    down = in(reg) DOWN.as_ptr(),
                    plane = out(reg) _,
                    planes = inout(reg) planes => _,
                    weights = inout(reg) weights => _,
                    row = in(reg) row,
                    inout("r0") a,
                    inout("r2") b,
                    inout("r4") c,
                    inout("r8") d,
                    out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d8") _,
                    out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _, out("d14") _, out("d15") _,
                    options(nostack, readonly),
                )
            }
        };
    }
    match SIDE {
        0 => rows!(),
        1 => rows!("vshl.i8 q2, q2, #4"),
        _ => rows!("vand q2, q2, q7"),
    }
    [a, b, c, d]
}

impl TileSums<ROWS> for Helium {
    const THREE: bool = false;

    #[inline(always)]
    fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        // SAFETY: a tile has 128 bytes of values a group, a row 32 activations, and there is a group.
        rows.map(|row| unsafe { dense_bytes(tile.as_ptr(), row.as_ptr(), shape.blocks * BLOCK_COLUMNS / 16) })
    }

    #[inline(always)]
    fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let multipliers = tile[shape.multiplier_offset(0, 0)..].as_ptr();
        // SAFETY: a tile has 64 bytes of values and 4 multipliers a group, a row 32 activations, and there is a group.
        rows.map(|row| unsafe { dense_nibbles(tile.as_ptr(), multipliers, row.as_ptr(), shape.blocks) })
    }

    #[inline(always)]
    fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        rows.map(|row| {
            let mut sums = [0i32; ROWS];
            for group in 0..shape.blocks {
                let planes = shape.value_bytes + group * KEPT / 4 * ROWS;
                // SAFETY: a group has 64 bytes of kept values, 16 of planes and 32 activations.
                let group = unsafe {
                    let (tile, row) = (tile.as_ptr(), row.as_ptr());
                    sparse::<0>(tile.add(group * STEP), tile.add(planes), row.add(group * BLOCK_COLUMNS))
                };
                sums.iter_mut().zip(group).for_each(|(sum, group)| *sum = sum.wrapping_add(group));
            }
            sums
        })
    }

    #[inline(always)]
    fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        rows.map(|row| {
            let mut sums = [0i32; ROWS];
            for group in 0..shape.blocks {
                let planes = shape.value_bytes + group * KEPT / 4 * ROWS;
                // SAFETY: a group has 16 bytes of planes and 32 activations, a pair of groups 64 bytes of values: low
                // nibbles, high nibbles.
                let products = unsafe {
                    let (tile, row) = (tile.as_ptr(), row.as_ptr());
                    let (weights, planes, row) =
                        (tile.add(group / 2 * STEP), tile.add(planes), row.add(group * BLOCK_COLUMNS));
                    match group % 2 {
                        0 => sparse::<1>(weights, planes, row),
                        _ => sparse::<2>(weights, planes, row),
                    }
                };
                let multipliers = &tile[shape.multiplier_offset(0, group)..][..ROWS];
                for ((sum, products), &multiplier) in sums.iter_mut().zip(products).zip(multipliers) {
                    *sum = sum.wrapping_add((products >> 4).wrapping_mul(i32::from(multiplier as i8)));
                }
            }
            sums
        })
    }
}
