//! Operations of a transformer's f32 forward that are computed as one, on burn's flex device, each with its own backward pass:
//! fewer passes over memory than a graph of small ones, and sums in an order that depends neither on threads nor on the width
//! of vectors. Products, sums and elementary functions are those of `slm-numerics`; it is a crate of its own, too, because
//! its loops want one codegen unit.
//!
//! | module | what it is |
//! |---|---|
//! | [`node`] | how an operation enters burn's graph |
//! | [`weights`] | weights shared by all parts of a batch, and the sums of their gradients |
//! | [`linear`], [`norm`], [`activation`], [`attention`], [`convolution`], [`mixture`], [`embedding`] | the operations |
//! | [`head`], [`hidden`], [`relations`] | the losses: of the last product, of hidden states, and of relations |

pub mod activation;
pub mod attention;
pub mod convolution;
#[cfg(test)]
mod digests;
pub mod embedding;
pub mod head;
pub mod hidden;
pub mod linear;
pub mod mixture;
pub mod node;
pub mod norm;
pub mod relations;
pub mod weights;
