//! The inner loops of the build machine: what training, calibration and rounding spend their time in, with the same bits on
//! every CPU and for any number of threads. Sums are made in an order that is written down, by one fused multiply-add a
//! term, and independent results are what threads and vectors share out. It is a crate of its own because its loops want
//! one codegen unit, in which everything they call is in sight.
//!
//! | module | what it is |
//! |---|---|
//! | [`product`] | products of matrices, f32 and f64 |
//! | [`factor`] | Cholesky factors and their inverses, f64 |
//! | [`eigen`] | eigenvectors of symmetric matrices, f64 |
//! | [`lanes`] | sums and elementary functions, f32 |
//! | [`dots`] | products of a vector with sixteen others at once, f32 |
//! | [`doubles`] | sums of exponentials, f64 |
//! | [`rounding`] | weights to integers: scales by search, GPTQ and coordinate descent |
//! | [`scratch`] | memory that is used again |

#[cfg(test)]
mod digests;
pub mod dots;
pub mod doubles;
pub mod eigen;
pub mod factor;
pub mod lanes;
pub mod product;
pub mod rounding;
pub mod scratch;
