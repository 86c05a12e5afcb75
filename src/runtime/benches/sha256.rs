//! Bytes a second of SHA-256, beside the `sha2` crate: with the CPU's instructions where it has them, in one piece and in
//! leaves. The best of several rounds.
//!
//!     cargo bench -p slm-runtime --features std --bench sha256
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use sha2::Digest;
use slm_runtime::format::tree::leaf_digest;
use slm_runtime::sha256::{Sha256, Software};
use std::hint::black_box;
use std::time::Instant;

const BYTES: usize = 64 << 20;
const ROUNDS: usize = 9;

fn main() {
    let bytes: Vec<u8> =
        (0..BYTES / 8).flat_map(|n| slm_runtime::sample::random_u64(1, n as u64).to_le_bytes()).collect();
    assert_eq!(Sha256::digest(&bytes)[..], sha2::Sha256::digest(&bytes)[..], "one of the two is wrong");
    let leaves = |bytes: &[u8], leaf: usize| {
        bytes.chunks(leaf).map(|leaf| leaf_digest(&Software, leaf)).fold(0, |sum, digest| sum ^ digest[0])
    };
    println!("{:24} {:>8}", "", "MB/s");
    println!("{:24} {:8.0}", "slm-runtime", rate(&bytes, |bytes| Sha256::digest(bytes)[0]));
    println!("{:24} {:8.0}", "sha2", rate(&bytes, |bytes| sha2::Sha256::digest(bytes)[0]));
    println!("{:24} {:8.0}", "leaves of 64 KiB", rate(&bytes, |bytes| leaves(bytes, 64 << 10)));
    println!("{:24} {:8.0}", "leaves of 4 KiB", rate(&bytes, |bytes| leaves(bytes, 4 << 10)));
}

/// Megabytes a second, the best of several rounds.
fn rate(bytes: &[u8], hash: impl Fn(&[u8]) -> u8) -> f64 {
    let seconds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        black_box(hash(black_box(bytes)));
        start.elapsed().as_secs_f64()
    });
    bytes.len() as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e6
}
