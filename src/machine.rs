//! The build machine: what its CPU can do, and how fast it reads memory. Recorded where a result depends on it, shown by
//! `slmc doctor`.

use std::hint::black_box;
use std::time::Instant;

/// Name and version of this program, as provenance states them.
pub fn tool() -> String {
    format!("slmc {}", env!("CARGO_PKG_VERSION"))
}

/// Instruction-set extensions of this CPU that kernels use, in a fixed order.
pub fn cpu_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("sse4.1", std::arch::is_x86_feature_detected!("sse4.1")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avxvnni", std::arch::is_x86_feature_detected!("avxvnni")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
            ("avx512vl", std::arch::is_x86_feature_detected!("avx512vl")),
            ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ];
        features.extend(known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name));
    }
    #[cfg(target_arch = "aarch64")]
    {
        let known = [
            ("neon", std::arch::is_aarch64_feature_detected!("neon")),
            ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ];
        features.extend(known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name));
    }
    features
}

/// Bytes read per second by `threads` threads that each sum their own part of a buffer of `bytes`; the best of
/// `rounds` passes, since another program's work only ever slows one down.
pub fn read_bandwidth(bytes: usize, threads: usize, rounds: usize) -> f64 {
    let words = (bytes / 8 / threads.max(1)).max(1);
    let parts: Vec<Vec<u64>> = (0..threads.max(1)).map(|part| vec![part as u64 + 1; words]).collect();
    let mut best = 0.0f64;
    for _ in 0..rounds {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in &parts {
                scope.spawn(move || black_box(part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))));
            }
        });
        best = best.max((words * 8 * parts.len()) as f64 / start.elapsed().as_secs_f64());
    }
    best
}
