//! `slmc doctor`: the abilities of this machine and this build.

use super::kernels::kernels;
use crate::machine::{PORTABLE, cpu_features, numerics_class, read_bandwidth};
use crate::model::device::{BACKENDS, FEATURE_BACKENDS};
use crate::report::{Report, Table};
use serde::Serialize;

/// Larger than the caches of the machines slmc is built on.
const BANDWIDTH_BYTES: usize = 256 << 20;
const BANDWIDTH_ROUNDS: usize = 5;

/// Result of `slmc doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// Version of slmc.
    pub version: &'static str,
    /// `x86_64`, `aarch64`, …
    pub architecture: &'static str,
    /// Extensions that kernels use.
    pub cpu_features: Vec<&'static str>,
    /// Class of f32 results of operations that are not slmc's own.
    pub numerics: &'static str,
    /// Kernels that run artifacts here.
    pub kernel: &'static str,
    /// Threads measured with.
    pub threads: usize,
    /// Bytes per second that all threads read from memory together.
    pub read_bandwidth_bytes_per_s: u64,
    /// Devices of the f32 model, the default first.
    pub devices: Vec<&'static str>,
    /// Devices that this build was made without: the cargo features that bring them.
    pub devices_not_built: Vec<&'static str>,
}

impl Report for DoctorReport {
    const SCHEMA: &'static str = "slmc.doctor/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["slmc", self.version]);
        table.row(["architecture", self.architecture]);
        table.row(["CPU features", &self.cpu_features.join(" ")]);
        table.row(["numerics", &format!("{PORTABLE}; {} where operations are not slmc's own", self.numerics)]);
        table.row(["kernel", self.kernel]);
        let bandwidth = self.read_bandwidth_bytes_per_s as f64 / 1e9;
        table.row(["read bandwidth", &format!("{bandwidth:.1} GB/s with {} threads", self.threads)]);
        table.row(["f32 backends", &format!("{} (default {})", self.devices.join(", "), self.devices[0])]);
        if !self.devices_not_built.is_empty() {
            table.row(["not built", &format!("{} (cargo features)", self.devices_not_built.join(", "))]);
        }
        table.to_string()
    }
}

/// Looks at the machine; `threads` measure bandwidth, by default one per core.
pub fn examine(threads: Option<usize>) -> DoctorReport {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.unwrap_or(cores);
    let built = FEATURE_BACKENDS.into_iter().filter(|(.., there)| *there);
    let not_built = FEATURE_BACKENDS.into_iter().filter(|(.., there)| !there);
    DoctorReport {
        version: env!("CARGO_PKG_VERSION"),
        architecture: std::env::consts::ARCH,
        cpu_features: cpu_features(),
        numerics: numerics_class(),
        kernel: kernels().name,
        threads,
        read_bandwidth_bytes_per_s: read_bandwidth(BANDWIDTH_BYTES, threads, BANDWIDTH_ROUNDS) as u64,
        devices: BACKENDS.into_iter().chain(built.map(|(name, ..)| name)).collect(),
        devices_not_built: not_built.map(|(_, feature, _)| feature).collect(),
    }
}
