//! The block types of GGUF: how the values of a row are stored, one block after the other, and what each stands for.
//! A row is a whole number of blocks. Little-endian throughout; f16 scales are IEEE halves. Products of scales are formed
//! in f32 first, then one multiplication and one addition a value, in the order of ggml, so that values equal its bit for
//! bit. `n` is a stored unsigned integer, `j` the position in the block.
//!
//! | type | values | bytes | fields in order | value |
//! |---|---|---|---|---|
//! | Q4_0 | 32 | 18 | d, qs[16] | d·(n − 8) |
//! | Q4_1 | 32 | 20 | d, m, qs[16] | d·n + m |
//! | Q5_0 | 32 | 22 | d, u32 qh, qs[16] | d·(n − 16), fifth bits in qh |
//! | Q5_1 | 32 | 24 | d, m, u32 qh, qs[16] | d·n + m |
//! | Q8_0 | 32 | 34 | d, i8 qs[32] | d·qs |
//! | IQ4_NL | 32 | 18 | d, qs[16] | d·T\[n\] |
//! | Q2_K | 256 | 84 | sc[16], qs[64], d, dmin | (d·(sc & 15))·n − dmin·(sc >> 4) |
//! | Q3_K | 256 | 110 | hmask[32], qs[64], sc[12], d | (d·(sc − 32))·(n − 4) |
//! | Q4_K | 256 | 144 | d, dmin, sc[12], qs[128] | (d·sc)·n − dmin·min |
//! | Q5_K | 256 | 176 | d, dmin, sc[12], qh[32], qs[128] | likewise |
//! | Q6_K | 256 | 210 | ql[128], qh[64], i8 sc[16], d | (d·sc)·(n − 32) |
//! | IQ4_XS | 256 | 136 | d, u16 sh, sl[4], qs[128] | (d·(ls − 32))·T\[n\] |

use crate::model::integers::{Grid, Unfit};
use half::{bf16, f16};
use std::fmt;

/// Values of a short block.
const SHORT: usize = 32;
/// Values of a K block.
const LONG: usize = 256;
/// Values of a K block that share a scale, in the types without a minimum.
const SUB_BLOCK: usize = 16;

/// The sixteen values of IQ4_NL and IQ4_XS.
const CURVE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// A block type that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are ggml's; the layouts are in the table above")]
pub enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Iq4Nl,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Xs,
}

/// A block type as files state it.
struct BlockDef {
    kind: BlockType,
    /// Its number in a tensor's description.
    id: u32,
    name: &'static str,
    /// Values of a block.
    values: usize,
    /// Bytes of a block.
    bytes: usize,
}

const fn def(kind: BlockType, id: u32, name: &'static str, values: usize, bytes: usize) -> BlockDef {
    BlockDef { kind, id, name, values, bytes }
}

/// Every type that is decoded.
const BLOCKS: [BlockDef; 15] = [
    def(BlockType::F32, 0, "F32", 1, 4),
    def(BlockType::F16, 1, "F16", 1, 2),
    def(BlockType::Bf16, 30, "BF16", 1, 2),
    def(BlockType::Q4_0, 2, "Q4_0", SHORT, 18),
    def(BlockType::Q4_1, 3, "Q4_1", SHORT, 20),
    def(BlockType::Q5_0, 6, "Q5_0", SHORT, 22),
    def(BlockType::Q5_1, 7, "Q5_1", SHORT, 24),
    def(BlockType::Q8_0, 8, "Q8_0", SHORT, 34),
    def(BlockType::Iq4Nl, 20, "IQ4_NL", SHORT, 18),
    def(BlockType::Q2K, 10, "Q2_K", LONG, 84),
    def(BlockType::Q3K, 11, "Q3_K", LONG, 110),
    def(BlockType::Q4K, 12, "Q4_K", LONG, 144),
    def(BlockType::Q5K, 13, "Q5_K", LONG, 176),
    def(BlockType::Q6K, 14, "Q6_K", LONG, 210),
    def(BlockType::Iq4Xs, 23, "IQ4_XS", LONG, 136),
];

