//! Every function of a kernel table against the scalar one, bit for bit: all storages and layouts, shapes with tails in
//! rows, columns and tokens, random bytes and the largest sums the format allows. Any bytes are a matrix, so tiles are
//! filled without a packer; row scales alone are made finite. Memory comes from the caller, as on a device.

use core::fmt::{self, Write};

use slm_runtime::format::artifact::Matrix;
use slm_runtime::kernels::columns::Columns;
use slm_runtime::kernels::{Activations, Factors, Kernels, Rows, SCALAR, Sums, Width, available};
use slm_runtime::layout::{BLOCK_COLUMNS, Layout, Storage, TileShape};
use slm_runtime::sample::random_u64;

use crate::Failure;

const STORAGES: [Storage; 4] = [Storage::W8, Storage::W4G32, Storage::W8S24, Storage::W4G32S24];

/// Rows and columns: whole tiles, odd rows, columns that padding fills up, one of everything.
const SHAPES: [(usize, usize); 8] = [(1, 4), (4, 32), (8, 64), (16, 96), (17, 100), (23, 172), (33, 260), (40, 352)];
/// One token, both sides of the blocks kernels work in, and a whole chunk.
const TOKENS: [usize; 8] = [1, 2, 3, 4, 5, 8, 13, 64];
/// Widths of heads, with tails for every vector there is.
const HEADS: [usize; 9] = [1, 4, 8, 15, 16, 24, 64, 80, HEAD];
const HEAD: usize = 128;
/// More than one block of positions.
const POSITIONS: usize = 1100;
/// Room for the largest outputs here.
const OUTPUTS: usize = 64 * 48;
/// f32 behind an output that must stay as they are.
const GUARD: usize = 16;
/// No product here is this.
const SENTINEL: u32 = 0x7fc1_2345;

/// How bytes are chosen.
#[derive(Clone, Copy)]
enum Fill {
    /// Any byte as weight, any value a token can have as activation.
    Random,
    /// The largest magnitudes the format allows, both factors of one sign: sums as large as they get.
    Largest,
    /// The same with signs that alternate by column in the activations.
    Alternating,
}

struct Draws {
    seed: u64,
    index: u64,
}

impl Draws {
    fn next(&mut self) -> u64 {
        self.index += 1;
        random_u64(self.seed, self.index)
    }

    /// A value of a quantized row: never -128; every fourth at one of the ends.
    fn activation(&mut self) -> i8 {
        let draw = self.next();
        if draw >> 62 == 0 { [-127, 127, 0, 1][draw as usize % 4] } else { (draw as i8).max(-127) }
    }

    /// With a full mantissa, between 2^-20 and 2^12.
    fn scale(&mut self) -> f32 {
        let draw = self.next();
        f32::from_bits((107 + (draw >> 32) as u32 % 32) << 23 | draw as u32 & 0x7f_ffff)
    }
}

/// The caller's memory, typed.
struct Room<'m> {
    expected: &'m mut [f32],
    actual: &'m mut [f32],
    scales: &'m mut [f32],
    offsets: &'m mut [i32],
    values: &'m mut [i8],
    tiles: &'m mut [u8],
}

impl<'m> Room<'m> {
    fn new(memory: &'m mut [u8]) -> Self {
        let (floats, rest) = memory.split_at_mut((2 * (OUTPUTS + GUARD) + POSITIONS) * 4);
        let (offsets, rest) = rest.split_at_mut(rest.len() / 64 / 4 * 4);
        let (values, tiles) = rest.split_at_mut(rest.len() / 5);
        // SAFETY: every bit pattern is an f32, an i32 and an i8, and `align_to_mut` keeps to their alignment.
        let (floats, offsets, values) =
            unsafe { (floats.align_to_mut::<f32>(), offsets.align_to_mut::<i32>(), values.align_to_mut::<i8>().1) };
        assert!(floats.0.is_empty() && offsets.0.is_empty(), "memory starts on 64 bytes");
        let (expected, rest) = floats.1.split_at_mut(OUTPUTS + GUARD);
        let (actual, scales) = rest.split_at_mut(OUTPUTS + GUARD);
        // Tiles stand on 64 bytes in an artifact; kernels may rely on it.
        let start = tiles.as_ptr().align_offset(64);
        Room { expected, actual, scales, offsets: offsets.1, values, tiles: &mut tiles[start..] }
    }
}

/// Compares every table this CPU can run with the scalar one, and reports them and how many results were compared. Not
/// inlined: its arrays would count as the stack of sessions.
#[inline(never)]
pub fn compare(out: &mut dyn Write, memory: &mut [u8]) -> Result<(), Failure> {
    let mut room = Room::new(memory);
    let mut tally = Tally { compared: 0, differ: 0 };
    write!(out, "tables")?;
    for kernels in available() {
        write!(out, " {}", kernels.name)?;
    }
    writeln!(out)?;
    for kernels in available() {
        products(out, kernels, &mut room, &mut tally)?;
        attention(out, kernels, &mut room, &mut tally)?;
        rows(out, kernels, &mut room, &mut tally)?;
    }
    writeln!(out, "compared {}", tally.compared)?;
    if tally.differ == 0 { Ok(()) } else { Err(Failure::Kernels(tally.differ)) }
}

