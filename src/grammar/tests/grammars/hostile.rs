//! Grammars that would grow without end stop at a limit that the error names, soon.

use slm_grammar::{GrammarError, Limit, Limits, Separators, Source};
use std::time::{Duration, Instant};

fn limit_of(source: Source<'_>, limits: &Limits) -> Limit {
    let began = Instant::now();
    let result = source.compile(limits);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    match result {
        Err(GrammarError::Limit { what, .. }) => what,
        Err(other) => panic!("{other}"),
        Ok(grammar) => panic!("{} states", grammar.automaton().states()),
    }
}

#[test]
fn exponential_and_huge_grammars_are_refused() {
    let limits = Limits::default();
    let doubling: String = (0..40).map(|rule| format!("r{rule} ::= r{0} r{0}\n", rule + 1)).collect();
    let empty: String = (0..40).map(|rule| format!("r{rule} ::= r{0}? r{0}?\n", rule + 1)).collect();
    for (source, expected) in [
        (Source::Expression("(a|b)*a(a|b){30}"), &[Limit::States, Limit::Work][..]),
        (Source::Expression("(a{1000}){1000}{1000}"), &[Limit::Steps]),
        (Source::Expression("(((a{0,100}){0,100}){0,100}){0,100}"), &[Limit::Steps, Limit::Work]),
        (Source::Expression(r"\w{100000}"), &[Limit::Steps, Limit::Work]),
        (Source::Rules("root ::= \"a\"{4000000000}"), &[Limit::Steps]),
        (Source::Rules("root ::= \"\"{4000000000}"), &[Limit::Steps]),
        (Source::Rules(&format!("root ::= r0\n{doubling}r40 ::= \"a\"\n")), &[Limit::Steps]),
        (Source::Rules(&format!("root ::= r0\n{empty}r40 ::= \"\"\n")), &[Limit::Steps]),
        (Source::Schema(r#"{"type": "string", "maxLength": 4000000000}"#, Separators::Compact), &[Limit::Steps]),
        (Source::Schema(r#"{"type": "array", "minItems": 4000000000}"#, Separators::Compact), &[Limit::Steps]),
        (
            Source::Schema(r#"{"type": "string", "pattern": "(a|b)*a(a|b){30}"}"#, Separators::Compact),
            &[Limit::States, Limit::Work],
        ),
        (
            Source::Schema(r#"{"type": "string", "pattern": "a.{30}b.{30}c", "maxLength": 3000}"#, Separators::Compact),
            &[Limit::States, Limit::Work],
        ),
    ] {
        let what = limit_of(source, &limits);
        assert!(expected.contains(&what), "{what:?} for {source:?}");
    }
}

#[test]
fn deep_grammars_are_refused() {
    let limits = Limits::default();
    let groups = format!("root ::= {}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(limit_of(Source::Rules(&groups), &limits), Limit::Nesting);
    let signs = format!("root ::= \"a\"{}", "?".repeat(5000));
    assert_eq!(limit_of(Source::Rules(&signs), &limits), Limit::Nesting);
    let chain: String = (0..5000).map(|rule| format!("r{rule} ::= \"(\" r{} \")\"\n", rule + 1)).collect();
    assert_eq!(limit_of(Source::Rules(&format!("root ::= r0\n{chain}r5000 ::= \"a\"")), &limits), Limit::Nesting);
    let many: String = (0..20_000).map(|rule| format!("r{rule} ::= \"a\"\n")).collect();
    assert_eq!(limit_of(Source::Rules(&format!("root ::= \"a\"\n{many}")), &limits), Limit::Rules);
    let recursive: String =
        (0..400).map(|rule| format!("r{rule} ::= \"(\" r{rule} \")\" | \"x\" r{}\n", rule + 1)).collect();
    assert_eq!(limit_of(Source::Rules(&format!("root ::= r0\n{recursive}r400 ::= \"y\"")), &limits), Limit::Recursion);
    let groups = format!("{}a{}", "(".repeat(5000), ")".repeat(5000));
    let error = Source::Expression(&groups).compile(&limits).expect_err("too deep").to_string();
    assert!(error.contains("nest"), "{error}");
    // serde_json stops before this crate has to.
    let arrays = format!("{}true{}", r#"{"items":"#.repeat(5000), "}".repeat(5000));
    assert!(matches!(Source::Schema(&arrays, Separators::Compact).compile(&limits), Err(GrammarError::Json { .. })));
    let inside = r##"{"$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a", "minLength": 1}}, "required": ["b"]}}, "$ref": "#/$defs/a"}"##;
    assert_eq!(limit_of(Source::Schema(inside, Separators::Compact), &limits), Limit::Nesting);
}

#[test]
fn references_in_a_circle_are_refused() {
    for schema in [
        r##"{"$ref": "#"}"##,
        r##"{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}"##,
        r##"{"allOf": [{"$ref": "#"}]}"##,
        r##"{"anyOf": [{"$ref": "#"}, {"type": "null"}]}"##,
    ] {
        let error = Source::Schema(schema, Separators::Compact).compile(&Limits::default()).expect_err(schema);
        let named = matches!(error, GrammarError::LeftRecursion { .. } | GrammarError::Schema { .. });
        assert!(named, "{schema}: {error}");
    }
    // A value that is always inside itself has no end.
    let endless = r##"{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}"##;
    let error = Source::Schema(endless, Separators::Compact).compile(&Limits::default()).expect_err("endless");
    assert!(matches!(error, GrammarError::Empty), "{error}");
}

#[test]
fn choices_are_checked() {
    for (text, problem) in [
        ("", "there are none"),
        ("\n\n", "there are none"),
        ("a\nb\na", "`a` is there twice"),
        ("[\"a\", 1]", "not a JSON list"),
        ("[\"\"]", "one is empty"),
    ] {
        let error = Source::Choices(text).compile(&Limits::default()).expect_err(text).to_string();
        assert!(error.starts_with("choices: ") && error.contains(problem), "{text:?}: {error}");
    }
    let limits = Limits { text_bytes: 10, ..Limits::default() };
    assert_eq!(limit_of(Source::Choices("more than ten bytes"), &limits), Limit::Text);
}