/// Types that ggml has and slmc does not decode: codebooks, ternary and microscaling formats, integers.
const OTHERS: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
    (4, "Q4_2, which ggml gave up"),
    (5, "Q4_3, which ggml gave up"),
];

/// How a number that is not decoded is called.
pub(super) fn name_of(id: u32) -> String {
    let known = OTHERS.iter().find(|(number, _)| *number == id);
    known.map_or_else(|| format!("type {id}, which is unknown"), |(_, name)| (*name).to_owned())
}

/// Adds a block's integers to a list, and gives its scale.
pub(super) type ReadIntegers = fn(&[u8], &mut Vec<i8>) -> f32;

impl BlockType {
    /// The type of a number; `None` for one that is not decoded.
    pub fn of(id: u32) -> Option<BlockType> {
        BLOCKS.iter().find(|def| def.id == id).map(|def| def.kind)
    }

    /// Every type.
    pub fn all() -> impl Iterator<Item = BlockType> {
        BLOCKS.iter().map(|def| def.kind)
    }

    /// Its number in a tensor's description.
    pub fn id(self) -> u32 {
        self.def().id
    }

    fn def(self) -> &'static BlockDef {
        const TABLE: &[BlockDef] = &BLOCKS;
        TABLE.iter().find(|def| def.kind == self).unwrap_or(&TABLE[0])
    }

    /// As ggml calls it.
    pub fn name(self) -> &'static str {
        self.def().name
    }

    /// Values of a block.
    pub fn values(self) -> usize {
        self.def().values
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.def().bytes
    }

    /// Bytes of a row of `columns` values; `None` where blocks do not divide it, or for a number that overflows.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.values()) {
            return None;
        }
        (columns / self.values()).checked_mul(self.bytes())
    }

    /// Whether the values are floating-point numbers, one a block.
    pub fn is_float(self) -> bool {
        self.values() == 1
    }

    /// The grid of a row of `columns` values: a scale for every block, or for every sub-block of 16.
    ///
    /// # Errors
    /// A type whose values are not products of an integer and a scale.
    pub(super) fn grid(self, columns: usize) -> Result<Grid, Unfit> {
        let (range, group) = match self {
            BlockType::F32 | BlockType::F16 | BlockType::Bf16 => return Err(Unfit::Floats),
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q2K | BlockType::Q4K | BlockType::Q5K => {
                return Err(Unfit::Minima);
            }
            BlockType::Iq4Nl | BlockType::Iq4Xs => return Err(Unfit::Curve),
            BlockType::Q4_0 => ((-8, 7), SHORT),
            BlockType::Q5_0 => ((-16, 15), SHORT),
            BlockType::Q8_0 => ((-128, 127), SHORT),
            BlockType::Q3K => ((-4, 3), SUB_BLOCK),
            BlockType::Q6K => ((-32, 31), SUB_BLOCK),
        };
        Ok(Grid { range, group: (columns > group).then_some(group), zero_points: false })
    }

    /// How the integers and the scale of a block are read: for types whose values are products of the two, one a block.
    pub(super) fn symmetric(self) -> Option<ReadIntegers> {
        match self {
            BlockType::Q4_0 => Some(|block, out| {
                // Low halves are the first 16 values, high ones the others.
                out.extend(block[2..].iter().map(|byte| (byte & 15).cast_signed() - 8));
                out.extend(block[2..].iter().map(|byte| (byte >> 4).cast_signed() - 8));
                f16::from_le_bytes([block[0], block[1]]).to_f32()
            }),
            BlockType::Q5_0 => Some(|block, out| {
                let high = [block[2], block[3], block[4], block[5]];
                out.extend((0..SHORT).map(|j| five_bits(&block[6..], high, j).cast_signed() - 16));
                f16::from_le_bytes([block[0], block[1]]).to_f32()
            }),
            BlockType::Q8_0 => Some(|block, out| {
                out.extend(block[2..].iter().map(|byte| byte.cast_signed()));
                f16::from_le_bytes([block[0], block[1]]).to_f32()
            }),
            _ => None,
        }
    }

    /// The values of whole blocks: as many as fit in `bytes` and in `out`.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        pulp::Arch::new().dispatch(Decode { kind: self, bytes, out });
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// [`BlockType::decode`], compiled for the CPU's vectors. Multiplication and addition are never fused in Rust, so the bits
/// are the same on all of them.
struct Decode<'a> {
    kind: BlockType,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Decode { kind, bytes, out } = self;
        match kind {
            BlockType::F32 => blocks(bytes, out, |block: &[u8; 4], [value]| *value = f32::from_le_bytes(*block)),
            BlockType::F16 => blocks(bytes, out, |block: &[u8; 2], [value]| *value = half(*block)),
            BlockType::Bf16 => {
                blocks(bytes, out, |block: &[u8; 2], [value]| *value = bf16::from_le_bytes(*block).to_f32());
            }
            BlockType::Q4_0 => blocks(bytes, out, q4_0),
            BlockType::Q4_1 => blocks(bytes, out, q4_1),
            BlockType::Q5_0 => blocks(bytes, out, q5_0),
            BlockType::Q5_1 => blocks(bytes, out, q5_1),
            BlockType::Q8_0 => blocks(bytes, out, q8_0),
            BlockType::Iq4Nl => blocks(bytes, out, iq4_nl),
            BlockType::Q2K => blocks(bytes, out, q2_k),
            BlockType::Q3K => blocks(bytes, out, q3_k),
            BlockType::Q4K => blocks(bytes, out, q4_k),
            BlockType::Q5K => blocks(bytes, out, q5_k),
            BlockType::Q6K => blocks(bytes, out, q6_k),
            BlockType::Iq4Xs => blocks(bytes, out, iq4_xs),
        }
    }
}

