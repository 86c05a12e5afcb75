//! RISC-V with the vector extension 1.0 and vectors of at least 128 bits, layout r16k1.2c: one column of 16 rows is a
//! vector of bytes, multiplied by one activation. A group of nibbles is summed in 16 bits. For 2:4 matrices each row
//! gathers its activation from 16. One token at a time: the weights are read again for each.
//!
//! Loops are assembly, since Rust has no vectors for this target.

#![expect(unsafe_code, reason = "instructions; bounds are those that `tiles::multiply` checks")]

use super::columns::Columns;
use super::tiles::{self, TileSums};
use super::{Activations, Kernels, SCALAR, scalar};
use crate::format::artifact::Matrix;
use crate::layout::{BLOCK_COLUMNS, KEPT, Layout, TileShape};
use core::arch::asm;
use core::ops::Range;

/// The table of the vector extension where the Linux kernel reports that the CPU has it.
pub(super) fn vector() -> Option<&'static Kernels> {
    /// `AT_HWCAP`: a bit for each single-letter extension.
    const CAPABILITIES: u64 = 16;
    const VECTOR: u64 = 1 << (b'v' - b'a');
    unsafe extern "C" {
        fn getauxval(kind: u64) -> u64;
    }
    // SAFETY: a function of every Linux C library, without preconditions.
    let capabilities = unsafe { getauxval(CAPABILITIES) };
    (capabilities & VECTOR != 0).then_some(const { &RVV })
}

const RVV: Kernels = Kernels { name: "rvv", layout: Some(Layout::R16K1), multiply, ..SCALAR };

fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, output: &mut Columns<'_>) {
    match matrix.shape.layout {
        Layout::R16K1 => tiles::multiply::<ROWS, Vector>(matrix, input, tiles, output),
        _ => scalar::multiply(matrix, input, tiles, output),
    }
}

const ROWS: usize = 16;

struct Vector;

/// Sums of a tile in w8: v8 to v11 hold 16 sums of 32 bits, v4 and v5 the weights of a column widened to 16.
///
/// # Safety
/// There are 512 bytes of weights and 32 activations for each group, and at least one group.
#[inline(always)]
unsafe fn dense_bytes(weights: *const u8, row: *const i8, groups: usize) -> [i32; ROWS] {
    let mut sums = [0; ROWS];
    // SAFETY: reads only the ranges that the caller promises and writes `sums`.
    unsafe {
        asm!(
            ".option push",
            ".option arch, +v",
            "vsetivli zero, 16, e32, m4, ta, ma",
            "vmv.v.i v8, 0",
            "vsetivli zero, 16, e16, m2, ta, ma",
            "2:",
            ".irp column, 0, 1, 2, 3, 4, 5, 6, 7",
            "vle8.v v2, ({weights})",
            "lb {value}, \\column({row})",
            "vsext.vf2 v4, v2",
            "addi {weights}, {weights}, 16",
            "vwmacc.vx v8, {value}, v4",
            ".endr",
            "addi {row}, {row}, 8",
            "addi {eights}, {eights}, -1",
            "bnez {eights}, 2b",
            "vsetivli zero, 16, e32, m4, ta, ma",
            "vse32.v v8, ({sums})",
            ".option pop",
            weights = inout(reg) weights => _,
            row = inout(reg) row => _,
            eights = inout(reg) groups * (BLOCK_COLUMNS / 8) => _,
            sums = in(reg) sums.as_mut_ptr(),
            value = out(reg) _,
            out("v2") _, out("v4") _, out("v5") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            options(nostack),
        );
    }
    sums
}

