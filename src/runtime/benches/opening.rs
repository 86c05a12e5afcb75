//! Seconds to open an artifact: with every digest compared, and signed with every leaf. The best of several rounds, in turns,
//! the file in the page cache. The key is 64 hexadecimal digits of Ed25519.
//!
//!     cargo bench -p slm-runtime --features std,ed25519 --bench opening -- FILE.slm SIGNED.slm KEY
#![expect(clippy::print_stdout, unsafe_code, reason = "a benchmark prints its results and maps its files")]

use memmap2::Mmap;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::trust::{Check, Key, Software, Trust};
use std::fs::File;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [file, signed, key] = &arguments[..] else { panic!("pass FILE.slm SIGNED.slm KEY") };
    let map = |path: &String| {
        let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // SAFETY: nobody changes the files of a benchmark while it runs.
        unsafe { Mmap::map(&file) }.unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let (file, signed) = (map(file), map(signed));
    let digits = |n: usize| u8::from_str_radix(key.get(2 * n..2 * n + 2).unwrap_or_default(), 16).expect("64 digits");
    let key: [u8; 32] = std::array::from_fn(digits);
    let keys = [Key::ed25519(&key)];
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
    let unsigned = || ArtifactView::open(&file).and_then(|view| view.verify_digests()).expect("sound");
    let checked = || {
        black_box(ArtifactView::open_signed(&signed, &trust, Check::Everything).expect("signed by the key"));
    };
    let seconds = |open: &dyn Fn()| {
        let start = Instant::now();
        open();
        start.elapsed().as_secs_f64()
    };
    let (mut plain, mut trusted) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        (plain, trusted) = (plain.min(seconds(&unsigned)), trusted.min(seconds(&checked)));
    }
    println!("{:28} {:>10} {:>10}", "", "bytes", "seconds");
    println!("{:28} {:10} {plain:10.4}", "open, verify_digests", file.len());
    println!("{:28} {:10} {trusted:10.4}", "open_signed, Everything", signed.len());
    println!("{:28} {:>10} {:10.3}", "ratio", "", trusted / plain);
}
