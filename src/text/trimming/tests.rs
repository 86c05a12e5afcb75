//! Texts whose tokens are kept have the same tokens: on tokenizers made at random, and on real ones.

use super::*;
use crate::disk::Config;
use crate::model::companions::{Companions, GENERATION_CONFIG_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::progress::Silent;
use crate::text::form::TextForm;
use crate::text::testing::{companions, shared};
use crate::text::tokenizer::Tokenizer;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const LETTERS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
           "special": true})
}

fn file(model: Value, pre_tokenizer: Value, decoder: Value) -> Value {
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "<s>"), special(1, "<u>")],
           "normalizer": null, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model,
           "post_processor": {"type": "TemplateProcessing",
             "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}})
}

/// Letters and the merges of these pairs of tokens; several may make the same.
fn bpe(picks: &[(usize, usize)]) -> Value {
    let mut tokens: Vec<String> = ["<s>", "<u>"].iter().chain(&LETTERS).map(ToString::to_string).collect();
    let mut merges: Vec<[String; 2]> = Vec::new();
    for (left, right) in picks {
        let pick = |number: usize| tokens[2 + number % (tokens.len() - 2)].clone();
        let pair = [pick(*left), pick(*right)];
        let product = pair.concat();
        if product.len() <= 8 && !merges.contains(&pair) {
            merges.push(pair);
            if !tokens.contains(&product) {
                tokens.push(product);
            }
        }
    }
    let vocab: serde_json::Map<_, _> = tokens.into_iter().enumerate().map(|(id, t)| (t, json!(id))).collect();
    let model = json!({"type": "BPE", "dropout": null, "unk_token": "<u>", "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                       "vocab": vocab, "merges": merges});
    file(model, Value::Null, json!({"type": "Fuse"}))
}

fn word_pieces(words: &BTreeSet<String>) -> Value {
    let letters = LETTERS.iter().flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
    let longer = words.iter().filter(|word| word.len() > 1).flat_map(|word| [word.clone(), format!("##{word}")]);
    let tokens = ["<s>", "<u>"].into_iter().map(str::to_owned).chain(letters).chain(longer);
    let vocab: serde_json::Map<_, _> = tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
    let model = json!({"type": "WordPiece", "unk_token": "<u>", "continuing_subword_prefix": "##",
                       "max_input_chars_per_word": 100, "vocab": vocab});
    file(model, json!({"type": "Whitespace"}), json!({"type": "WordPiece", "prefix": "##", "cleanup": false}))
}

fn unigram(words: &BTreeSet<String>) -> Value {
    let mut pieces = vec![json!(["<s>", 0.0]), json!(["<u>", 0.0])];
    pieces.extend(LETTERS.iter().enumerate().map(|(n, letter)| json!([letter, -4.0 - n as f64 / 7.0])));
    let longer = words.iter().filter(|word| word.len() > 1).enumerate();
    pieces.extend(longer.map(|(n, word)| json!([word, -5.0 - ((n * 37) % 11) as f64 / 3.0])));
    let model = json!({"type": "Unigram", "unk_id": 1, "vocab": pieces, "byte_fallback": false});
    file(model, Value::Null, json!({"type": "Fuse"}))
}

struct Trimmed {
    vocabulary: Vocabulary,
    kept: KeptIds,
    before: Tokenizer,
    after: Tokenizer,
}

impl Trimmed {
    fn of(json: &Value, texts: &[String], extent: Extent, characters: Characters) -> Result<Self, TrimError> {
        let mut companions = Companions::of(Path::new("toy"));
        companions.add_bytes(TOKENIZER_FILE, json.to_string().into_bytes());
        let before = Tokenizer::of(&companions)?;
        let vocabulary =
            Vocabulary::read(Path::new("tokenizer.json"), json.to_string().as_bytes(), before.vocabulary_size())?;
        let mut counts = vec![0; vocabulary.rows()];
        for text in texts {
            before.encode_plain(text)?.into_iter().for_each(|id| counts[id as usize] += 1);
        }
        Trimmed::by_counts(vocabulary, before, &companions, &counts, extent, characters)
    }

    fn by_counts(
        vocabulary: Vocabulary,
        before: Tokenizer,
        companions: &Companions,
        counts: &[u64],
        extent: Extent,
        characters: Characters,
    ) -> Result<Self, TrimError> {
        let kept = select(&vocabulary, counts, &BTreeSet::new(), extent, characters)?;
        let after = Tokenizer::of(&rewritten_companions(&vocabulary, companions, &kept)?)?;
        Ok(Trimmed { vocabulary, kept, before, after })
    }

    /// Whether all tokens of a text were kept; then it must have the same ones. Every text is spelled in full.
    fn check(&self, text: &str) -> bool {
        let before = self.before.encode_plain(text).expect("encodes");
        let after = self.after.encode_plain(text).expect("encodes");
        let mapped: Option<Vec<u32>> = before.iter().map(|&id| self.kept.new_id(id)).collect();
        if let Some(mapped) = &mapped {
            assert_eq!(&after, mapped, "{text:?}");
        }
        mapped.is_some()
    }
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-e]{1,12}", 1..12)
}

fn extents() -> impl Strategy<Value = Extent> {
    prop_oneof![
        (1u64..4).prop_map(Extent::MinCount),
        (7usize..40).prop_map(Extent::Vocabulary),
        (0.3f64..1.0).prop_map(Extent::Coverage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn merged_tokens_that_are_kept_stay_the_same(
        picks in prop::collection::vec((0usize..100, 0usize..100), 1..30),
        counted in texts(), probes in texts(), extent in extents(),
    ) {
        let trimmed = Trimmed::of(&bpe(&picks), &counted, extent, Characters::All).expect("trims");
        for text in counted.iter().chain(&probes) {
            trimmed.check(text);
            let spelled = trimmed.after.decode(&trimmed.after.encode_plain(text).expect("encodes"));
            prop_assert_eq!(&spelled.expect("decodes").replace(' ', ""), text);
        }
        if let Extent::Vocabulary(size) = extent {
            prop_assert!(trimmed.kept.ids().len() <= size);
        }
        if extent == Extent::MinCount(1) {
            prop_assert!(counted.iter().all(|text| trimmed.check(text)));
        }
    }

    #[test]
    fn pieces_that_are_kept_stay_the_same(
        words in prop::collection::btree_set("[a-e]{2,5}", 0..20),
        counted in texts(), probes in texts(), extent in extents(), scored in any::<bool>(),
    ) {
        // More letters are always kept than the smallest of these sizes.
        let extent = if let Extent::Vocabulary(size) = extent { Extent::Vocabulary(size + 8) } else { extent };
        let json = if scored { unigram(&words) } else { word_pieces(&words) };
        let trimmed = Trimmed::of(&json, &counted, extent, Characters::All).expect("trims");
        for text in counted.iter().chain(&probes) {
            trimmed.check(text);
        }
        if extent == Extent::MinCount(1) {
            prop_assert!(counted.iter().all(|text| trimmed.check(text)));
        }
    }
}

#[test]
fn every_way_to_merge_a_token_stays_with_it() {
    // "abc" is merged from ab + c where a and b meet first, and from a + bc else.
    let json = bpe(&[(0, 1), (1, 2), (5, 2), (0, 6)]);
    let tokens: Vec<&str> = json["model"]["vocab"].as_object().expect("tokens").keys().map(String::as_str).collect();
    assert_eq!(tokens[7..], ["ab", "bc", "abc"]);
    assert_eq!(json["model"]["merges"].as_array().map(Vec::len), Some(4));
    let trimmed = Trimmed::of(&json, &["abc".to_owned()], Extent::MinCount(1), Characters::All).expect("trims");
    assert_eq!(trimmed.kept.ids().len(), 10, "both parents of both merges stay");
}

#[test]
fn the_tokens_used_least_go_first_and_hand_their_counts_on() {
    // ab (7), abab (8), cd (9)
    let json = bpe(&[(0, 1), (5, 5), (2, 3)]);
    let counted = ["abab", "abab", "cd", "cd", "cd"].map(str::to_owned);
    let kept = |size| {
        let trimmed = Trimmed::of(&json, &counted, Extent::Vocabulary(size), Characters::All).expect("trims");
        trimmed.kept.ids()[7..].to_vec()
    };
    assert_eq!(kept(10), [7, 8, 9]);
    // abab occurs least, and four ab stand in its place, which is more than three cd.
    assert_eq!((kept(9), kept(8), kept(7)), (vec![7, 9], vec![7], vec![]));
    let error = Trimmed::of(&json, &counted, Extent::Vocabulary(6), Characters::All).map(|_| ()).expect_err("small");
    assert!(error.to_string().contains("a vocabulary of 6 is too small"), "{error}");
    assert!(error.to_string().contains("are 7; pass --vocabulary 7 or more, or --characters used"), "{error}");
    let used = Trimmed::of(&json, &counted, Extent::Vocabulary(6), Characters::Used).expect("e is not used");
    assert_eq!(used.kept.ids(), [0, 1, 2, 3, 4, 5]);
    let covering = |share| {
        let trimmed = Trimmed::of(&json, &counted, Extent::Coverage(share), Characters::All).expect("trims");
        trimmed.kept.ids()[7..].to_vec()
    };
    assert_eq!((covering(1.0), covering(0.6), covering(0.5)), (vec![7, 8, 9], vec![7, 9], vec![7, 9]));
}

#[test]
fn ids_are_renumbered_in_every_file() {
    let json = bpe(&[(0, 1), (2, 3)]);
    let mut files = Companions::of(Path::new("toy"));
    let mut add = |name: &str, content: &Value| files.add_bytes(name, content.to_string().into_bytes());
    add(TOKENIZER_FILE, &json);
    add(
        GENERATION_CONFIG_FILE,
        &json!({"eos_token_id": [8, 1], "pad_token_id": 99, "suppress_tokens": [7, 8],
                                        "bad_words_ids": [[2], [7, 2]], "top_k": 7}),
    );
    add(
        TOKENIZER_CONFIG_FILE,
        &json!({"bos_token": {"content": "<s>"}, "pad_token": "cd",
                                       "added_tokens_decoder": {"0": {"content": "<s>"}, "1": {"content": "<u>"}}}),
    );
    add("added_tokens.json", &json!({"<u>": 1, "ab": 7}));
    add("vocab.json", &json["model"]["vocab"]);
    let before = Tokenizer::of(&files).expect("opens");
    let vocabulary = Vocabulary::read(Path::new("t"), json.to_string().as_bytes(), 9).expect("reads");
    let config = json!({"vocab_size": 9, "eos_token_id": 8, "hidden_size": 7, "bos_token_id": null});
    let config = Config::parse(Path::new("config.json"), config.to_string().as_bytes()).expect("an object");
    let named = tokens_named(&vocabulary, &config, &files).expect("reads");
    assert_eq!(named.iter().copied().collect::<Vec<_>>(), [0, 1, 8, 99]);
    let kept = select(&vocabulary, &[0; 9], &named, Extent::MinCount(1), Characters::All).expect("selects");
    assert_eq!(kept.ids(), [0, 1, 2, 3, 4, 5, 6, 8], "cd is named, ab is not used");
    assert_eq!(kept.ranges(), "0-6,8");
    let config = rewritten_config(&config, &kept).expect("rewrites");
    assert_eq!(
        json!(config.map()),
        json!({"vocab_size": 8, "eos_token_id": 7, "hidden_size": 7, "bos_token_id": null})
    );
    let trimmed = rewritten_companions(&vocabulary, &files, &kept).expect("rewrites");
    let of = |name: &str| -> Value {
        serde_json::from_slice(&trimmed.find(name).expect(name).read().expect(name)).expect(name)
    };
    assert_eq!(
        of(GENERATION_CONFIG_FILE),
        json!({"eos_token_id": [7, 1], "pad_token_id": null, "suppress_tokens": [7], "bad_words_ids": [[2]], "top_k": 7})
    );
    assert_eq!(of(TOKENIZER_CONFIG_FILE)["added_tokens_decoder"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(of("added_tokens.json"), json!({"<u>": 1}));
    assert_eq!(of("vocab.json")["cd"], json!(7));
    assert_eq!(of(KEPT_IDS_FILE)["ids"], json!([0, 1, 2, 3, 4, 5, 6, 8]));
    let after = Tokenizer::of(&trimmed).expect("opens");
    assert_eq!(before.encode_with_specials("cdab").expect("encodes"), [0, 8, 7]);
    assert_eq!(after.encode_with_specials("cdab").expect("encodes"), [0, 7, 2, 3]);
    // The same ids for another model, unless its files name a token that is gone or it has another tokenizer.
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(KEPT_IDS_FILE), kept.file()).expect("writes");
    assert_eq!(KeptIds::like(directory.path(), &vocabulary).expect("reads"), kept);
    let error = kept.check_named(directory.path(), &vocabulary, [7]).expect_err("gone").to_string();
    assert!(error.contains("keeps no row for token 7 `ab`"), "{error}");
    let other = bpe(&[(0, 1), (2, 4)]);
    let other = Vocabulary::read(Path::new("t"), other.to_string().as_bytes(), 9).expect("reads");
    assert!(matches!(KeptIds::like(directory.path(), &other), Err(TrimError::OtherTokenizer { .. })));
    let placed =
        Config::parse(Path::new("c"), br#"{"vocab_size": 9, "sequence_bias": [[[2], 1.0]]}"#).expect("an object");
    assert!(rewritten_config(&placed, &kept).expect_err("placed").to_string().contains("sequence_bias"));
    let words = json!({"model": {"type": "WordLevel", "vocab": {"a": 0}}}).to_string();
    let error = Vocabulary::read(Path::new("t"), words.as_bytes(), 1).expect_err("a kind").to_string();
    assert!(error.contains("type WordLevel cannot be trimmed"), "{error}");
}

/// A real tokenizer trimmed by the first part of a text: lines of all of it that use only what is kept are the same, and
/// nothing else is lost where it has bytes.
fn real(model: &str, text: &str, extent: Extent) {
    let (Some(directory), Some(path)) = (shared(model), shared(text)) else { return };
    let files = companions(&directory);
    let before = Tokenizer::of(&files).expect("opens");
    let bytes = std::fs::read(directory.join(TOKENIZER_FILE)).expect("reads");
    let vocabulary = Vocabulary::read(Path::new(model), &bytes, before.vocabulary_size()).expect("reads");
    let whole: String = std::fs::read_to_string(&path).expect("reads").chars().take(60_000).collect();
    let part = tempfile::Builder::new().suffix(".txt").tempfile().expect("a file");
    std::fs::write(part.path(), &whole[..whole.len() / 4]).expect("writes");
    let counts = Counts::read(&[part.path().to_owned()], &TextForm::default(), &before, &vocabulary, &Silent);
    let counts = counts.expect("counts");
    let trimmed =
        Trimmed::by_counts(vocabulary, before, &files, &counts.counts, extent, Characters::All).expect("trims");
    let coverage = counts.coverage(&trimmed.vocabulary, &trimmed.kept, &trimmed.after, &Silent).expect("compares");
    let (mut same, mut other) = (0, 0);
    let sentences = whole.lines().flat_map(|line| line.split(". "));
    for line in sentences.chain(["naïve 日本 🦊\tend", "qqq ZZZ"]) {
        if trimmed.check(line) {
            same += 1;
        } else {
            other += 1;
            let spelled = trimmed.after.decode(&trimmed.after.encode_plain(line).expect("encodes")).expect("decodes");
            assert_eq!(spelled, line, "{model}");
        }
    }
    // The text may use all of a small vocabulary.
    let all = trimmed.kept.ids().len() == trimmed.vocabulary.rows();
    assert!(same > 5 && (other > 0 || all), "{model}: {same} sentences are the same and {other} are not");
    assert!(coverage.tokens_after >= coverage.tokens_before, "{model}: {coverage:?}");
    match extent {
        Extent::MinCount(1) => {
            assert_eq!((coverage.kept, coverage.tokens_after), (1.0, coverage.tokens_before), "{model}");
            assert_eq!(coverage.bytes_after, coverage.bytes_before, "{model}");
        }
        Extent::Coverage(share) => assert!(coverage.kept >= share && coverage.kept < 1.0, "{model}: {coverage:?}"),
        _ => assert!(coverage.kept > 0.5 && coverage.kept < 1.0, "{model}: {coverage:?}"),
    }
}

#[test]
fn real_tokenizers_keep_their_texts() {
    for (model, text) in [
        ("models/stories260k", "data/stories-valid.txt"),
        ("models/tales-6m", "data/tales-valid.txt"),
        ("models/smollm2-135m", "data/tales-valid.txt"),
    ] {
        real(model, text, Extent::MinCount(1));
        real(model, text, Extent::Coverage(0.97));
    }
    real("models/smollm2-135m", "data/tales-valid.txt", Extent::Vocabulary(1500));
}
