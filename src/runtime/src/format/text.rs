//! The text section: the tokenizer of the device. One record, then tables without separators or alignment, read in
//! place; docs/format.md lists them. The compiler derives the tables from a tokenizer.json and includes exactly the
//! characters and merges that this tokenizer needs.

use super::record::record;

/// Largest number of splitting steps.
pub const MAX_STEPS: u32 = 4;
/// Largest number of special tokens before a text, and after it.
pub const MAX_SPECIALS: u32 = 16;
/// Largest number of bytes of each of the three strings of the section.
pub const MAX_STRING: u32 = 64;
/// Largest number of bytes or symbols of normalised text per byte of text.
pub const MAX_GROWTH: u32 = 64;
/// Bytes of a class run: its first character in the low 21 bits, the class in the high 3.
pub const CLASS_BYTES: usize = 3;
/// Bytes of an element: a character in the low 21 bits and [`ELEMENT_LAST`].
pub const ELEMENT_BYTES: usize = 3;
/// Bytes of a composition: first, second and composed character.
pub const COMPOSITION_BYTES: usize = 9;
/// Flag of an added token: white space before it belongs to it.
pub const STRIP_LEFT: u8 = 1;
/// Flag of an added token: white space after it belongs to it.
pub const STRIP_RIGHT: u8 = 2;

record! {
    /// The kind of tokenizer, and the number of entries of each table.
    TextRecord: 128 bytes {
        /// A [`TokenModel`].
        model: u8,
        /// 1 symbols are characters, 2 bytes.
        symbols: u8,
        /// 1 where a character without a token becomes its bytes' tokens.
        byte_fallback: u8,
        /// 1 where neighbouring unknown characters are one unknown token.
        fuse_unknown: u8,
        /// 1 where a word that is a token is not split.
        whole_words: u8,
        /// Where the prefix goes: 0 nowhere, 1 before every piece, 2 before a piece at the start of the text.
        prefix: u8,
        /// 1 where characters are composed after they were decomposed.
        compose: u8,
        /// Bytes of an id or a rank in the tables: 2, 3 or 4.
        id_bytes: u8,
        /// Token of text that no token covers, or [`NONE`](super::spec::NONE).
        unknown: u32,
        /// Characters of the longest word that is split into word pieces.
        longest_word: u32,
        /// A merge of rank r gives token `merged_from` + r; [`NONE`](super::spec::NONE) where every merge states its
        /// token.
        merged_from: u32,
        /// Bytes of normalised text per byte of text, at most.
        text_growth: u32,
        /// Symbols per byte of text, at most.
        symbol_growth: u32,
        /// Symbols of the text prepended to a piece.
        symbol_extra: u32,
        /// Special tokens before a text.
        before: u32,
        /// Special tokens after a text.
        after: u32,
        /// Bytes prepended to every piece in normalisation.
        prepend_bytes: u32,
        /// Bytes prepended to a piece that does not begin with them.
        prefix_bytes: u32,
        /// Bytes before a word piece that continues a word.
        continuation_bytes: u32,
        /// [`StepRecord`]s.
        steps: u32,
        /// Runs of characters of one class.
        classes: u32,
        /// [`MapRecord`]s.
        maps: u32,
        /// Characters of decompositions.
        elements: u32,
        /// Pairs of characters that compose.
        compositions: u32,
        /// Added tokens that are matched in the raw text.
        raw_tokens: u32,
        /// Bytes of their spellings.
        raw_bytes: u32,
        /// Added tokens that are matched in normalised text.
        normalized_tokens: u32,
        /// Bytes of their spellings.
        normalized_bytes: u32,
        /// Tokens with a spelling.
        spellings: u32,
        /// Bytes of their spellings.
        spelling_bytes: u32,
        /// Pairs of tokens that merge.
        merges: u32,
        /// [`class`] bits of each class of the class table.
        palette: [u8; 8],
        /// Zero.
        reserved: [u8; 20],
    }
}