struct Tally {
    compared: usize,
    differ: usize,
}

impl Tally {
    /// Counts a result, and says which it is where it differs and is among the first that do.
    fn note(&mut self, out: &mut dyn Write, equal: bool, words: fmt::Arguments<'_>) -> fmt::Result {
        self.compared += 1;
        self.differ += usize::from(!equal);
        if equal || self.differ > 20 { Ok(()) } else { writeln!(out, "differs {words}") }
    }
}

/// Products of every storage in the table's own layout and in one that is not.
fn products(out: &mut dyn Write, kernels: &Kernels, room: &mut Room<'_>, tally: &mut Tally) -> fmt::Result {
    let layouts = Layout::ALL.into_iter().filter(|&layout| kernels.layout.is_none_or(|own| own == layout));
    let foreign = if kernels.layout == Some(Layout::R8K4) { Layout::R4K4 } else { Layout::R8K4 };
    for layout in layouts.chain(kernels.layout.map(|_| foreign)) {
        for storage in STORAGES {
            for (number, &(rows, columns)) in SHAPES.iter().enumerate() {
                for fill in [Fill::Random, Fill::Largest, Fill::Alternating] {
                    let count = TOKENS[(number + storage as usize + fill as usize) % TOKENS.len()];
                    for (tokens, width) in
                        [(1, Width::Bits8), (count, Width::Bits8), (count.div_ceil(2), Width::Bits16)]
                    {
                        let equal = product(kernels, room, (storage, layout, width), (rows, columns, tokens), fill);
                        let words = format_args!(
                            "{} {} {} {rows} x {columns}, {tokens} tokens of {width:?}",
                            kernels.name,
                            layout.name(),
                            storage.name()
                        );
                        tally.note(out, equal, words)?;
                    }
                }
            }
            let columns = storage.max_columns();
            for fill in [Fill::Largest, Fill::Alternating] {
                let equal = product(kernels, room, (storage, layout, Width::Bits8), (3, columns, 1), fill);
                let words = format_args!("{} {} {} 3 x {columns}", kernels.name, layout.name(), storage.name());
                tally.note(out, equal, words)?;
            }
        }
    }
    Ok(())
}

/// Whether one product has equal bits and nothing behind its output has changed.
fn product(
    kernels: &Kernels,
    room: &mut Room<'_>,
    (storage, layout, width): (Storage, Layout, Width),
    (rows, columns, tokens): (usize, usize, usize),
    fill: Fill,
) -> bool {
    let shape_seed = (rows as u64) << 28 | (columns as u64) << 8 | tokens as u64;
    let mut draws = Draws { seed: (storage as u64) << 56 | (layout as u64) << 48 | shape_seed, index: 0 };
    let shape = TileShape::new(storage, layout, rows, columns).expect("legal shapes");
    let bytes = &mut room.tiles[..shape.bytes()];
    fill_tiles(&shape, bytes, fill, &mut draws);
    let stride = shape.blocks * BLOCK_COLUMNS;
    let values = &mut room.values[..tokens * width.planes() * stride];
    for row in values.chunks_exact_mut(stride) {
        row[columns..].fill(0);
        for (column, value) in row[..columns].iter_mut().enumerate() {
            *value = match fill {
                Fill::Random => draws.activation(),
                Fill::Alternating if column % 2 == 1 => 127,
                _ => -127,
            };
        }
    }
    let offsets = &mut room.offsets[..values.len() / BLOCK_COLUMNS];
    for (offset, group) in offsets.iter_mut().zip(values.chunks_exact(BLOCK_COLUMNS)) {
        *offset = -8 * group.iter().map(|&value| i32::from(value)).sum::<i32>();
    }
    let mut scales = [0.0; 64];
    scales[..tokens].iter_mut().for_each(|scale| *scale = draws.scale());
    let matrix = Matrix { bytes, shape, rows, columns, width };
    let input = Activations { values, offsets, stride, scales: &scales[..tokens], width };
    for (table, output) in [(const { &SCALAR }, &mut *room.expected), (kernels, &mut *room.actual)] {
        output.fill(f32::from_bits(SENTINEL));
        let mut columns = Columns::new(&mut output[..tokens * rows], rows);
        // In two parts, as two threads would.
        let half = shape.tiles / 2;
        for tiles in [0..half, half..shape.tiles] {
            (table.multiply)(&matrix, &input, tiles.clone(), &mut columns.part(matrix.rows_of(&tiles)));
        }
    }
    (0..OUTPUTS + GUARD).all(|at| {
        let (expected, actual) = (room.expected[at].to_bits(), room.actual[at].to_bits());
        expected == actual && (actual == SENTINEL) == (at >= tokens * rows)
    })
}

