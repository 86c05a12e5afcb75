//! The tables of kernels that this CPU can run.

use super::{Kernels, SCALAR};
use crate::layout::Layout;

/// The tables this CPU can run, best first; the last is [`SCALAR`]. With the feature `std` the CPU is detected at run
/// time; without, the target features of the build decide.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    // One line per table, behind the architecture's `cfg`; each function returns its table if the CPU supports it.
    let tables: &[fn() -> Option<&'static Kernels>] = &[
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        super::aarch64::i8mm,
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        super::aarch64::dotprod,
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        super::helium::helium,
        #[cfg(all(target_arch = "arm", feature = "dsp"))]
        super::thumb::dsp,
        #[cfg(all(target_arch = "riscv64", target_os = "linux", feature = "std"))]
        super::riscv::vector,
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        super::wasm::simd128,
        #[cfg(target_arch = "x86_64")]
        super::x86::avx512_vnni,
        #[cfg(target_arch = "x86_64")]
        super::x86::avx_vnni,
        #[cfg(target_arch = "x86_64")]
        super::x86::avx2,
        || Some(const { &SCALAR }),
    ];
    tables.iter().filter_map(|table| table())
}

/// The best table this CPU can run for artifacts in a layout.
pub fn best(layout: Layout) -> &'static Kernels {
    let fits = |table: &&'static Kernels| table.layout.is_none_or(|own| own == layout);
    available().find(fits).unwrap_or(const { &SCALAR })
}
