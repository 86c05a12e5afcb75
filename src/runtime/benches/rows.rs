//! Cost of products with 1 to 16 and 64 rows of activations, for every table of this CPU and every storage it multiplies:
//! all linears of a model of 1.1 B parameters, one after another and each from memory. Milliseconds, the best of several
//! rounds that go through all numbers of rows, the ratio to one row, and the rows relative to those that take as long as
//! one at the speed of the last. With one thread, the best is that of each piece of a matrix, so that the work of others
//! in between is left out.
//!
//!     cargo bench -p slm-runtime --features std --bench rows [-- [--threads N] [--rounds N] [TABLE|STORAGE ...]]
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use memmap2::MmapMut;
use slm_runtime::format::artifact::Matrix;
use slm_runtime::kernels::columns::Columns;
use slm_runtime::kernels::{Activations, Kernels, Width, available};
use slm_runtime::layout::{BLOCK_COLUMNS, Layout, Storage, TileShape};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// (rows, columns) of a layer's linears.
const LAYER: [(usize, usize); 7] =
    [(2048, 2048), (256, 2048), (256, 2048), (2048, 2048), (5632, 2048), (5632, 2048), (2048, 5632)];
const LAYERS: usize = 22;
/// (rows, columns)
const HEAD: (usize, usize) = (32_000, 2048);
const MOST_COLUMNS: usize = 5632;
/// Rows of activations; the last is a chunk of a prompt.
const ROWS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 64];
const MOST_ROWS: usize = 64;

fn main() {
    let (mut threads, mut rounds, mut only) = (1, 10, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("a number");
        match argument.as_str() {
            "--threads" => threads = number(),
            "--rounds" => rounds = number(),
            other if !other.starts_with('-') => only.push(other.to_owned()),
            _ => {}
        }
    }
    let tables: Vec<&Kernels> = available().filter(|table| table.layout == Some(Layout::R8K4Offset8)).collect();
    let storages = [Storage::W8, Storage::W4G32, Storage::W8S24, Storage::W4G32S24];
    let chosen = |name: &str, of: &[&str]| match only.iter().any(|only| of.contains(&only.as_str())) {
        true => only.iter().any(|only| only == name),
        false => true,
    };
    let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
    for storage in storages.into_iter().filter(|s| chosen(s.name(), &storages.map(Storage::name))) {
        let model = Model::new(storage);
        for table in tables.iter().filter(|table| chosen(table.name, &names)) {
            let best = model.times(table, threads, rounds);
            println!("{} {}, {threads} threads", storage.name(), table.name);
            println!("{:>5} {:>9} {:>7} {:>7}", "rows", "ms", "ratio", "k/r");
            let rate = MOST_ROWS as f64 * best[0].as_secs_f64() / best[ROWS.len() - 1].as_secs_f64();
            for (rows, time) in ROWS.iter().zip(best) {
                let ratio = time.as_secs_f64() / best[0].as_secs_f64();
                println!("{rows:5} {:9.2} {ratio:7.2} {:7.2}", time.as_secs_f64() * 1e3, *rows as f64 / rate);
            }
        }
    }
}

/// The matrices of a model, and inputs of any width.
struct Model {
    bytes: MmapMut,
    /// First byte, rows, columns, shape.
    matrices: Vec<(usize, usize, usize, TileShape)>,
    /// Pieces of work in order: matrix, tiles.
    pieces: Vec<(usize, Range<usize>)>,
}

impl Model {
    fn new(storage: Storage) -> Self {
        let sizes = std::iter::repeat_n(LAYER, LAYERS).flatten().chain([HEAD]);
        let (mut matrices, mut pieces, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (number, (rows, columns)) in sizes.enumerate() {
            let shape = TileShape::new(storage, Layout::R8K4Offset8, rows, columns).expect("a legal shape");
            matrices.push((bytes, rows, columns, shape));
            bytes += shape.bytes();
            // As many pieces as a session shares between two workers.
            let piece = shape.tiles.div_ceil(8).next_multiple_of(2);
            let starts = (0..shape.tiles).step_by(piece);
            pieces.extend(starts.map(|start| (number, start..(start + piece).min(shape.tiles))));
        }
        let mut map = MmapMut::map_anon(bytes).expect("memory");
        // Without huge pages address translation is measured too; not every system has them.
        #[cfg(target_os = "linux")]
        drop(map.advise(memmap2::Advice::HugePage));
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for word in map.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        for (start, _, _, shape) in &matrices {
            for tile in map[*start..][..shape.bytes()].chunks_exact_mut(shape.stride) {
                for row in 0..8 {
                    tile[shape.scale_offset(row)..][..4].copy_from_slice(&1f32.to_le_bytes());
                }
            }
        }
        Model { bytes: map, matrices, pieces }
    }

    /// Best time for each of [`ROWS`]. Of pieces with one thread: two share the memory only while both run.
    fn times(&self, table: &Kernels, threads: usize, rounds: usize) -> [Duration; ROWS.len()] {
        let values: Vec<i8> = (0..MOST_ROWS * MOST_COLUMNS).map(|n| ((n * 37 % 255) as i32 - 127) as i8).collect();
        let group_offset = |group: &[i8]| -8 * group.iter().map(|&value| i32::from(value)).sum::<i32>();
        let offsets: Vec<i32> = values.chunks(BLOCK_COLUMNS).map(group_offset).collect();
        let scales = [1f32; MOST_ROWS];
        let mut best = [Duration::MAX; ROWS.len()];
        let of_pieces: Vec<Vec<AtomicU64>> =
            ROWS.iter().map(|_| self.pieces.iter().map(|_| AtomicU64::new(u64::MAX)).collect()).collect();
        for _ in 0..rounds {
            for (slot, (best, &rows)) in best.iter_mut().zip(&ROWS).enumerate() {
                let next = AtomicUsize::new(0);
                let of_pieces = &of_pieces[slot];
                let work = || {
                    let mut output = vec![0f32; rows * HEAD.0];
                    loop {
                        let piece = next.fetch_add(1, Ordering::Relaxed);
                        let Some((number, tiles)) = self.pieces.get(piece) else { break };
                        let begin = Instant::now();
                        let (start, height, columns, shape) = self.matrices[*number];
                        let bytes = &self.bytes[start..][..shape.bytes()];
                        let matrix = Matrix { bytes, shape, rows: height, columns, width: Width::Bits8 };
                        let input = Activations {
                            values: &values[..rows * columns],
                            offsets: &offsets[..rows * shape.blocks],
                            stride: columns,
                            scales: &scales[..rows],
                            width: Width::Bits8,
                        };
                        let mut columns = Columns::new(&mut output[..rows * height], height);
                        let mut part = columns.part(matrix.rows_of(tiles));
                        (table.multiply)(&matrix, &input, tiles.clone(), &mut part);
                        of_pieces[piece].fetch_min(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    }
                };
                let start = Instant::now();
                std::thread::scope(|scope| {
                    (1..threads).for_each(|_| drop(scope.spawn(work)));
                    work();
                });
                *best = start.elapsed().min(*best);
            }
        }
        if threads == 1 {
            for (best, pieces) in best.iter_mut().zip(&of_pieces) {
                *best = Duration::from_nanos(pieces.iter().map(|piece| piece.load(Ordering::Relaxed)).sum());
            }
        }
        best
    }
}
