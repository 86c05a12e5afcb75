//! One kernel at a time, for a counter of instructions: each unit of work has a name and the numbers that its cost is a
//! sum over, `cost = call + first · a + second · b`. The calls of one run work on buffers of their own, filled beforehand,
//! so that every call sees values such as a model gives, and two runs of different length differ by calls alone.

use core::fmt::Write;
use core::hint::black_box;

use slm_runtime::format::artifact::Matrix;
use slm_runtime::kernels::columns::Columns;
use slm_runtime::kernels::{Activations, Factors, Kernels, Rows, Sums, Width, available, scalar};
use slm_runtime::layout::{BLOCK_COLUMNS, Layout, Storage, TileShape};
use slm_runtime::numerics::{Curve, F32Bytes, Rotary, map_key, map_query};
use slm_runtime::sample::{Sampling, choose, random_u64};

use crate::Failure;

/// Most calls of a run.
const CALLS: usize = 4;
/// Largest row, in values.
const ROW: usize = 1024;
/// Largest head and number of positions.
const HEAD: usize = 64;
const POSITIONS: usize = 64;
/// Bytes for tiles, and for integers.
const TILES: usize = 48 << 10;
const VALUES: usize = 16 << 10;
/// Bytes that [`work`] needs.
pub const BYTES: usize = TILES + VALUES + (3 * CALLS + 1) * ROW * 4 + 4096;

#[derive(Clone, Copy)]
enum Unit {
    /// rows, columns
    Product(Storage, Width, usize, usize),
    /// columns
    Lookup(Storage, usize),
    /// values
    Quantize(Width, usize),
    RmsNorm(usize),
    LayerNorm(usize),
    Activate(usize),
    Gate(usize),
    Add(usize),
    Rotate(usize),
    MapKey(usize),
    MapQuery(usize),
    Choose(usize),
    /// positions, head
    Scores(usize, usize),
    Weights(usize),
    Mix(usize, usize),
}

const STORAGES: [Storage; 4] = [Storage::W8, Storage::W4G32, Storage::W8S24, Storage::W4G32S24];
const SHAPES: [(usize, usize); 4] = [(16, 64), (16, 256), (64, 64), (64, 256)];
const SPANS: [(usize, usize); 5] = [(8, 8), (64, 8), (24, 32), (8, 64), (64, 64)];
const LENGTHS: [usize; 3] = [32, 96, 256];

/// Calls `each` with every unit in order.
fn units(each: &mut dyn FnMut(Unit)) {
    for storage in STORAGES {
        for width in [Width::Bits8, Width::Bits16] {
            SHAPES.into_iter().for_each(|(rows, columns)| each(Unit::Product(storage, width, rows, columns)));
        }
        [64, 256].into_iter().for_each(|columns| each(Unit::Lookup(storage, columns)));
    }
    [8, 32, 64, 256].into_iter().for_each(|length| each(Unit::Quantize(Width::Bits8, length)));
    LENGTHS.into_iter().for_each(|length| each(Unit::Quantize(Width::Bits16, length)));
    let of_rows: [fn(usize) -> Unit; 5] = [Unit::RmsNorm, Unit::LayerNorm, Unit::Activate, Unit::Gate, Unit::Add];
    of_rows.into_iter().for_each(|unit| LENGTHS.into_iter().for_each(|length| each(unit(length))));
    let of_heads: [fn(usize) -> Unit; 3] = [Unit::Rotate, Unit::MapKey, Unit::MapQuery];
    of_heads.into_iter().for_each(|unit| [8, 32, 64].into_iter().for_each(|length| each(unit(length))));
    [256, 1024].into_iter().for_each(|length| each(Unit::Choose(length)));
    SPANS.into_iter().for_each(|(positions, head)| each(Unit::Scores(positions, head)));
    [8, 24, 64].into_iter().for_each(|positions| each(Unit::Weights(positions)));
    SPANS.into_iter().for_each(|(positions, head)| each(Unit::Mix(positions, head)));
}

/// Lists the units: number, name, first and second number.
pub fn list(out: &mut dyn Write) -> Result<(), Failure> {
    let (mut number, mut written) = (0, Ok(()));
    units(&mut |unit| {
        written = written.and_then(|()| {
            write!(out, "{number} ")?;
            describe(out, unit)
        });
        number += 1;
    });
    Ok(written?)
}

