//! The tokens of states: what a vocabulary can spell, where texts end, and the tokens where bytes are fixed.

use crate::support::{Model, Random, compiled, ids, output};
use slm_grammar::{GrammarError, Source, Vocabulary};

fn model(tokens: &[&str]) -> Model {
    Model::of(tokens.iter().map(|token| token.as_bytes().to_vec()))
}

fn allowed(model: &Model, source: Source<'_>, before: &[u32]) -> Vec<u32> {
    let section = model.compile(&compiled(source), None);
    let reader = model.read(&section);
    let mut state = reader.start();
    before.iter().for_each(|&token| reader.advance(&mut state, token).expect("allowed"));
    let mut words = vec![0; reader.words()];
    assert_eq!(reader.allowed(&state, &mut words), ids(&words).len());
    ids(&words)
}

#[test]
fn tokens_that_lead_nowhere_are_left_out() {
    // `b` and `x` are no tokens: after `a` only `bc` spells on, and `ax` cannot be followed.
    let model = model(&["a", "bc", "c", "ay", "y"]);
    let choices = Source::Choices("abc\nayb\nac");
    assert_eq!(allowed(&model, choices, &[]), [0]);
    assert_eq!(allowed(&model, choices, &[0]), [1, 2]);
    assert_eq!(allowed(&model, choices, &[0, 1]), [model.end()]);
}

#[test]
fn a_grammar_that_no_tokens_spell_is_refused() {
    let without_b = model(&["a", "c", "bd"]);
    let refused = |model: &Model, source: Source<'_>| {
        let vocabulary = Vocabulary { tokens: &model.tokens, excluded: &model.excluded(), encode: None };
        compiled(source).section(&vocabulary).expect_err("no tokens")
    };
    let error = refused(&without_b, Source::Choices("abc"));
    assert!(matches!(&error, GrammarError::NoTokens { bytes } if bytes.is_empty()), "{error:?}");
    let error = refused(&without_b, Source::Choices("axc"));
    assert!(matches!(&error, GrammarError::NoTokens { bytes } if bytes == b"x"), "{error:?}");
    assert!(error.to_string().contains("no token has the byte x"), "{error}");
    let error = refused(&without_b, Source::Rules("root ::= \"x\" root \"x\" | \"a\" root \"b\" | \"b\""));
    assert!(matches!(error, GrammarError::NoTokens { .. }), "{error:?}");
    let nothing = Vocabulary { tokens: &[], excluded: &[], encode: None };
    let error = compiled(Source::Choices("a")).section(&nothing).expect_err("no tokens at all");
    assert!(matches!(error, GrammarError::Vocabulary { .. }), "{error:?}");
    let outside = Vocabulary { tokens: &without_b.tokens, excluded: &[99], encode: None };
    let error = compiled(Source::Choices("a")).section(&outside).expect_err("an unknown token");
    assert!(matches!(error, GrammarError::Vocabulary { .. }), "{error:?}");
}

#[test]
fn recursive_rules_count_on_tokens_of_one_byte() {
    // `]` is no token: brackets would have to close in pairs, so they are left out.
    let model = model(&["(", ")", "x", "((", "))", "[", "]]"]);
    let source = Source::Rules("root ::= \"(\" root \")\" | \"[\" root \"]\" | \"x\"");
    assert_eq!(allowed(&model, source, &[]), [0, 2, 3]);
    assert_eq!(allowed(&model, source, &[3, 2]), [1, 4]);
    assert_eq!(allowed(&model, source, &[3, 2, 4]), [model.end()]);
    // The stack holds 16: of "((" and "(" only those with room are allowed.
    let deep = [3, 3, 3, 3, 3, 3, 3];
    assert_eq!(allowed(&model, source, &deep), [0, 2, 3]);
    assert_eq!(allowed(&model, source, &[&deep[..], &[0]].concat()), [0, 2]);
    assert_eq!(allowed(&model, source, &[&deep[..], &[3]].concat()), [2]);
}

#[test]
fn the_end_is_allowed_where_a_text_may_end() {
    let model = model(&["a", "b", "ab"]);
    let end = model.end();
    let source = Source::Choices("a\nab");
    assert_eq!(allowed(&model, source, &[]), [0, 2]);
    assert_eq!(allowed(&model, source, &[0]), [1, end]);
    assert_eq!(allowed(&model, source, &[2]), [end]);
    let section = model.compile(&compiled(source), None);
    let reader = model.read(&section);
    let mut state = reader.start();
    assert!(reader.advance(&mut state, end).is_err() && reader.advance(&mut state, 99).is_err());
    assert!(reader.advance(&mut state, end - 1).is_err(), "a special token");
    assert!(!reader.is_accepting(&state) && !reader.is_complete(&state));
    reader.advance(&mut state, 0).expect("a");
    assert!(reader.is_accepting(&state) && !reader.is_complete(&state));
    let mut other = state;
    reader.advance(&mut other, end).expect("the end");
    let mut words = vec![0; reader.words()];
    assert_eq!(reader.allowed(&other, &mut words), 0);
    assert!(reader.is_complete(&other) && reader.advance(&mut other, 1).is_err());
    reader.advance(&mut state, 1).expect("b");
    assert!(reader.is_complete(&state));
}