/// Sums times multipliers of a tile in w4: v4 and v5 hold the 16-bit sums of a group, v8 to v11 those of 32 bits.
///
/// # Safety
/// There are 256 bytes of weights, 16 multipliers and 32 activations for each group, and at least one group.
#[inline(always)]
unsafe fn dense_nibbles(weights: *const u8, multipliers: *const u8, row: *const i8, groups: usize) -> [i32; ROWS] {
    let mut sums = [0; ROWS];
    // SAFETY: reads only the ranges that the caller promises and writes `sums`.
    unsafe {
        asm!(
            ".option push",
            ".option arch, +v",
            "vsetivli zero, 16, e32, m4, ta, ma",
            "vmv.v.i v8, 0",
            "2:",
            "vsetivli zero, 16, e16, m2, ta, ma",
            "vmv.v.i v4, 0",
            "vsetivli zero, 16, e8, m1, ta, ma",
            ".irp column, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            "vle8.v v2, ({weights})",
            "lb {low}, \\column({row})",
            "lb {high}, \\column+16({row})",
            "addi {weights}, {weights}, 16",
            "vsll.vi v3, v2, 4",
            "vsra.vi v2, v2, 4",
            "vsra.vi v3, v3, 4",
            "vwmacc.vx v4, {high}, v2",
            "vwmacc.vx v4, {low}, v3",
            ".endr",
            "vsetivli zero, 16, e16, m2, ta, ma",
            "vle8.v v2, ({multipliers})",
            "addi {multipliers}, {multipliers}, 16",
            "vsext.vf2 v6, v2",
            "addi {row}, {row}, 32",
            "vwmacc.vv v8, v4, v6",
            "addi {groups}, {groups}, -1",
            "bnez {groups}, 2b",
            "vsetivli zero, 16, e32, m4, ta, ma",
            "vse32.v v8, ({sums})",
            ".option pop",
            weights = inout(reg) weights => _,
            multipliers = inout(reg) multipliers => _,
            row = inout(reg) row => _,
            groups = inout(reg) groups => _,
            sums = in(reg) sums.as_mut_ptr(),
            low = out(reg) _,
            high = out(reg) _,
            out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            options(nostack),
        );
    }
    sums
}

/// Adds one group of a 2:4 matrix to sums. SIDE: 0 for bytes, 1 for low nibbles and 2 for high ones, with multipliers.
/// v16 and v17 hold the group's 32 activations, v1 a plane (four kept columns), v4 and v5 16-bit sums: of two byte
/// products, which fit, or of all nibble products.
///
/// # Safety
/// There are 256 bytes of weights, 64 of planes, 32 activations and, for nibbles, 16 multipliers.
#[inline(always)]
unsafe fn sparse<const SIDE: usize>(
    sums: &mut [i32; ROWS],
    weights: *const u8,
    planes: *const u8,
    row: *const i8,
    multipliers: *const u8,
) {
    macro_rules! group {
        ($first:literal, [$($value:literal),*], [$($join:literal),*], [$($end:literal),*]) => {
            // SAFETY: reads only the ranges that the caller promises and adds to `sums`.
            unsafe {
                asm!(
                    ".option push",
                    ".option arch, +v",
                    "vsetivli zero, 16, e32, m4, ta, ma",
                    "vle32.v v8, ({sums})",
                    "vsetivli zero, 16, e16, m2, ta, ma",
                    "vmv.v.i v4, 0",
                    "vsetivli zero, 16, e8, m1, ta, ma",
                    "vle8.v v16, ({row})",
                    "addi {row}, {row}, 16",
                    "vle8.v v17, ({row})",
                    // Eight kept columns of each half of the activations: two planes, two columns for each four.
                    ".irp table, v16, v17",
                    ".irp four, 0, 8",
                    "vle8.v v1, ({planes})",
                    "addi {planes}, {planes}, 16",
                    ".irp two, 0, 4",
                    "vsrl.vi v3, v1, \\two",
                    "vand.vi v3, v3, 3",
                    "vadd.vi v3, v3, \\four+\\two",
                    "vrgather.vv v6, \\table, v3",
                    "vle8.v v2, ({weights})",
                    "addi {weights}, {weights}, 16",
                    $($value,)*
                    $first,
                    "vsrl.vi v3, v1, \\two+2",
                    "vand.vi v3, v3, 3",
                    "vadd.vi v3, v3, \\four+\\two",
                    "vrgather.vv v6, \\table, v3",
                    "vle8.v v2, ({weights})",
                    "addi {weights}, {weights}, 16",
                    $($value,)*
                    "vwmacc.vv v4, v2, v6",
                    $($join,)*
                    ".endr",
                    ".endr",
                    ".endr",
                    $($end,)*
                    "vsetivli zero, 16, e32, m4, ta, ma",
                    "vse32.v v8, ({sums})",
                    ".option pop",
                    weights = inout(reg) weights => _,
                    planes = inout(reg) planes => _,
                    row = inout(reg) row => _,
                    multipliers = inout(reg) multipliers => _,
                    sums = in(reg) sums.as_mut_ptr(),
                    out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v16") _, out("v17") _,
                    options(nostack),
                )
            }
        };
    }
    match SIDE {
        0 => group!(
            "vwmul.vv v4, v2, v6",
            [],
            ["vsetivli zero, 16, e16, m2, ta, ma", "vwadd.wv v8, v8, v4", "vsetivli zero, 16, e8, m1, ta, ma"],
            ["mv {multipliers}, {multipliers}"]
        ),
        1 => group!(
            "vwmacc.vv v4, v2, v6",
            ["vsll.vi v2, v2, 4", "vsra.vi v2, v2, 4"],
            [],
            [
                "vsetivli zero, 16, e16, m2, ta, ma",
                "vle8.v v2, ({multipliers})",
                "vsext.vf2 v6, v2",
                "vwmacc.vv v8, v4, v6"
            ]
        ),
        _ => group!(
            "vwmacc.vv v4, v2, v6",
            ["vsra.vi v2, v2, 4"],
            [],
            [
                "vsetivli zero, 16, e16, m2, ta, ma",
                "vle8.v v2, ({multipliers})",
                "vsext.vf2 v6, v2",
                "vwmacc.vv v8, v4, v6"
            ]
        ),
    }
}

