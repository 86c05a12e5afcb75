//! An adaptive binary range coder, as in LZMA: with r the range and p the probability of a 0 bit in 1/4096, a 0 bit takes the
//! lower r / 4096 · p of the range and a 1 bit the rest. A probability is 16 bits and moves towards every bit that it coded
//! by 2^−5 of what is left. The decoder holds two 32-bit words and takes one byte at a time.
//!
//! One trait, [`BitCoder`], serves both directions: whoever describes a format describes it once, and cannot disagree with
//! itself. The encoder is for the build machine; firmware that only decodes has no code of it.

use super::contexts::Contexts;

/// How fast probabilities move.
const RATE: u32 = 5;
/// Bits of a probability where it divides the range.
const PRECISION: u32 = 12;
/// Below this the range is widened by a byte.
const LEAST_RANGE: u32 = 1 << 24;

/// One direction of coding: the encoder writes `bit` and returns it, the decoder ignores it and returns the bit that it read.
pub trait BitCoder {
    /// A bit whose probability is that of context `index`.
    fn bit(&mut self, contexts: &mut Contexts<'_>, index: usize, bit: bool) -> bool;

    /// A bit that is 0 as often as 1.
    fn even_bit(&mut self, bit: bool) -> bool;
}

/// The part of the range that belongs to a 0 bit.
fn bound(range: u32, probability: u16) -> u32 {
    let probability = (u32::from(probability) >> (16 - PRECISION)).clamp(1, (1 << PRECISION) - 1);
    (range >> PRECISION) * probability
}

/// The probability after a bit.
fn moved(probability: u16, bit: bool) -> u16 {
    if bit { probability - (probability >> RATE) } else { probability + ((u16::MAX - probability) >> RATE) }
}

/// Reads bits from bytes; after the last byte come zeros, which an encoder leaves out.
pub struct Decoder<I> {
    input: I,
    range: u32,
    code: u32,
}

impl<I: FnMut() -> u8> Decoder<I> {
    /// Starts with the first bytes of `input`.
    pub fn new(mut input: I) -> Self {
        let code = (0..4).fold(0, |code, _| code << 8 | u32::from(input()));
        Decoder { input, range: u32::MAX, code }
    }

    fn take(&mut self, bit: bool, bound: u32) -> bool {
        if bit {
            self.code = self.code.wrapping_sub(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        while self.range < LEAST_RANGE {
            self.range <<= 8;
            self.code = self.code << 8 | u32::from((self.input)());
        }
        bit
    }
}

impl<I: FnMut() -> u8> BitCoder for Decoder<I> {
    fn bit(&mut self, contexts: &mut Contexts<'_>, index: usize, _: bool) -> bool {
        let probability = contexts.probability(index);
        let bound = bound(self.range, probability);
        let bit = self.code >= bound;
        contexts.set(index, moved(probability, bit));
        self.take(bit, bound)
    }

    fn even_bit(&mut self, _: bool) -> bool {
        let bound = self.range >> 1;
        self.take(self.code >= bound, bound)
    }
}

/// Writes bits as bytes.
pub struct Encoder<O> {
    output: O,
    low: u64,
    range: u32,
    /// The last byte that a carry can still change, and how many bytes 0xff follow it.
    pending: Option<u8>,
    full_bytes: u64,
}

impl<O: FnMut(u8)> Encoder<O> {
    /// Starts writing to `output`.
    pub fn new(output: O) -> Self {
        Encoder { output, low: 0, range: u32::MAX, pending: None, full_bytes: 0 }
    }

    /// Writes what is left. Zeros at the end of the output may be cut off.
    pub fn finish(mut self) {
        // The value in the range with the most zeros at its end.
        let end = self.low + u64::from(self.range) - 1;
        for zeros in (0..32).rev() {
            let value = end >> zeros << zeros;
            if value >= self.low {
                self.low = value;
                break;
            }
        }
        for _ in 0..5 {
            self.shift();
        }
    }

    fn put(&mut self, bit: bool, bound: u32) -> bool {
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        while self.range < LEAST_RANGE {
            self.range <<= 8;
            self.shift();
        }
        bit
    }

    /// Moves the top byte of the lower end out, once no carry can change it.
    fn shift(&mut self) {
        let carry = (self.low >> 32) as u8;
        let top = (self.low >> 24) as u8;
        if carry == 1 || top != 0xff {
            if let Some(byte) = self.pending {
                (self.output)(byte.wrapping_add(carry));
            }
            for _ in 0..self.full_bytes {
                (self.output)(0xff_u8.wrapping_add(carry));
            }
            self.full_bytes = 0;
            self.pending = Some(top);
        } else {
            self.full_bytes += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }
}

impl<O: FnMut(u8)> BitCoder for Encoder<O> {
    fn bit(&mut self, contexts: &mut Contexts<'_>, index: usize, bit: bool) -> bool {
        let probability = contexts.probability(index);
        let bound = bound(self.range, probability);
        contexts.set(index, moved(probability, bit));
        self.put(bit, bound)
    }

    fn even_bit(&mut self, bit: bool) -> bool {
        let bound = self.range >> 1;
        self.put(bit, bound)
    }
}

/// Counts the bits of every context and writes nothing: what priors are made of.
pub struct Tally<'t> {
    /// Zeros and ones of each context.
    pub counts: &'t mut [[u32; 2]; Contexts::COUNT],
}

impl BitCoder for Tally<'_> {
    fn bit(&mut self, _: &mut Contexts<'_>, index: usize, bit: bool) -> bool {
        let count = &mut self.counts[index][usize::from(bit)];
        *count = count.saturating_add(1);
        bit
    }

    fn even_bit(&mut self, bit: bool) -> bool {
        bit
    }
}