record! {
    /// One step of splitting a piece of text into words; each splits the pieces of the previous one.
    StepRecord: 8 bytes {
        /// A [`Step`].
        kind: u8,
        /// A [`Behavior`], where the step splits at single characters; else 0.
        behavior: u8,
        /// [`class`] bits, where the step splits at classes.
        classes: u8,
        /// Zero.
        reserved: u8,
        /// The character, or the most digits together.
        value: u32,
    }
}

record! {
    /// The replacement of characters from one on, up to the next record's.
    MapRecord: 8 bytes {
        /// The first character in the low 24 bits, a [`MapAction`] above.
        first: u32,
        /// The action's operand.
        value: u32,
    }
}

/// Bits of the classes of a character.
pub mod class {
    /// `\p{L}`.
    pub const LETTER: u8 = 1;
    /// `\p{N}`.
    pub const NUMBER: u8 = 2;
    /// `\s`.
    pub const SPACE: u8 = 4;
    /// Punctuation as BERT defines it.
    pub const PUNCTUATION: u8 = 8;
    /// Numbers as Rust defines them.
    pub const NUMERIC: u8 = 16;
}

/// Tokenization of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TokenModel {
    /// Byte-pair encoding: the pair of lowest rank merges first.
    Merges = 1,
    /// WordPiece: the longest piece first.
    WordPieces = 2,
}

/// A kind of splitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// GPT-2's expression.
    Gpt2 = 1,
    /// Llama 3's and Qwen's expression; `value` digits together.
    Llama3 = 2,
    /// Every character of some classes is a delimiter.
    Classes = 3,
    /// Every occurrence of a character is a delimiter.
    Character = 4,
}

impl Step {
    /// The step with a number.
    pub fn from_number(number: u8) -> Option<Step> {
        [Step::Gpt2, Step::Llama3, Step::Classes, Step::Character].into_iter().find(|&step| step as u8 == number)
    }
}

/// The treatment of delimiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behavior {
    /// They are removed.
    Removed = 1,
    /// Each is a piece.
    Isolated = 2,
    /// Neighbouring ones are one piece.
    Contiguous = 3,
    /// Each ends the piece before it.
    MergedWithPrevious = 4,
    /// Each begins the piece after it.
    MergedWithNext = 5,
}

impl Behavior {
    /// The behaviour with a number.
    pub fn from_number(number: u8) -> Option<Behavior> {
        use Behavior as B;
        [B::Removed, B::Isolated, B::Contiguous, B::MergedWithPrevious, B::MergedWithNext]
            .into_iter()
            .find(|&behavior| behavior as u8 == number)
    }
}

/// The replacement of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MapAction {
    /// It is kept.
    Keep = 0,
    /// It is removed.
    Drop = 1,
    /// It is removed, and separates the marks before it from those after it in reordering.
    Break = 2,
    /// It becomes the character `value`.
    Single = 3,
    /// `value` is added to it, modulo 2^32.
    Shift = 4,
    /// Every second one, from the first on, becomes the next character.
    Alternate = 5,
    /// It becomes the elements from `value` on, up to one with [`ELEMENT_LAST`].
    Elements = 6,
    /// It becomes ` value `, with a space on both sides; `value` 0 stands for itself.
    Isolate = 7,
    /// It is kept, as a mark of combining class `value`.
    Mark = 8,
    /// A Hangul syllable becomes its two or three jamo.
    Hangul = 9,
}

impl MapAction {
    /// The action with a number.
    pub fn from_number(number: u8) -> Option<MapAction> {
        use MapAction as M;
        [M::Keep, M::Drop, M::Break, M::Single, M::Shift, M::Alternate, M::Elements, M::Isolate, M::Mark, M::Hangul]
            .into_iter()
            .find(|&action| action as u8 == number)
    }
}

/// Character bits of an element.
pub const ELEMENT_CHARACTER: u32 = (1 << 21) - 1;
/// The bit of the last element of a list.
pub const ELEMENT_LAST: u32 = 1 << 21;