impl TileSums<ROWS> for Vector {
    const THREE: bool = false;

    #[inline(always)]
    fn w8<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        // SAFETY: a tile has 512 bytes of values a group, a row 32 activations, and there is a group.
        rows.map(|row| unsafe { dense_bytes(tile.as_ptr(), row.as_ptr(), shape.blocks) })
    }

    #[inline(always)]
    fn w4<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        let multipliers = tile[shape.multiplier_offset(0, 0)..].as_ptr();
        // SAFETY: a tile has 256 bytes of values and 16 multipliers a group, a row 32 activations, and there is a group.
        rows.map(|row| unsafe { dense_nibbles(tile.as_ptr(), multipliers, row.as_ptr(), shape.blocks) })
    }

    #[inline(always)]
    fn w8_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        rows.map(|row| {
            let mut sums = [0; ROWS];
            for group in 0..shape.blocks {
                let weights = tile[group * KEPT * ROWS..].as_ptr();
                let planes = tile[shape.value_bytes + group * KEPT / 4 * ROWS..].as_ptr();
                // SAFETY: a group has 256 bytes of kept values, 64 of planes and 32 activations.
                unsafe { sparse::<0>(&mut sums, weights, planes, row[group * BLOCK_COLUMNS..].as_ptr(), weights) }
            }
            sums
        })
    }

    #[inline(always)]
    fn w4_sparse<const M: usize>(shape: &TileShape, tile: &[u8], rows: [&[i8]; M]) -> [[i32; ROWS]; M] {
        rows.map(|row| {
            let mut sums = [0; ROWS];
            for group in 0..shape.blocks {
                let weights = tile[group / 2 * KEPT * ROWS..].as_ptr();
                let planes = tile[shape.value_bytes + group * KEPT / 4 * ROWS..].as_ptr();
                let multipliers = tile[shape.multiplier_offset(0, group)..].as_ptr();
                let row = row[group * BLOCK_COLUMNS..].as_ptr();
                // SAFETY: a group has 64 bytes of planes, 16 multipliers and 32 activations, a pair of groups 256 bytes of
                // values: low nibbles, high nibbles.
                unsafe {
                    match group % 2 {
                        0 => sparse::<1>(&mut sums, weights, planes, row, multipliers),
                        _ => sparse::<2>(&mut sums, weights, planes, row, multipliers),
                    }
                }
            }
            sums
        })
    }
}
