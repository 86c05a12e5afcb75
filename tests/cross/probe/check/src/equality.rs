//! Every function of a kernel table against the scalar one, bit for bit: all storages and layouts, shapes with tails in
//! rows, columns and tokens, random bytes and the largest sums the format allows. Any bytes are a matrix, so tiles are
//! filled without a packer; row scales alone are made finite. Memory comes from the caller, as on a device.

use core::fmt::Write;

use slm_runtime::format::artifact::Matrix;
use slm_runtime::kernels::{Activations, Kernels, SCALAR};
use slm_runtime::layout::{GROUP, Layout, Storage, TileShape};
use slm_runtime::sample::random_u64;

use crate::Failure;

const STORAGES: [Storage; 4] = [Storage::W8, Storage::W4G32, Storage::W8S24, Storage::W4G32S24];

/// Rows and columns: whole tiles, odd rows, columns that padding fills up, one of everything.
const SHAPES: [(usize, usize); 8] = [(1, 4), (4, 32), (8, 64), (16, 96), (17, 100), (23, 172), (33, 260), (40, 352)];
/// One token, both sides of the blocks kernels work in, and a whole chunk.
const TOKENS: [usize; 8] = [1, 2, 3, 4, 5, 8, 13, 64];
/// Lengths of heads, and tails of them.
const LENGTHS: [usize; 12] = [1, 3, 7, 8, 15, 16, 17, 31, 64, 80, 128, 131];
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
    values: &'m mut [i8],
    tiles: &'m mut [u8],
}

impl<'m> Room<'m> {
    fn new(memory: &'m mut [u8]) -> Self {
        let (floats, rest) = memory.split_at_mut(2 * (OUTPUTS + GUARD) * 4);
        let (values, tiles) = rest.split_at_mut(rest.len() / 4);
        // SAFETY: every bit pattern is an f32 and an i8, and `align_to_mut` keeps to their alignment.
        let (floats, values) = unsafe { (floats.align_to_mut::<f32>(), values.align_to_mut::<i8>().1) };
        assert!(floats.0.is_empty() && (tiles.as_ptr() as usize).is_multiple_of(4), "memory starts on 64 bytes");
        let (expected, actual) = floats.1.split_at_mut(OUTPUTS + GUARD);
        // Tiles stand on 64 bytes in an artifact; kernels may rely on it.
        let start = tiles.as_ptr().align_offset(64);
        Room { expected, actual, values, tiles: &mut tiles[start..] }
    }
}

/// Compares `kernels` with the scalar table and reports how many products were compared.
pub fn compare(out: &mut dyn Write, kernels: &'static Kernels, memory: &mut [u8]) -> Result<(), Failure> {
    let mut room = Room::new(memory);
    let (mut products, mut failures) = (0, 0);
    let mut note = |out: &mut dyn Write, equal: bool, words: core::fmt::Arguments<'_>| -> core::fmt::Result {
        products += 1;
        failures += usize::from(!equal);
        if equal || failures > 20 { Ok(()) } else { writeln!(out, "differs {words}") }
    };
    for layout in Layout::ALL {
        for storage in STORAGES {
            for (number, &(rows, columns)) in SHAPES.iter().enumerate() {
                for fill in [Fill::Random, Fill::Largest, Fill::Alternating] {
                    let count = TOKENS[(number + storage as usize + fill as usize) % TOKENS.len()];
                    for tokens in [1, count] {
                        let equal = multiply(kernels, &mut room, (storage, layout), (rows, columns, tokens), fill);
                        note(
                            out,
                            equal,
                            format_args!("{} {} {rows} x {columns}, {tokens} tokens", layout.name(), storage.name()),
                        )?;
                    }
                }
            }
            let columns = storage.max_columns();
            for fill in [Fill::Largest, Fill::Alternating] {
                let equal = multiply(kernels, &mut room, (storage, layout), (3, columns, 1), fill);
                note(out, equal, format_args!("{} {} 3 x {columns}", layout.name(), storage.name()))?;
            }
        }
    }
    let mut draws = Draws { seed: 5, index: 0 };
    for length in LENGTHS {
        for extreme in [false, true] {
            let (a, b) = room.values[..2 * length].split_at_mut(length);
            a.iter_mut().chain(b.iter_mut()).for_each(|value| *value = if extreme { -127 } else { draws.activation() });
            let equal = (kernels.dot)(a, b) == (SCALAR.dot)(a, b);
            note(out, equal, format_args!("dot of {length}"))?;
            let (mut expected, mut actual) = ([7i32; 131], [7i32; 131]);
            for _ in 0..1024 {
                let weight = if extreme { 16_383 } else { (draws.next() % 16_384) as i32 };
                (SCALAR.accumulate)(weight, a, &mut expected[..length]);
                (kernels.accumulate)(weight, a, &mut actual[..length]);
            }
            note(out, expected == actual, format_args!("accumulate of {length}"))?;
        }
    }
    writeln!(out, "kernel {}", kernels.name)?;
    writeln!(out, "compared {products}")?;
    if failures == 0 { Ok(()) } else { Err(Failure::Kernels(failures)) }
}

/// Whether one product has equal bits and nothing behind its output has changed.
fn multiply(
    kernels: &Kernels,
    room: &mut Room<'_>,
    (storage, layout): (Storage, Layout),
    (rows, columns, tokens): (usize, usize, usize),
    fill: Fill,
) -> bool {
    let seed =
        (storage as u64) << 48 | (layout as u64) << 40 | (rows as u64) << 28 | (columns as u64) << 8 | tokens as u64;
    let mut draws = Draws { seed, index: 0 };
    let shape = TileShape::new(storage, layout, rows, columns).expect("legal shapes");
    let bytes = &mut room.tiles[..shape.bytes()];
    fill_tiles(&shape, bytes, fill, &mut draws);
    let stride = shape.groups * GROUP;
    let values = &mut room.values[..tokens * stride];
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
    let mut scales = [0.0; 64];
    scales[..tokens].iter_mut().for_each(|scale| *scale = draws.scale());
    let matrix = Matrix { bytes, shape, rows, columns };
    let activations = Activations { values, stride, scales: &scales[..tokens] };
    for (table, output) in [(&SCALAR, &mut *room.expected), (kernels, &mut *room.actual)] {
        output.fill(f32::from_bits(SENTINEL));
        (table.multiply)(&matrix, activations, &mut output[..tokens * rows]);
    }
    let bits = |output: &[f32], at: usize| output[at].to_bits();
    (0..OUTPUTS + GUARD).all(|at| {
        bits(room.expected, at) == bits(room.actual, at) && (bits(room.actual, at) == SENTINEL) == (at >= tokens * rows)
    })
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
