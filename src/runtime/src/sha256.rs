//! SHA-256 (FIPS 180-4): the digests of artifacts and of the self-test, without another library.
//!
//! | file | contents |
//! |---|---|
//! | `portable` | the compression in plain arithmetic |
//! | `x86`, `aarch64` | the same with the CPU's instructions, where it has them |
//!
//! With the feature `std` the CPU is asked at run time, without it the target features of the build decide, as for
//! [`crate::kernels`]. Hardware beside the CPU, a HASH peripheral, is an [`Engine`].

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

const INITIAL: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

#[rustfmt::skip]
const ROUND: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// A digest.
pub type Digest = [u8; 32];

/// Bytes of a block.
const BLOCK_BYTES: usize = 64;

/// What computes digests: [`Software`], or a device's HASH peripheral.
///
/// Hardware that fails returns zeros, which are the digest of nothing that anyone knows: whatever is compared with them is
/// refused.
pub trait Engine {
    /// The digest of some pieces, one after the other.
    fn digest(&self, pieces: &[&[u8]]) -> Digest;
}

/// [`Sha256`], as an [`Engine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Software;

impl Engine for Software {
    #[inline(never)]
    fn digest(&self, pieces: &[&[u8]]) -> Digest {
        let mut hash = Sha256::new();
        pieces.iter().for_each(|piece| hash.update(piece));
        hash.finish()
    }
}

/// A running hash.
#[derive(Clone)]
pub struct Sha256 {
    state: [u32; 8],
    block: [u8; BLOCK_BYTES],
    /// Bytes of `block` in use.
    filled: usize,
    length_bytes: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Sha256::new()
    }
}

impl Sha256 {
    /// A hash of no bytes yet.
    pub fn new() -> Self {
        Sha256 { state: INITIAL, block: [0; 64], filled: 0, length_bytes: 0 }
    }

    /// The digest of `bytes`.
    pub fn digest(bytes: &[u8]) -> Digest {
        let mut hash = Sha256::new();
        hash.update(bytes);
        hash.finish()
    }

    /// Appends bytes.
    // Called from everywhere, and `finish` calls it: one copy.
    #[inline(never)]
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length_bytes = self.length_bytes.wrapping_add(bytes.len() as u64);
        if self.filled > 0 {
            let take = bytes.len().min(BLOCK_BYTES - self.filled);
            self.block[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled < BLOCK_BYTES {
                return;
            }
            compress(&mut self.state, core::slice::from_ref(&self.block));
            self.filled = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        compress(&mut self.state, blocks);
        self.block[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    /// The digest of all bytes appended.
    pub fn finish(mut self) -> Digest {
        let length_bits = self.length_bytes.wrapping_mul(8);
        let mut padding = [0; BLOCK_BYTES + 8];
        padding[0] = 0x80;
        // To 56 bytes of a block, this one or the next.
        let zeros = 1 + (2 * BLOCK_BYTES - 9 - self.filled) % BLOCK_BYTES;
        padding[zeros..zeros + 8].copy_from_slice(&length_bits.to_be_bytes());
        self.update(&padding[..zeros + 8]);
        let mut out = [0; 32];
        for (bytes, word) in out.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        out
    }
}

/// Appends whole blocks to a state with the best that this CPU has.
#[inline]
fn compress(state: &mut [u32; 8], blocks: &[[u8; BLOCK_BYTES]]) {
    #[cfg(target_arch = "x86_64")]
    if x86::compress(state, blocks) {
        return;
    }
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    if aarch64::compress(state, blocks) {
        return;
    }
    portable::compress(state, blocks);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        assert_eq!(Sha256::digest(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(Sha256::digest(b"")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        // A million times "a", in uneven pieces.
        let mut hash = Sha256::new();
        let piece = [b'a'; 997];
        let mut left = 1_000_000;
        while left > 0 {
            let take = left.min(piece.len());
            hash.update(&piece[..take]);
            left -= take;
        }
        assert_eq!(hash.finish()[..4], [0xcd, 0xc7, 0x6e, 0x5c]);
    }

    /// The CPU's instructions and plain arithmetic, from any state over any number of blocks.
    #[test]
    fn instructions_agree_with_plain_arithmetic() {
        let mut bytes = [0u8; 9 * BLOCK_BYTES];
        for seed in 0..64u64 {
            for (n, byte) in bytes.iter_mut().enumerate() {
                *byte = crate::sample::random_u64(seed, n as u64) as u8;
            }
            let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
            let mut state = INITIAL.map(|word| word.wrapping_mul(seed as u32 | 1));
            let mut plain = state;
            compress(&mut state, &blocks[..seed as usize % 10]);
            portable::compress(&mut plain, &blocks[..seed as usize % 10]);
            assert_eq!(state, plain);
        }
    }

    #[test]
    fn pieces_are_one_text() {
        let text = [7u8; 200];
        for cut in [0, 1, 63, 64, 65, 200] {
            let (first, second) = text.split_at(cut);
            assert_eq!(Software.digest(&[first, &[], second]), Sha256::digest(&text));
        }
    }
}