#[inline(always)]
fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    for (block, values) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<VALUES>().0) {
        decode(block, values);
    }
}

#[inline(always)]
fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// The half at a byte of a block.
#[inline(always)]
fn half_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> f32 {
    half([block[at], block[at + 1]])
}

/// Low nibbles are the first half of the values.
#[inline(always)]
fn nibble(quants: &[u8], j: usize) -> u8 {
    if j < SHORT / 2 { quants[j] & 15 } else { quants[j - SHORT / 2] >> 4 }
}

#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; SHORT]) {
    let d = half_at(block, 0);
    for (j, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(nibble(&block[2..], j).cast_signed() - 8);
    }
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; SHORT]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(nibble(&block[4..], j)) + m;
    }
}

/// A nibble with its fifth bit, bit j of `high`.
#[inline(always)]
fn five_bits(quants: &[u8], high: [u8; 4], j: usize) -> u8 {
    let fifth = (u32::from_le_bytes(high) >> j & 1) as u8;
    nibble(quants, j) | fifth << 4
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; SHORT]) {
    let (d, high) = (half_at(block, 0), [block[2], block[3], block[4], block[5]]);
    for (j, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(five_bits(&block[6..], high, j).cast_signed() - 16);
    }
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; SHORT]) {
    let (d, m, high) = (half_at(block, 0), half_at(block, 2), [block[4], block[5], block[6], block[7]]);
    for (j, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(five_bits(&block[8..], high, j)) + m;
    }
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; SHORT]) {
    let d = half_at(block, 0);
    for (value, quant) in out.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(quant.cast_signed());
    }
}

#[inline(always)]
fn iq4_nl(block: &[u8; 18], out: &mut [f32; SHORT]) {
    let d = half_at(block, 0);
    for (j, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(CURVE[usize::from(nibble(&block[2..], j))]);
    }
}

