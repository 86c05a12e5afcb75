//! The inner loops, as a table of functions per instruction set. The scalar table is complete and is the oracle; every
//! other table replaces entries and must give the same bits.
//!
//! | file | contents |
//! |---|---|
//! | `table` | [`Kernels`], the definition of every entry; [`SCALAR`] |
//! | `activations` | the quantized inputs of a product |
//! | [`columns`] | the columns of a product's output that one call writes |
//! | `vector_storage` | the storages that vector kernels multiply |
//! | `detection` | the tables this CPU can run |
//! | [`scalar`] | every entry in portable code, for every layout |
//! | `tiles` | products for tables that keep the sums of a tile in registers |
//! | `x86` | AVX2, AVX-VNNI, AVX-512 with VNNI |
//! | `aarch64` | dot product and int8 matrix multiply instructions |
//! | `thumb`, `helium` | Arm M-profile: the DSP extension; Helium |
//! | `riscv`, `wasm` | the vector extension 1.0; simd128 |
//! | `root` | the square root instruction |
//! | [`workers`], `pool` | the threads of a session: the caller alone, or a pool (feature `std`) |
//! | `parallel` | work sharing between them |
//!
//! An instruction set is one file (with a folder where it needs several) with a `Kernels` constant that starts from
//! [`SCALAR`] and replaces entries, and a line in [`available`]. Entries are safe functions: one that needs a CPU
//! extension wraps its `#[target_feature]` body, and a table is only returned after the CPU has been checked.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
mod activations;
pub mod columns;
mod detection;
#[cfg(test)]
mod equality;
#[cfg(all(target_arch = "arm", feature = "helium"))]
mod helium;
pub(crate) mod parallel;
#[cfg(any(feature = "std", test))]
pub mod pool;
#[cfg(all(target_arch = "riscv64", target_os = "linux", feature = "std"))]
mod riscv;
pub(crate) mod root;
pub mod scalar;
mod table;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod thumb;
#[cfg(any(
    all(target_arch = "aarch64", target_endian = "little"),
    all(target_arch = "wasm32", target_feature = "simd128"),
    all(target_arch = "arm", feature = "dsp"),
    all(target_arch = "arm", feature = "helium"),
    all(target_arch = "riscv64", target_os = "linux", feature = "std"),
))]
mod tiles;
mod vector_storage;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
pub mod workers;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::{Activations, Width};
pub use detection::{available, best};
pub use table::{Factors, Kernels, LayerNorm, Mix, QuantizeRow, Rows, SCALAR, Sums, Weigh};
pub use vector_storage::VectorStorage;
