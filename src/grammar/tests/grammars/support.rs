//! A model's vocabulary without the model, and outputs drawn from a grammar.

use slm_grammar::{Encode, Grammar, Limits, Source, Vocabulary};
use slm_runtime::format::grammar::{GrammarTables, TokenBytes};
use slm_runtime::format::special_tokens::TokenList;
use slm_runtime::grammar::{Grammar as Reader, State};
use slm_runtime::sample::random_u64;

/// A stream of random numbers.
pub(crate) struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random { seed, drawn: 0 }
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.drawn += 1;
        (random_u64(self.seed, self.drawn) % count.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Tokens and the section that holds their bytes; the last token ends a text, the one before is special.
pub(crate) struct Model {
    pub(crate) tokens: Vec<Vec<u8>>,
    pub(crate) section: Vec<u8>,
    ends: [u8; 4],
}

impl Model {
    pub(crate) fn of(tokens: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut tokens: Vec<Vec<u8>> = tokens.into_iter().collect();
        tokens.extend([b"<special>".to_vec(), Vec::new()]);
        let mut section = 0u32.to_le_bytes().to_vec();
        let mut end = 0u32;
        for token in &tokens {
            end += token.len() as u32;
            section.extend(end.to_le_bytes());
        }
        section.extend(tokens.iter().flatten());
        let ends = (tokens.len() as u32 - 1).to_le_bytes();
        Model { tokens, section, ends }
    }

    /// Every byte, and pieces that begin, cross and end the parts of JSON.
    pub(crate) fn bytes_and_pieces() -> Self {
        const PIECES: &str = "{\" \", \": \":\" \":[ \",\" \"} \"}} ]} }, ], [[ {} [] \"] , : true false null tr ue fa lse the an in er re on at \
            en the com mand move turn 10 12 100 00 -1 0. .5 e+ ab abc é ü 日本 \\n \\\" \\\\ \"a a\" a\", 1, 1} 9] name id";
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        Model::of(bytes.chain(PIECES.split_whitespace().map(|piece| piece.as_bytes().to_vec())).chain([
            b" ".repeat(2),
            b", ".to_vec(),
            b" the".to_vec(),
        ]))
    }

    pub(crate) fn end(&self) -> u32 {
        self.tokens.len() as u32 - 1
    }

    pub(crate) fn excluded(&self) -> [u32; 2] {
        [self.end() - 1, self.end()]
    }

    pub(crate) fn compile(&self, grammar: &Grammar, encode: Option<&Encode<'_>>) -> Vec<u8> {
        let vocabulary = Vocabulary { tokens: &self.tokens, excluded: &self.excluded(), encode };
        grammar.section(&vocabulary).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn read<'a>(&'a self, section: &'a [u8]) -> Reader<'a> {
        let count = self.tokens.len() as u32;
        let tables = GrammarTables::read(section, count).unwrap_or_else(|error| panic!("{error}"));
        Reader::new(tables, TokenBytes::new(&self.section, count), TokenList::new(&self.ends))
    }
}

pub(crate) fn compiled(source: Source<'_>) -> Grammar {
    source.compile(&Limits::default()).unwrap_or_else(|error| panic!("{source:?}: {error}"))
}

/// The tokens of a set.
pub(crate) fn ids(words: &[u32]) -> Vec<u32> {
    (0..words.len() as u32 * 32).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

/// An output of at most `most` tokens, or `None` where it did not end. Ends and single bytes of structure are likelier
/// than others, so that most outputs end.
pub(crate) fn output(model: &Model, reader: &Reader<'_>, random: &mut Random, most: usize) -> Option<Vec<u8>> {
    let (mut state, mut text) = (reader.start(), Vec::new());
    let (mut words, mut run) = (vec![0; reader.words()], [0; 16]);
    let mut count = 0;
    while count < most {
        let forced = reader.forced(&mut state, &mut run);
        text.extend(run[..forced].iter().flat_map(|&token| &model.tokens[token as usize]));
        count += forced + 1;
        if reader.is_complete(&state) {
            return Some(text);
        }
        if forced == run.len() {
            continue;
        }
        let token = draw(model, reader, &state, &mut words, random);
        reader.advance(&mut state, token).unwrap_or_else(|refused| panic!("{refused}, which it allowed"));
        if token == model.end() {
            return Some(text);
        }
        text.extend(&model.tokens[token as usize]);
    }
    None
}

/// One of the allowed tokens.
pub(crate) fn draw(model: &Model, reader: &Reader<'_>, state: &State, words: &mut [u32], random: &mut Random) -> u32 {
    let count = reader.allowed(state, words);
    let all = ids(words);
    assert_eq!(count, all.len());
    assert!(!all.is_empty(), "no token is allowed after a text that is not complete");
    let accepts = all.contains(&model.end());
    assert_eq!(accepts, reader.is_accepting(state), "the end is allowed exactly where the text may end");
    if accepts && random.one_in(3) {
        return model.end();
    }
    let closing: Vec<u32> =
        all.iter().copied().filter(|&id| matches!(&model.tokens[id as usize][..], b"\"" | b"}" | b"]")).collect();
    if !closing.is_empty() && random.one_in(4) {
        return closing[random.below(closing.len())];
    }
    all[random.below(all.len())]
}
