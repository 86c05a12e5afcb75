//! The golden vectors: an artifact holds a few prompts and the digest of the logits that the build machine computed for
//! them. Equal digests on the device mean equal bits.

use crate::format::artifact::ArtifactView;
use crate::kernels::Kernels;
use crate::session::{Session, SessionError};
use crate::sha256::{Digest, Sha256};

/// Largest number of tokens of a golden prompt, so that they fit on the stack.
pub const MAX_GOLDEN_TOKENS: usize = 64;

/// SHA-256 of the little-endian f32 output rows of all positions of all golden prompts, in order. `memory` as for
/// [`Session::new`].
pub fn golden_digest(
    artifact: &ArtifactView<'_>,
    kernels: &'static Kernels,
    memory: &mut [u8],
) -> Result<Digest, SessionError> {
    golden_digest_by(&mut Session::new(artifact, kernels, memory)?)
}

/// [`golden_digest`] by a session, which is reset.
pub fn golden_digest_by(session: &mut Session<'_, '_>) -> Result<Digest, SessionError> {
    let artifact = *session.artifact();
    let mut hash = Sha256::new();
    for prompt in artifact.golden_prompts() {
        session.reset();
        // Prompts longer than the buffer are read in pieces, with the same result for a decoder; the writer keeps an
        // encoder's within one piece.
        for piece in prompt.chunks(MAX_GOLDEN_TOKENS * 4) {
            let mut tokens = [0u32; MAX_GOLDEN_TOKENS];
            let mut count = 0;
            for (token, bytes) in tokens.iter_mut().zip(piece.chunks_exact(4)) {
                *token = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                count += 1;
            }
            session.run(&tokens[..count], &mut |_, row| {
                for value in row {
                    hash.update(&value.to_le_bytes());
                }
            })?;
        }
    }
    Ok(hash.finish())
}
