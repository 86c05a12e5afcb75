//! Artifacts whose weights lie in storage that cannot be addressed: a card, serial flash without mapping, a file. The device
//! part without the weights and the tensors that the compiler chose ([`crate::format::residency`]) are read into RAM once;
//! the others come through two buffers, piece by piece, each time they are multiplied. The results are the same bits.
//!
//! ```text
//! RAM = image + resident tensors + two buffers + arena and cache of the session + stack
//! image = the device part without its weights: header page, records, tables of text, chunk list
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `storage` | what the caller implements: [`Reader`], or [`Storage`] to read ahead while a layer computes |
//! | `image` | what is read first: its sizes, its checks |
//! | `load` | how it is read, leaf by leaf where there is a chunk list |
//! | `read` | whether all bytes came, and why not |
//! | `pieces` | the two buffers: what is in them, what comes next, the digests of what was read |
//!
//! A piece is as many tiles of one matrix as a buffer holds; of a signed file, with all of every leaf that they are in, so
//! that each leaf is hashed in the buffer before its weights are used.

mod image;
mod load;
mod pieces;
mod read;
mod storage;

pub use image::{OpenError, Sizes, Streamed, sizes};
pub use load::least_buffer;
pub use pieces::Traffic;
pub(crate) use pieces::{Next, Pieces, Source, part};
pub use read::ReadError;
pub use storage::{Fault, Reader, Storage, TwoBuffers};

/// Which bytes are compared with digests; leaves of a file with a chunk list always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The structure alone.
    Structure,
    /// Every tensor too, each time all of it has been read: the resident ones once, streamed ones at every product. Rows
    /// that are looked up are not whole tensors: [`Streamed::verify`] covers them, once.
    Tensors,
}