#[test]
fn fixed_bytes_have_the_tokens_of_the_tokenizer() {
    let model = model(&["a", "b", "c", "d", "ab", "cd", "bc", "abc"]);
    let run = |source: Source<'_>, encode: Option<&slm_grammar::Encode<'_>>| {
        let section = model.compile(&compiled(source), encode);
        let reader = model.read(&section);
        let (mut state, mut run) = (reader.start(), [0; 8]);
        let count = reader.forced(&mut state, &mut run);
        run[..count].to_vec()
    };
    // The longest token each time.
    assert_eq!(run(Source::Choices("abcd"), None), [7, 3]);
    // The tokenizer's own.
    let pairs = |text: &[u8]| -> Option<Vec<u32>> {
        let token = |bytes: &[u8]| model.tokens.iter().position(|token| token == bytes).map(|id| id as u32);
        text.chunks(2).map(token).collect()
    };
    assert_eq!(run(Source::Choices("abcd"), Some(&pairs)), [4, 5]);
    // One that does not spell the text is not asked again.
    assert_eq!(run(Source::Choices("abcd"), Some(&|_| Some(vec![0, 0]))), [7, 3]);
    assert_eq!(run(Source::Choices("abcd"), Some(&|_| None)), [7, 3]);
    // Where what follows may change the token, nothing is forced: "ab" and "abc" are both there.
    assert_eq!(run(Source::Expression("ab[cd]"), None), [0; 0]);
    assert_eq!(allowed(&model, Source::Expression("ab[cd]"), &[]), [4, 7]);
    // A tokenizer for which "abc" is "a", "bc": that "a" is allowed beside its "ab", and "abc" because it reaches further.
    let joins = |text: &[u8]| match text {
        b"ab" => Some(vec![4]),
        b"abc" => Some(vec![0, 6]),
        b"abd" => Some(vec![4, 3]),
        _ => None,
    };
    let section = model.compile(&compiled(Source::Expression("ab[cd]")), Some(&joins));
    let reader = model.read(&section);
    let mut words = vec![0; reader.words()];
    assert_eq!(reader.allowed(&reader.start(), &mut words), 3);
    assert_eq!(words[0], 1 | 1 << 4 | 1 << 7);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let model = Model::bytes_and_pieces();
    let schema = include_str!("../../../../tests/data/robot.schema.json");
    let make = || {
        let grammar = compiled(Source::Schema(schema, slm_grammar::Separators::Compact));
        model.compile(&grammar, None)
    };
    let section = make();
    assert!(section == make());
    assert!(section.len() < 80_000, "{} bytes", section.len());
}

/// A vocabulary with lists, sets, differences and tokens that are tried gives what trying every token gives.
#[test]
fn stored_tokens_are_those_that_the_automaton_takes() {
    let model = Model::bytes_and_pieces();
    for (index, source) in [
        Source::Schema(
            r#"{"type": "array", "items": {"type": "string", "maxLength": 6}}"#,
            slm_grammar::Separators::Compact,
        ),
        Source::Schema("true", slm_grammar::Separators::Compact),
        Source::Expression(r"[a-z]{1,9}( [0-9]+)?"),
    ]
    .into_iter()
    .enumerate()
    {
        let section = model.compile(&compiled(source), None);
        let reader = model.read(&section);
        let mut words = vec![0; reader.words()];
        for seed in 0..60 {
            let mut random = Random::new(seed + 100 * index as u64);
            let mut state = reader.start();
            for _ in 0..40 {
                let count = reader.allowed(&state, &mut words);
                let all = ids(&words);
                let fixed = count == 1;
                for token in 0..model.tokens.len() as u32 {
                    let takes = reader.advance(&mut { state }, token).is_ok();
                    // Where bytes are fixed, one token stands for all that spell them.
                    assert!(takes == all.contains(&token) || fixed && takes, "token {token}");
                }
                if all.is_empty() {
                    break;
                }
                reader.advance(&mut state, all[random.below(all.len())]).expect("allowed");
            }
        }
        assert!(output(&model, &reader, &mut Random::new(1), 10_000).is_some());
    }
}