fn describe(out: &mut dyn Write, unit: Unit) -> core::fmt::Result {
    let bits = |width| if width == Width::Bits8 { 8 } else { 16 };
    match unit {
        Unit::Product(storage, width, rows, columns) => {
            writeln!(out, "product.{}.a{} {rows} {}", storage.name(), bits(width), rows * columns)
        }
        Unit::Lookup(storage, columns) => writeln!(out, "lookup.{} {columns} 0", storage.name()),
        Unit::Quantize(width, length) => writeln!(out, "quantize.a{} {length} 0", bits(width)),
        Unit::RmsNorm(length) => writeln!(out, "rms_norm {length} 0"),
        Unit::LayerNorm(length) => writeln!(out, "layer_norm {length} 0"),
        Unit::Activate(length) => writeln!(out, "activate {length} 0"),
        Unit::Gate(length) => writeln!(out, "gate {length} 0"),
        Unit::Add(length) => writeln!(out, "add {length} 0"),
        Unit::Rotate(length) => writeln!(out, "rotate {length} 0"),
        Unit::MapKey(length) => writeln!(out, "map_key {length} 0"),
        Unit::MapQuery(length) => writeln!(out, "map_query {length} 0"),
        Unit::Choose(length) => writeln!(out, "choose {length} 0"),
        Unit::Scores(positions, head) => writeln!(out, "scores {positions} {}", positions * head),
        Unit::Weights(positions) => writeln!(out, "weights {positions} 0"),
        Unit::Mix(positions, head) => writeln!(out, "mix {positions} {}", positions * head),
    }
}

