//! The build machine: the features of its CPU, and how fast it reads memory. Recorded where a result depends on it,
//! shown by `slmc doctor`.

pub mod doctor;
pub mod huge_pages;
pub mod kernels;

use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Name and version of this program, as provenance states them.
pub fn tool() -> String {
    format!("slmc {}", env!("CARGO_PKG_VERSION"))
}

/// Whether this program is a released version, whose results are shared by revision; the release's build says so.
pub const RELEASED: bool = option_env!("SLMC_RELEASE").is_some();

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

/// The class of f32 results whose bits are the same on every CPU and for any number of threads: those of `slm-numerics` and
/// `slm-fused` (docs/numerics.md).
pub const PORTABLE: &str = "portable";

/// The class of f32 results of operations that are not slmc's own, on this machine: their bits depend on how wide its
/// vectors are, and on nothing else of it.
pub fn numerics_class() -> &'static str {
    #[cfg(not(target_arch = "x86_64"))]
    let class = if cfg!(target_arch = "aarch64") { "aarch64-neon" } else { std::env::consts::ARCH };
    #[cfg(target_arch = "x86_64")]
    let class = {
        let wide = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512cd")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl");
        let middle = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        match (wide, middle) {
            (true, true) => "x86-64-v4",
            (false, true) => "x86-64-v3",
            _ => "x86-64-v2",
        }
    };
    class
}

/// Bytes per second that `threads` threads together read from `bytes`, each its own part of it, over and over for at
/// least `time`; the best of `rounds`, since another program's work only ever slows one down.
pub fn read_rate(bytes: &[u8], threads: usize, time: Duration, rounds: usize) -> f64 {
    let part = bytes.len().div_ceil(threads.max(1)).next_multiple_of(64).max(64);
    let pass = |passes: usize| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in bytes.chunks(part) {
                scope.spawn(move || {
                    for _ in 0..passes {
                        black_box(pulp::Arch::new().dispatch(SumWords(black_box(part))));
                    }
                });
            }
        });
        start.elapsed().as_secs_f64().max(1e-9)
    };
    // The first pass faults the pages in and says how many passes fill the time.
    pass(1);
    let passes = (time.as_secs_f64() / pass(1)).ceil().max(1.0) as usize;
    let best = (0..rounds.max(1)).map(|_| pass(passes)).fold(f64::INFINITY, f64::min);
    (bytes.len() * passes) as f64 / best
}

/// Sum of 64-bit words, with the widest vectors of this CPU: something that needs every byte, in so few instructions
/// that as many lines of memory are under way as a core can have.
struct SumWords<'b>(&'b [u8]);

impl pulp::NullaryFnOnce for SumWords<'_> {
    type Output = u64;

    // Inlined into a function with the CPU's extensions; a closure need not be.
    #[inline(always)]
    fn call(self) -> u64 {
        self.0.as_chunks().0.iter().fold(0, |sum: u64, &word| sum.wrapping_add(u64::from_le_bytes(word)))
    }
}

/// Bytes per second that `threads` threads read from memory, each its part of a buffer of `bytes`.
pub fn read_bandwidth(bytes: usize, threads: usize, rounds: usize) -> f64 {
    read_rate(&vec![1; bytes], threads, Duration::ZERO, rounds)
}

/// Multiply-accumulates per second that all threads reach in a product of f32 matrices: the best of several of a millisecond
/// or two each, so that other work on the machine does not count for a slow one.
pub fn product_rate() -> f64 {
    /// Rows and columns of the matrices.
    const SIZE: usize = 384;
    /// Time for the measurement.
    const LEAST: Duration = Duration::from_millis(50);
    let (left, right) = (vec![1.0f32; SIZE * SIZE], vec![0.5f32; SIZE * SIZE]);
    let mut out = vec![0.0f32; SIZE * SIZE];
    let mut round = || {
        let start = Instant::now();
        let (left, right) = (Left::Rows(Matrix::new(&left, SIZE)), Right::Rows(Matrix::new(&right, SIZE)));
        multiply(Output::over(&mut out, SIZE), left, right);
        black_box(&out);
        start.elapsed().as_secs_f64().max(1e-9)
    };
    let (start, mut best) = (Instant::now(), round().min(round()));
    while start.elapsed() < LEAST {
        best = best.min(round());
    }
    (SIZE * SIZE * SIZE) as f64 / best
}

/// Memory that is there for new work; `None` where the system does not tell.
pub fn available_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Most memory this process had resident since [`forget_peak_memory`]; `None` where the system does not tell.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Starts counting [`peak_memory_bytes`] from the memory resident now, where the system can.
pub fn forget_peak_memory() {
    // Writing 5 resets the peak (proc_pid_clear_refs, Linux 4.0); elsewhere the peak is that of the whole process.
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open("/proc/self/clear_refs") {
        drop(file.write_all(b"5"));
    }
}
