//! The probabilities of op 3. They begin at the package's priors, anew for every leaf, so that each leaf is decoded by itself.
//! Every group below is a range of one table, in the order in which priors are stored.
//!
//! | group | probability of |
//! |---|---|
//! | [`ValueContexts`], three times | differences of multipliers, of bytes and of nibbles, from their predictions |
//! | [`WordContexts`], twice | differences of 32-bit words: row scales, vectors |
//! | bytes | whether a byte of any other kind changed, and what it became |

/// Classes of how far a prediction is from the integer that it was rounded to.
pub const FRACTIONS: usize = 8;
/// Classes of how much the last values of a row differed.
pub const ACTIVITIES: usize = 6;
/// Magnitudes that have a bit of their own before the escape.
pub const UNARY: usize = 14;
/// Bits of an escape's length.
pub const ESCAPE: usize = 8;

/// Contexts of a small difference.
#[derive(Clone, Copy, Debug)]
pub struct ValueContexts {
    start: usize,
}

impl ValueContexts {
    const COUNT: usize = ACTIVITIES * FRACTIONS + FRACTIONS + ACTIVITIES * UNARY + ESCAPE;

    /// Whether there is a difference.
    pub(super) fn differs(self, activity: usize, fraction: usize) -> usize {
        self.start + activity * FRACTIONS + fraction
    }

    /// Whether it is away from where the prediction was rounded from.
    pub(super) fn away(self, fraction: usize) -> usize {
        self.start + ACTIVITIES * FRACTIONS + fraction
    }

    /// Whether its magnitude is more than `magnitude`, from 1 to [`UNARY`].
    pub(super) fn more(self, activity: usize, magnitude: usize) -> usize {
        self.start + ACTIVITIES * FRACTIONS + FRACTIONS + activity * UNARY + magnitude - 1
    }

    /// Whether the rest of the magnitude has more than `bits` bits.
    pub(super) fn longer(self, bits: usize) -> usize {
        self.start + ACTIVITIES * FRACTIONS + FRACTIONS + ACTIVITIES * UNARY + bits
    }
}

/// Contexts of a difference of 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct WordContexts {
    start: usize,
}

impl WordContexts {
    const COUNT: usize = 64 + 1 + 33 * 4 + 32;

    /// A node of the tree of lengths, 1 to 63.
    pub(super) fn length(self, node: usize) -> usize {
        self.start + node
    }

    /// The sign.
    pub(super) fn negative(self) -> usize {
        self.start + 64
    }

    /// The two bits after the highest of a difference of `length` bits; `node` is 1, then 2 or 3.
    pub(super) fn high(self, length: usize, node: usize) -> usize {
        self.start + 65 + length * 4 + node
    }

    /// A bit below them.
    pub(super) fn low(self, bit: usize) -> usize {
        self.start + 65 + 33 * 4 + bit
    }
}

/// Multipliers of groups.
pub(super) const MULTIPLIERS: ValueContexts = ValueContexts { start: 0 };
/// Values of one byte.
pub(super) const BYTES: ValueContexts = ValueContexts { start: ValueContexts::COUNT };
/// Values of four bits.
pub(super) const NIBBLES: ValueContexts = ValueContexts { start: 2 * ValueContexts::COUNT };
/// Row scales.
pub(super) const SCALES: WordContexts = WordContexts { start: 3 * ValueContexts::COUNT };
/// Values of vectors.
pub(super) const VECTORS: WordContexts = WordContexts { start: SCALES.start + WordContexts::COUNT };
/// Whether a byte changed, by how many of the three before it did.
pub(super) const CHANGED: usize = VECTORS.start + WordContexts::COUNT;
/// The tree of what is added to a byte that changed.
pub(super) const ADDED: usize = CHANGED + 4;

/// The probability of a 0 bit in every context, in 1/65536, two bytes each: as priors are stored, and in any memory.
pub type Probabilities = [[u8; 2]; Contexts::COUNT];

/// The contexts of a leaf.
pub struct Contexts<'m> {
    probabilities: &'m mut Probabilities,
}

impl<'m> Contexts<'m> {
    /// Number of contexts.
    pub const COUNT: usize = ADDED + 256;
    /// Bytes of all of them.
    pub const BYTES: usize = 2 * Contexts::COUNT;
    /// Before anything is known.
    pub const EVEN: Probabilities = [[0, 0x80]; Contexts::COUNT];

    /// Contexts that begin as `probabilities` are.
    pub fn new(probabilities: &'m mut Probabilities) -> Self {
        Contexts { probabilities }
    }

    /// The priors that would have suited these counts of zeros and ones.
    pub fn priors(counts: &[[u32; 2]; Contexts::COUNT]) -> Probabilities {
        counts.map(|[zeros, ones]| {
            let (zeros, ones) = (u64::from(zeros) * 2 + 1, u64::from(ones) * 2 + 1);
            ((zeros * 0xffff / (zeros + ones)) as u16).to_le_bytes()
        })
    }

    pub(super) fn probability(&self, index: usize) -> u16 {
        u16::from_le_bytes(self.probabilities[index])
    }

    pub(super) fn set(&mut self, index: usize, probability: u16) {
        self.probabilities[index] = probability.to_le_bytes();
    }
}