/// A value between -1 and 1 by its number.
fn value(number: usize) -> f32 {
    (random_u64(11, number as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// A curve that falls evenly, as large as a sigmoid's.
const POINTS: [u8; Curve::BYTES] = {
    let mut points = [0; Curve::BYTES];
    let mut at = 0;
    while at < Curve::BYTES / 4 {
        let bytes = (((512 - at as i32) << 14) as u32).to_le_bytes();
        let mut byte = 0;
        while byte < 4 {
            points[4 * at + byte] = bytes[byte];
            byte += 1;
        }
        at += 1;
    }
    points
};

/// Runs the unit of a number `calls` times with a table of this CPU, 0 the best. Memory starts on 64 bytes.
pub fn work(out: &mut dyn Write, memory: &mut [u8], table: usize, number: usize, calls: usize) -> Result<(), Failure> {
    let kernels = available().nth(table).ok_or(Failure::Report)?;
    let (mut at, mut chosen) = (0, None);
    units(&mut |unit| {
        chosen = if at == number { Some(unit) } else { chosen };
        at += 1;
    });
    let unit = chosen.ok_or(Failure::Report)?;
    run(kernels, unit, calls.min(CALLS), memory);
    writeln!(out, "kernel {}", kernels.name)?;
    writeln!(out, "layout {}", kernels.layout.unwrap_or(Layout::R8K4Offset8).name())?;
    Ok(())
}

/// Runs every unit with one call and with three, with a mark before each and at the end, at which a counter of instructions
/// says how many there were (`insn_count.c`).
#[inline(never)]
pub fn all(out: &mut dyn Write, memory: &mut [u8], table: usize) -> Result<(), Failure> {
    let kernels = available().nth(table).ok_or(Failure::Report)?;
    writeln!(out, "kernel {}", kernels.name)?;
    writeln!(out, "layout {}", kernels.layout.unwrap_or(Layout::R8K4Offset8).name())?;
    units(&mut |unit| {
        for calls in [1, 3] {
            mark();
            run(kernels, black_box(unit), black_box(calls), memory);
        }
    });
    mark();
    Ok(())
}

/// An instruction that does nothing and that no compiler writes.
#[inline(never)]
pub(crate) fn mark() {
    // SAFETY: a register keeps its value, or nothing happens at all.
    #[cfg(any(target_arch = "aarch64", target_arch = "arm", target_arch = "riscv64"))]
    unsafe {
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("mov x11, x11");
        #[cfg(target_arch = "arm")]
        core::arch::asm!("mov r11, r11");
        #[cfg(target_arch = "riscv64")]
        core::arch::asm!("addi x0, x0, 0x5d");
    }
}

#[inline(never)]
fn run(kernels: &Kernels, unit: Unit, calls: usize, memory: &mut [u8]) {
    let layout = kernels.layout.unwrap_or(Layout::R8K4Offset8);
    let (tiles, rest) = memory[..BYTES].split_at_mut(TILES);
    let (values, rest) = rest.split_at_mut(VALUES);
    // SAFETY: every bit pattern is an i8 and an f32, and `align_to_mut` keeps to their alignment.
    let (values, floats) = unsafe { (values.align_to_mut::<i8>().1, rest.align_to_mut::<f32>().1) };
    for (number, value) in values.iter_mut().enumerate() {
        *value = (random_u64(12, number as u64) as i8).max(-127);
    }
    floats.iter_mut().enumerate().for_each(|(number, float)| *float = value(number));
    let (first, rest) = floats.split_at_mut(CALLS * ROW);
    let (second, rest) = rest.split_at_mut(CALLS * ROW);
    let (third, weights) = rest.split_at_mut(CALLS * ROW);
    let weights = &mut weights[..ROW];
    let bytes = |floats: &[f32]| {
        // SAFETY: any f32 is four bytes, and bytes need no alignment.
        unsafe { core::slice::from_raw_parts(floats.as_ptr().cast::<u8>(), 4 * floats.len()) }
    };
    match unit {
        Unit::Product(storage, width, rows, columns) => {
            let matrix = matrix((storage, layout, width), (rows, columns), tiles);
            let mut offsets = [0; 2 * ROW / BLOCK_COLUMNS];
            let scales = [0.01];
            let planes = width.planes();
            for (offset, group) in offsets.iter_mut().zip(values.chunks_exact(BLOCK_COLUMNS)) {
                *offset = -8 * group.iter().map(|&value| i32::from(value)).sum::<i32>();
            }
            let input = Activations {
                values: &values[..planes * columns],
                offsets: &offsets[..planes * columns / BLOCK_COLUMNS],
                stride: columns,
                scales: &scales,
                width,
            };
            for _ in 0..calls {
                let mut output = Columns::new(&mut first[..rows], rows);
                (black_box(kernels).multiply)(&matrix, &input, 0..matrix.shape.tiles, &mut output);
            }
        }
        Unit::Lookup(storage, columns) => {
            let matrix = matrix((storage, layout, Width::Bits8), (16, columns), tiles);
            (0..calls).for_each(|call| scalar::scaled_row(black_box(&matrix), 3 + call, 1.0, &mut first[..columns]));
        }
        Unit::Quantize(width, length) => {
            let planes = width.planes() * length.next_multiple_of(BLOCK_COLUMNS);
            let entry = if width == Width::Bits8 { kernels.quantize } else { kernels.quantize_a16 };
            let mut offsets = [0; 2 * ROW / BLOCK_COLUMNS];
            // A head's row has no groups to sum.
            let (padded, groups) = if length < 64 { (length, 0) } else { (planes, planes / BLOCK_COLUMNS) };
            let padded = if width == Width::Bits16 { planes } else { padded };
            let groups = if width == Width::Bits16 { planes / BLOCK_COLUMNS } else { groups };
            for row in first.chunks_exact(ROW).take(calls) {
                let _ = black_box(entry(&row[..length], &mut values[..padded], &mut offsets[..groups]));
            }
        }
        Unit::RmsNorm(length) => each_row(first, calls, length, |row| {
            let _ = (kernels.rms_norm)(row, F32Bytes::new(bytes(&weights[..length])), 1e-5);
        }),
        Unit::LayerNorm(length) => each_row(first, calls, length, |row| {
            let weights = F32Bytes::new(bytes(&weights[..length]));
            let _ = (kernels.layer_norm)(row, weights, weights, 1e-5);
        }),
        Unit::Activate(length) => {
            let curve = Curve::new(&POINTS, 5).expect("a sound curve");
            first.iter_mut().for_each(|value| *value *= 6.0);
            each_row(first, calls, length, |row| (kernels.activate)(&curve, row));
        }
        Unit::Gate(length) => {
            let curve = Curve::new(&POINTS, 5).expect("a sound curve");
            first.iter_mut().for_each(|value| *value *= 6.0);
            each_row(first, calls, length, |row| (kernels.gate)(&curve, row, &weights[..length]));
        }
        Unit::Add(length) => each_row(first, calls, length, |row| (kernels.add)(row, &weights[..length])),
        Unit::Rotate(length) => {
            let half = length / 2;
            let (low, high) = (bytes(second), bytes(third));
            let rotary = Rotary {
                low_cos: F32Bytes::new(low),
                low_sin: F32Bytes::new(low),
                high_cos: F32Bytes::new(high),
                high_sin: F32Bytes::new(high),
                half,
            };
            each_row(first, calls, length, |row| (kernels.rotate)(&rotary, row, 40));
        }
        Unit::MapKey(length) => each_row(first, calls, length, |row| {
            let map = F32Bytes::new(bytes(&weights[..length]));
            map_key(row, map, map);
        }),
        Unit::MapQuery(length) => {
            each_row(first, calls, length, |row| map_query(row, F32Bytes::new(bytes(&weights[..length]))));
        }
        Unit::Choose(length) => each_row(first, calls, length, |row| {
            black_box(choose(row, &Sampling::GREEDY, 0, 0));
        }),
        Unit::Scores(positions, head) => {
            let mut scores = [0; POSITIONS];
            let (query, keys) = values.split_at(HEAD);
            second.iter_mut().for_each(|scale| *scale = 0.01);
            let keys = Rows { values: keys, scales: second };
            for _ in 0..calls {
                black_box((kernels.scores)(keys, &query[..head], 0.01, &mut scores[..positions]));
            }
        }
        Unit::Weights(positions) => {
            let mut scores = [[0; POSITIONS]; CALLS];
            // Weights down to 2^-8.
            let spread = |number: usize| value(number) * 4.0 * 32_768.0;
            for (number, score) in scores.as_flattened_mut().iter_mut().enumerate() {
                *score = spread(number).to_bits();
            }
            second.iter_mut().for_each(|scale| *scale = 0.01);
            for scores in scores.iter_mut().take(calls) {
                let top = scores[..positions].iter().map(|&score| f32::from_bits(score)).fold(f32::MIN, f32::max);
                black_box((kernels.weights)(&second[..positions], top, &mut scores[..positions]));
            }
        }
        Unit::Mix(positions, head) => {
            let mut scores = [0; POSITIONS];
            for (number, score) in scores.iter_mut().enumerate() {
                *score = (1 << 24) - (random_u64(13, number as u64) >> 41) as u32;
            }
            second.iter_mut().for_each(|scale| *scale = 0.01);
            let rows = Rows { values, scales: second };
            let ratio = 16_383.0 / (16_777_216.0 * 0.01);
            let factors = Factors { ratio, back: 1e-6 };
            let (mut block, mut total) = ([0; HEAD], [0; HEAD]);
            for _ in 0..calls {
                let sums = Sums { block: &mut block[..head], total: &mut total[..head] };
                (kernels.mix)(rows, &scores[..positions], factors, sums, &mut first[..head]);
            }
        }
    }
    black_box((first, second, third, values));
}

fn each_row(rows: &mut [f32], calls: usize, length: usize, mut each: impl FnMut(&mut [f32])) {
    rows.chunks_exact_mut(ROW).take(calls).for_each(|row| each(black_box(&mut row[..length])));
}

/// A matrix of random bytes with row scales of 0.01.
fn matrix<'t>(
    (storage, layout, width): (Storage, Layout, Width),
    (rows, columns): (usize, usize),
    tiles: &'t mut [u8],
) -> Matrix<'t> {
    let shape = TileShape::new(storage, layout, rows, columns).expect("legal shapes");
    let bytes = &mut tiles[..shape.bytes()];
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = random_u64(14, at as u64) as u8);
    for tile in bytes.chunks_exact_mut(shape.stride) {
        for row in 0..layout.rows() {
            tile[shape.scale_offset(row)..][..4].copy_from_slice(&0.01f32.to_le_bytes());
        }
    }
    Matrix { bytes, shape, rows, columns, width }
}