/// The sixteen bytes in which the sub-block `s` of sixteen values has its two bits, in Q2_K and Q3_K, and where in them.
#[inline(always)]
fn two_bits(quants: &[u8], s: usize) -> (&[u8], usize) {
    (&quants[32 * (s / 8) + 16 * (s % 2)..][..16], 2 * (s % 8 / 2))
}

#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut [f32; LONG]) {
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (s, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, minimum) = (d * f32::from(block[s] & 15), dmin * f32::from(block[s] >> 4));
        let (quants, shift) = two_bits(&block[16..80], s);
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * f32::from(quant >> shift & 3) - minimum;
        }
    }
}

#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut [f32; LONG]) {
    let (mask, quants, scales, d) = (&block[..32], &block[32..96], &block[96..108], half_at(block, 108));
    for (s, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = scales[s % 8] >> (4 * (s / 8)) & 15;
        let high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
        let scale = d * f32::from((low | high << 4).cast_signed() - 32);
        let (quants, shift) = two_bits(quants, s);
        for ((value, quant), third) in values.iter_mut().zip(quants).zip(&mask[16 * (s % 2)..][..16]) {
            let n = quant >> shift & 3 | (third >> (s / 2) & 1) << 2;
            *value = scale * f32::from(n.cast_signed() - 4);
        }
    }
}

/// Scale and minimum of the sub-block `s` of Q4_K and Q5_K, six bits each.
#[inline(always)]
fn six_bits(scales: &[u8], s: usize) -> (f32, f32) {
    let (scale, minimum) = match s {
        0..4 => (scales[s] & 63, scales[s + 4] & 63),
        _ => (scales[s + 4] & 15 | scales[s - 4] >> 6 << 4, scales[s + 4] >> 4 | scales[s] >> 6 << 4),
    };
    (f32::from(scale), f32::from(minimum))
}

#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; LONG]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (s, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = six_bits(&block[4..16], s);
        let (scale, minimum) = (d * scale, dmin * minimum);
        let quants = &block[16 + 32 * (s / 2)..][..32];
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * f32::from(quant >> (4 * (s % 2)) & 15) - minimum;
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; LONG]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (s, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = six_bits(&block[4..16], s);
        let (scale, minimum) = (d * scale, dmin * minimum);
        let quants = block[48 + 32 * (s / 2)..][..32].iter().zip(&block[16..48]);
        for (value, (quant, high)) in values.iter_mut().zip(quants) {
            let n = quant >> (4 * (s % 2)) & 15 | (high >> s & 1) << 4;
            *value = scale * f32::from(n) - minimum;
        }
    }
}

#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; LONG]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (s, values) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[s].cast_signed());
        // Value j = 16 s + i: its half of 128, its run of 32 in that, and its place in the run.
        let (half, run, place) = (s / 8, s % 8 / 2, 16 * (s % 2));
        let low = &low[64 * half + 32 * (run % 2) + place..][..16];
        let high = &high[32 * half + place..][..16];
        for ((value, low), high) in values.iter_mut().zip(low).zip(high) {
            let n = low >> (4 * (run / 2)) & 15 | (high >> (2 * run) & 3) << 4;
            *value = scale * f32::from(n.cast_signed() - 32);
        }
    }
}

#[inline(always)]
fn iq4_xs(block: &[u8; 136], out: &mut [f32; LONG]) {
    let (d, high) = (half_at(block, 0), u16::from_le_bytes([block[2], block[3]]));
    for (b, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (low, high) = (block[4 + b / 2] >> (4 * (b % 2)) & 15, (high >> (2 * b) & 3) as u8);
        let scale = d * f32::from((low | high << 4).cast_signed() - 32);
        let quants = &block[8 + 16 * b..][..16];
        for (j, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(CURVE[usize::from(nibble(quants, j))]);
        }
    }
}
