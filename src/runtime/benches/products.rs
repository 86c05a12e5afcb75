//! Throughput of products with one token, for every table of this CPU, storage and number of columns: with a matrix in
//! the cache, and with one in memory. Bytes of tiles per second, the best of several rounds.
//!
//!     cargo bench -p slm-runtime --features std --bench products [-- TABLE]
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use memmap2::MmapMut;
use slm_runtime::format::artifact::Matrix;
use slm_runtime::kernels::columns::Columns;
use slm_runtime::kernels::{Activations, Kernels, Width, available};
use slm_runtime::layout::{BLOCK_COLUMNS, Layout, Storage, TileShape};
use std::time::{Duration, Instant};

/// Columns of the two kinds of linears in a model of 1.1 B parameters.
const COLUMNS: [usize; 2] = [2048, 5632];
/// A matrix that fits the L2 cache, and one that fits no cache.
const BYTES: [usize; 2] = [300 << 10, 256 << 20];
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(25);

fn main() {
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let known: Vec<&str> = available().map(|table| table.name).collect();
    assert!(only.as_deref().is_none_or(|name| known.contains(&name)), "the tables of this CPU are {known:?}");
    println!("{:12} {:12} {:>8} {:>14} {:>14}", "storage", "table", "columns", "cache, GB/s", "memory, GB/s");
    for storage in [Storage::W8, Storage::W4G32, Storage::W8S24, Storage::W4G32S24] {
        for columns in COLUMNS {
            for table in available().filter(|table| only.as_ref().is_none_or(|name| name == table.name)) {
                let [cache, memory] = BYTES.map(|bytes| rate(table, storage, columns, bytes) / 1e9);
                println!("{:12} {:12} {columns:8} {cache:14.1} {memory:14.1}", storage.name(), table.name);
            }
        }
    }
}

/// Bytes of a matrix of about `bytes` that a table multiplies per second.
fn rate(table: &Kernels, storage: Storage, columns: usize, bytes: usize) -> f64 {
    let layout = table.layout.unwrap_or(Layout::R8K4Offset8);
    let shape = |rows| TileShape::new(storage, layout, rows, columns).expect("columns are a multiple of 32");
    let tile_rows = layout.rows();
    let rows = (bytes / shape(tile_rows).stride).max(1) * tile_rows;
    let shape = shape(rows);
    let mut tiles = MmapMut::map_anon(shape.bytes()).expect("memory");
    // Without huge pages address translation is measured too; not every system has them.
    #[cfg(target_os = "linux")]
    drop(tiles.advise(memmap2::Advice::HugePage));
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for word in tiles.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    for tile in tiles.chunks_exact_mut(shape.stride) {
        for row in 0..tile_rows {
            tile[shape.scale_offset(row)..][..4].copy_from_slice(&1f32.to_le_bytes());
        }
    }
    let values: Vec<i8> = (0..shape.blocks * BLOCK_COLUMNS).map(|n| ((n * 37 % 255) as i32 - 127) as i8).collect();
    let group_offset = |group: &[i8]| -8 * group.iter().map(|&value| i32::from(value)).sum::<i32>();
    let offsets: Vec<i32> = values.chunks(BLOCK_COLUMNS).map(group_offset).collect();
    let matrix = Matrix { bytes: &tiles, shape, rows, columns, width: Width::Bits8 };
    let input =
        Activations { values: &values, offsets: &offsets, stride: values.len(), scales: &[1.0], width: Width::Bits8 };
    let mut output = vec![0f32; rows];
    let mut best = 0f64;
    for _ in 0..ROUNDS {
        let (start, mut passes) = (Instant::now(), 0);
        while passes == 0 || start.elapsed() < ROUND {
            (table.multiply)(&matrix, &input, 0..shape.tiles, &mut Columns::new(&mut output, rows));
            passes += 1;
        }
        best = best.max((passes * shape.bytes()) as f64 / start.elapsed().as_secs_f64());
    }
    best
}