/// Scores and mixes of attention over more positions than one block, heads with and without tails.
fn attention(out: &mut dyn Write, kernels: &Kernels, room: &mut Room<'_>, tally: &mut Tally) -> fmt::Result {
    let mut draws = Draws { seed: 5, index: 0 };
    for width in HEADS {
        for (positions, extreme) in [(1, false), (5, true), (5, false), (1100, true), (1100, false)] {
            let values = &mut room.values[..(positions + 1) * width];
            values.iter_mut().for_each(|value| *value = if extreme { -127 } else { draws.activation() });
            let (query, rows) = values.split_at(width);
            let scales = &mut room.scales[..positions];
            scales.iter_mut().for_each(|scale| *scale = if extreme { 1.0 } else { draws.scale() });
            let rows = Rows { values: rows, scales };
            let scale = draws.scale();
            let mut scores = [[0; POSITIONS]; 2];
            let [expected, actual] = scores.each_mut().map(|scores| &mut scores[..positions]);
            let tops = [
                (SCALAR.scores)(rows, query, scale, expected).to_bits(),
                (kernels.scores)(rows, query, scale, actual).to_bits(),
            ];
            let equal = tops[0] == tops[1] && expected == actual;
            tally.note(out, equal, format_args!("{} scores of {positions} x {width}", kernels.name))?;

            let weights = expected;
            weights.iter_mut().for_each(|weight| *weight = if extreme { 1 << 24 } else { draws.next() as u32 >> 8 });
            let largest = weights.iter().zip(rows.scales).map(|(&weight, &scale)| weight as f32 * scale);
            let ratio = 16_383.0 / largest.fold(0.0, f32::max);
            let factors = Factors { ratio, back: draws.scale() };
            let (mut block, mut total) = ([0; HEAD], [0; HEAD]);
            let mut mixes = [[0.0f32; HEAD]; 2];
            for (table, mix) in [const { &SCALAR }, kernels].into_iter().zip(&mut mixes) {
                let sums = Sums { block: &mut block[..width], total: &mut total[..width] };
                (table.mix)(rows, weights, factors, sums, &mut mix[..width]);
            }
            let equal = mixes[0].map(f32::to_bits) == mixes[1].map(f32::to_bits);
            tally.note(out, equal, format_args!("{} mix of {positions} x {width}", kernels.name))?;
        }
    }
    Ok(())
}

/// Rows to integers of both widths, with padding.
fn rows(out: &mut dyn Write, kernels: &Kernels, room: &mut Room<'_>, tally: &mut Tally) -> fmt::Result {
    let mut draws = Draws { seed: 6, index: 0 };
    for length in [1, 4, 31, 32, 33, 64, 172, 256] {
        let x = &mut room.scales[..length];
        x.iter_mut().for_each(|x| *x = draws.scale() * if draws.next() % 2 == 0 { 1.0 } else { -1.0 });
        let padded = length.next_multiple_of(BLOCK_COLUMNS);
        let mut results = [([1i8; 1024], [1i32; 32]); 2];
        let mut scales = [(0, 0); 2];
        for ((table, (values, sums)), scales) in
            [const { &SCALAR }, kernels].into_iter().zip(&mut results).zip(&mut scales)
        {
            let (narrow, wide) = values.split_at_mut(padded);
            let (narrow_sums, wide_sums) = sums.split_at_mut(padded / BLOCK_COLUMNS);
            let scale = |result: Result<f32, _>| result.map_or(u32::MAX, f32::to_bits);
            scales.0 = scale((table.quantize)(x, narrow, narrow_sums));
            scales.1 =
                scale((table.quantize_a16)(x, &mut wide[..2 * padded], &mut wide_sums[..2 * padded / BLOCK_COLUMNS]));
        }
        let equal = results[0] == results[1] && scales[0] == scales[1];
        tally.note(out, equal, format_args!("{} rows of {length}", kernels.name))?;
    }
    Ok(())
}

fn fill_tiles(shape: &TileShape, bytes: &mut [u8], fill: Fill, draws: &mut Draws) {
    let coded = match (shape.storage.is_nibbles(), shape.layout.nibbles()) {
        (false, _) => 0x81,
        (true, slm_runtime::layout::NibbleCode::TwosComplement) => 0x88,
        (true, slm_runtime::layout::NibbleCode::Offset8) => 0x00,
    };
    for tile in bytes.chunks_exact_mut(shape.stride) {
        match fill {
            Fill::Random => tile.chunks_mut(8).for_each(|part| {
                let draw = draws.next().to_le_bytes();
                part.copy_from_slice(&draw[..part.len()]);
            }),
            _ => {
                tile[..shape.value_bytes].fill(coded);
                // The first and the last of every four.
                tile[shape.value_bytes..][..shape.plane_bytes].fill(0xcc);
                tile[shape.value_bytes + shape.plane_bytes..][..shape.multiplier_bytes].fill(0x81);
            }
        }
        for row in 0..shape.layout.rows() {
            tile[shape.scale_offset(row)..][..4].copy_from_slice(&draws.scale().to_le_bytes());
        }
    }
}
