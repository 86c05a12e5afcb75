//! JSON schemas against the `jsonschema` crate: every output is valid, and every valid value in the form of the grammar is
//! accepted.

use crate::instances::instance;
use crate::support::{Model, Random, compiled, output};
use serde_json::Value;
use slm_grammar::{Automaton, GrammarError, Limits, Separators, Source};

const ROBOT: &str = include_str!("../../../../tests/data/robot.schema.json");

/// Schemas whose values the generator of the tests makes.
const SCHEMAS: [&str; 22] = [
    ROBOT,
    r#"{"type": "boolean"}"#,
    r#"{"type": ["string", "null", "integer"]}"#,
    r#"{"type": "integer", "minimum": -7, "maximum": 1234}"#,
    r#"{"type": "integer", "minimum": 99, "maximum": 10001}"#,
    r#"{"type": "integer", "minimum": -100000, "maximum": -99}"#,
    r#"{"type": "integer"}"#,
    r#"{"type": "number"}"#,
    r#"{"type": "string", "minLength": 2, "maxLength": 5}"#,
    r#"{"type": "string", "maxLength": 3}"#,
    r#"{"type": "string"}"#,
    r#"{"enum": ["a", "ab", 1, 1.5, null, true, [1, {"a": "b"}], {}, "line\nbreak"]}"#,
    r#"{"const": {"b": 1, "a": [true, null]}}"#,
    r#"{"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4}"#,
    r#"{"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}}"#,
    r#"{"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}], "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 4}"#,
    r#"{"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": [1, 2]}], "items": false}"#,
    r#"{"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, 2]}, "c": {"type": "null"}, "d": {"type": "string", "maxLength": 2}}, "additionalProperties": false}"#,
    r#"{"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, 2]}, "c": {"type": "null"}}, "required": ["b"], "additionalProperties": false}"#,
    r#"{"oneOf": [{"type": "object", "properties": {"kind": {"const": "move"}, "mm": {"type": "integer", "minimum": 1, "maximum": 50}}, "required": ["kind", "mm"], "additionalProperties": false},
        {"type": "object", "properties": {"kind": {"const": "say"}, "text": {"type": "string", "minLength": 1, "maxLength": 9}}, "required": ["kind"], "additionalProperties": false}]}"#,
    r##"{"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"name": {"enum": ["leaf", "branch"]},
        "child": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}, "required": ["name", "child"], "additionalProperties": false}}}"##,
    r##"{"$ref": "#/$defs/tree", "$defs": {"tree": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 99},
        {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 3}]}}}"##,
];

/// Schemas of which only the outputs are checked.
const FURTHER: [&str; 25] = [
    "true",
    "{}",
    r#"{"type": "object"}"#,
    r#"{"type": "array"}"#,
    r#"{"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 5}}"#,
    r#"{"type": "object", "required": ["x"], "properties": {"y": {"type": "boolean"}}}"#,
    r#"{"type": "string", "pattern": "^[a-z]{2,6}(-[0-9]+)?$", "maxLength": 9}"#,
    r#"{"type": "string", "pattern": "\\d", "minLength": 3, "maxLength": 6}"#,
    r#"{"type": "string", "pattern": "^\"quoted\\\\ .\"$|^x"}"#,
    r#"{"type": "string", "pattern": "(^|[a-c])x(y|$)", "maxLength": 5}"#,
    r#"{"type": "string", "pattern": "^$|^.{2}$"}"#,
    r#"{"allOf": [{"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]}, {"properties": {"b": {"type": "boolean"}, "a": {"maximum": 12}}, "required": ["b"]}]}"#,
    r#"{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "anyOf": [{"properties": {"b": {"const": 1}}, "required": ["b"]}, {"properties": {"c": {"const": 2}}, "required": ["c"]}]}"#,
    r#"{"type": "integer", "exclusiveMinimum": 2.5, "exclusiveMaximum": 40}"#,
    r#"{"minimum": 3, "type": "integer", "title": "a title", "description": "…", "default": 5, "examples": [4]}"#,
    r##"{"type": "object", "properties": {"value": {"type": "string", "maxLength": 2}, "next": {"$ref": "#"}}, "required": ["value"]}"##,
    r#"{"type": "array", "prefixItems": [{"const": "x"}], "allOf": [{"minItems": 1, "items": true}], "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3}"#,
    r#"{"type": "array", "allOf": [{"prefixItems": [{"const": "x"}, {"type": "null"}]}, {"prefixItems": [{"const": "x"}, {"type": "null"}], "items": false}]}"#,
    r#"{"type": "object", "unevaluatedProperties": false, "allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}"#,
    r#"{"type": "object", "unevaluatedProperties": false, "properties": {"c": {"const": 3}}, "anyOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}, "required": ["b"]}]}"#,
    r#"{"allOf": [{"type": "object", "unevaluatedProperties": false, "properties": {"b": {"const": 2}}, "allOf": [{"properties": {"a": {"const": 1}}}]}, {"properties": {"a": {"type": "integer"}}, "required": ["a"]}]}"#,
    r##"{"$ref": "#/$defs/a", "required": ["a"], "unevaluatedProperties": false, "$defs": {"a": {"type": "object", "unevaluatedProperties": {"const": 5}, "properties": {"b": {"const": 2}}}}}"##,
    r#"{"allOf": [{"type": "object", "unevaluatedProperties": {"type": "integer", "minimum": 0, "maximum": 5}}], "unevaluatedProperties": false}"#,
    r#"{"minLength": 2, "maxLength": 4}"#,
    r#"{"type": "string", "pattern": "^[+--]{1,3}[^\\s\\S]?$", "maxLength": 4}"#,
];

fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

/// Draws outputs and validates them; returns how many ended.
fn check_outputs(model: &Model, schema: &str, separators: Separators, count: usize, seed: u64) -> usize {
    let grammar = compiled(Source::Schema(schema, separators));
    let validator = jsonschema::validator_for(&parsed(schema.as_bytes())).expect("a schema");
    let section = model.compile(&grammar, None);
    let reader = model.read(&section);
    let mut random = Random::new(seed);
    let mut ended = 0;
    for _ in 0..count {
        let Some(text) = output(model, &reader, &mut random, 600) else { continue };
        ended += 1;
        assert!(validator.is_valid(&parsed(&text)), "{schema}: {}", String::from_utf8_lossy(&text));
        assert!(grammar.automaton().accepts(&text), "{schema}: {}", String::from_utf8_lossy(&text));
    }
    ended
}

#[test]
fn outputs_are_valid() {
    let model = Model::bytes_and_pieces();
    let (mut ended, mut all) = (0, 0);
    for (index, schema) in SCHEMAS.iter().chain(&FURTHER).enumerate() {
        let separators = if index % 3 == 2 { Separators::Spaced } else { Separators::Compact };
        let count = if index == 0 { 400 } else { 1500 };
        ended += check_outputs(&model, schema, separators, count, index as u64);
        all += count;
    }
    assert!(ended * 10 > all * 9, "{ended} of {all} ended");
}

/// The bytes of a text with a few of them changed.
fn changed(text: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => drop(bytes.remove(at)),
            1 => bytes[at] = bytes[random.below(bytes.len())],
            _ => bytes.insert(at, b"0a\",{}[]-1"[random.below(10)]),
        }
        if bytes.is_empty() {
            bytes.push(b'0');
        }
    }
    bytes
}

#[test]
fn valid_values_are_accepted_and_what_is_accepted_is_valid() {
    let (mut near_valid, mut near_invalid) = (0, 0);
    for (index, schema) in SCHEMAS.iter().enumerate() {
        let root = parsed(schema.as_bytes());
        let validator = jsonschema::validator_for(&root).expect("a schema");
        let grammar = compiled(Source::Schema(schema, Separators::Compact));
        let automaton: &Automaton = grammar.automaton();
        let mut random = Random::new(1000 + index as u64);
        for _ in 0..800 {
            let value = instance(&root, &root, &mut random, 0);
            assert!(validator.is_valid(&value), "the generator of the test: {schema}: {value}");
            let text = value.to_string();
            assert!(automaton.accepts(text.as_bytes()), "{schema}: {text}");
            let other = changed(&text, &mut random);
            if automaton.accepts(&other) {
                assert!(validator.is_valid(&parsed(&other)), "{schema}: {}", String::from_utf8_lossy(&other));
                near_valid += 1;
            } else {
                near_invalid += 1;
            }
        }
    }
    assert!(near_valid > 1000 && near_invalid > 5000, "{near_valid} and {near_invalid}");
}

#[test]
fn lengths_count_characters() {
    let grammar =
        compiled(Source::Schema(r#"{"type": "string", "minLength": 2, "maxLength": 3}"#, Separators::Compact));
    for (text, accepted) in [
        ("\"ab\"", true),
        ("\"日本\"", true),
        ("\"🤖🤖🤖\"", true),
        ("\"\\n\\\"\"", true),
        ("\"a\"", false),
        ("\"日\"", false),
        ("\"abcd\"", false),
        ("\"\\u0041b\"", false),
        ("\"a\u{1}\"", false),
        ("\"ab\" ", false),
    ] {
        assert_eq!(grammar.automaton().accepts(text.as_bytes()), accepted, "{text}");
    }
}

#[test]
fn integers_keep_to_their_bounds() {
    let mut random = Random::new(5);
    for _ in 0..300 {
        let bound = |random: &mut Random| {
            let digits = random.below(7);
            let number = random.below(10usize.pow(digits as u32)) as i64;
            if random.one_in(2) { -number } else { number }
        };
        let (a, b) = (bound(&mut random), bound(&mut random));
        let (least, most) = (a.min(b), a.max(b));
        let schema = format!(r#"{{"type": "integer", "minimum": {least}, "maximum": {most}}}"#);
        let grammar = compiled(Source::Schema(&schema, Separators::Compact));
        let near = [least, most].into_iter().flat_map(|edge| edge - 12..edge + 12);
        let far = (0..40).map(|_| bound(&mut random)).collect::<Vec<_>>();
        for number in near.chain(far) {
            let accepted = grammar.automaton().accepts(number.to_string().as_bytes());
            assert_eq!(accepted, (least..=most).contains(&number), "{number} in {least}..={most}");
        }
        for text in ["-0", "00", "01", "+1", "1.0", ""] {
            assert!(!grammar.automaton().accepts(text.as_bytes()), "{text:?} in {least}..={most}");
        }
    }
}

#[test]
fn properties_have_the_order_of_the_schema() {
    let schema = r#"{"type": "object", "properties": {"z": {"const": 1}, "a": {"const": 2}, "m": {"const": 3}}, "required": ["a"]}"#;
    let grammar = compiled(Source::Schema(schema, Separators::Spaced));
    for (text, accepted) in [
        (r#"{"z": 1, "a": 2, "m": 3}"#, true),
        (r#"{"a": 2}"#, true),
        (r#"{"a": 2, "m": 3}"#, true),
        (r#"{"a": 2, "z": 1}"#, false),
        (r#"{"z": 1, "m": 3}"#, false),
        (r#"{"a":2}"#, false),
        (r#"{"a": 2, }"#, false),
    ] {
        assert_eq!(grammar.automaton().accepts(text.as_bytes()), accepted, "{text}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name_and_place() {
    for (schema, pointer, part) in [
        (r#"{"type": "string", "format": "date"}"#, "", "`format` is not supported"),
        (r#"{"properties": {"a": {"not": {}}}}"#, "/properties/a", "`not` is not supported"),
        (r#"{"properties": {"a/b": {"type": "array", "uniqueItems": true}}}"#, "/properties/a~1b", "`uniqueItems`"),
        (r#"{"type": "integer", "multipleOf": 5}"#, "", "`multipleOf`"),
        (r#"{"type": "number", "minimum": 1}"#, "", "for `integer` only"),
        (r#"{"if": {}, "then": {}}"#, "", "`if`"),
        (r#"{"type": "strin"}"#, "", "`type` is not the name"),
        (r#"{"type": "string", "minLength": -1}"#, "", "`minLength` is not a whole number"),
        (r#"{"type": "string", "minLength": 5, "maxLength": 4}"#, "", "`minLength` is above"),
        (r#"{"type": "string", "pattern": "("}"#, "", "pattern `(`"),
        (r#"{"type": "string", "pattern": "^a$", "minLength": 2}"#, "", "no string of these lengths"),
        (r##"{"$ref": "#/$defs/x"}"##, "", "does not exist"),
        (r#"{"$ref": "https://example.com/x"}"#, "", "does not lead to a place in this schema"),
        (r#"{"items": {"enum": [1], "minimum": 3}}"#, "/items", "beside `enum`"),
        (r#"{"allOf": [{"pattern": "a"}, {"pattern": "b"}]}"#, "/allOf/1", "two of `pattern`"),
        (r#"{"properties": {}, "required": ["a"], "additionalProperties": false}"#, "", "required and excluded"),
        ("[1]", "", "a schema is an object"),
        (
            r#"{"type": "array", "prefixItems": [{"type": "string"}], "allOf": [{"items": {"type": "integer"}}]}"#,
            "",
            "`items` beside other `prefixItems`",
        ),
        (r#"{"allOf": [{"prefixItems": [true]}, {"items": {"type": "null"}}]}"#, "/allOf/1", "other `prefixItems`"),
        (
            r#"{"allOf": [{"prefixItems": [true], "items": false}, {"prefixItems": [{}]}]}"#,
            "/allOf/1",
            "`items` beside",
        ),
        (r#"{"items": {"type": "null"}, "anyOf": [{"prefixItems": [true]}]}"#, "/anyOf/0", "`items` beside"),
        (
            r##"{"$ref": "#/$defs/a", "items": {"type": "null"}, "$defs": {"a": {"prefixItems": [true]}}}"##,
            "",
            "`items` beside",
        ),
        (
            r#"{"allOf": [{"type": "object", "properties": {"a": {"const": 1}}, "unevaluatedProperties": false}, {"properties": {"b": {"const": 2}}}]}"#,
            "/allOf/1",
            "`unevaluatedProperties` excludes the property `b`",
        ),
        (
            r#"{"properties": {"b": {"const": 2}}, "oneOf": [{"properties": {"a": {"const": 1}}, "unevaluatedProperties": {"type": "null"}}]}"#,
            "/oneOf/0",
            "excludes the property `b`",
        ),
        (
            r##"{"$ref": "#/$defs/a", "properties": {"b": true}, "$defs": {"a": {"properties": {"a": true}, "unevaluatedProperties": false}}}"##,
            "",
            "excludes the property `b`",
        ),
        (
            r#"{"allOf": [{"unevaluatedProperties": false}, {"type": "object", "additionalProperties": {"type": "null"}}]}"#,
            "/allOf/1",
            "two of `additionalProperties`",
        ),
        (r#"{"type": "string", "pattern": "^[]a]$"}"#, "", "`[]` has no character in ECMAScript"),
        (r#"{"type": "string", "pattern": "[^]"}"#, "", "and `[^]` every one"),
        (r#"{"type": "string", "pattern": "a{,3}"}"#, "", "`{,3}` is no number of repetitions"),
        (r#"{"type": "string", "pattern": "a{ 3 }"}"#, "", "`{ 3 }` is no number"),
        (r#"{"type": "string", "pattern": "[a"}"#, "", "unclosed character class"),
        (r#"{"type": "string", "pattern": "^\\Aab\\z$"}"#, "", "`\\A` has no meaning in ECMAScript"),
        (r#"{"type": "string", "pattern": "[\\a]"}"#, "", "`\\a` has no meaning"),
        (r#"{"type": "string", "pattern": "^\\x{41}$"}"#, "", "`\\x{` has no meaning"),
        (r#"{"type": "string", "pattern": "(?i)^AB$"}"#, "", "`(?i` begins no group of ECMAScript"),
        (r#"{"type": "string", "pattern": "^(?x) a b $"}"#, "", "`(?x` begins no group"),
        (r#"{"type": "string", "pattern": "^(?P<n>a)$"}"#, "", "`(?P` begins no group"),
    ] {
        let error = match Source::Schema(schema, Separators::Compact).compile(&Limits::default()) {
            Err(error @ (GrammarError::Schema { .. } | GrammarError::Unsupported { .. })) => error.to_string(),
            other => panic!("{schema}: {other:?}"),
        };
        assert!(error.contains(&format!("schema at `{pointer}`")) && error.contains(part), "{schema}: {error}");
    }
    let error = Source::Schema("{", Separators::Compact).compile(&Limits::default()).expect_err("not JSON").to_string();
    assert!(error.contains("is not JSON") && error.contains("line 1"), "{error}");
}

/// Patterns, each with strings in which ECMAScript finds it and strings in which it does not.
#[test]
fn patterns_have_the_meaning_of_ecmascript() {
    for (pattern, found, absent) in [
        (r"^[+--]$", vec!["+", ",", "-"], vec!["*", "."]),
        (r"^[--/]$", vec!["-", ".", "/"], vec![",", "0"]),
        (r"^[a-z--/]$", vec!["a", "z", "-", ".", "/"], vec!["0", ","]),
        (r"^[a-]$", vec!["a", "-"], vec!["b"]),
        (r"^[-a]$", vec!["a", "-"], vec!["b"]),
        (r"^[\w-.]$", vec!["a", "_", "-", "."], vec![",", "+"]),
        (r"^[.-\d]$", vec![".", "-", "7"], vec!["/", "a"]),
        (r"^[a&&b]$", vec!["a", "b", "&"], vec!["c"]),
        (r"^[a~~b]$", vec!["a", "b", "~"], vec!["c"]),
        (r"^[^a^]$", vec!["b", "]"], vec!["a", "^"]),
        (r"^[[:a]$", vec!["[", ":", "a"], vec!["l", "]"]),
        (r"^[\]a]$", vec!["]", "a"], vec!["\\"]),
        (r"^[\u0041-\x43]$", vec!["A", "C"], vec!["D", "u", "0"]),
        (r"^[\b]$", vec!["\u{8}"], vec!["b"]),
        (r"^\s$", vec!["\t", "\r", " ", "\u{a0}", "\u{2003}", "\u{2028}", "\u{feff}"], vec!["\u{85}", "\u{200b}"]),
        (r"^\S$", vec!["\u{85}", "a"], vec!["\n", "\u{feff}", "\u{3000}"]),
        (r"^[\sx]$", vec!["x", "\u{feff}", "\n"], vec!["\u{85}", "s"]),
        (r"^[^\s]$", vec!["x", "\u{85}"], vec!["\u{feff}", " "]),
        (r"^[\S]$", vec!["x", "\u{85}"], vec!["\u{feff}", " "]),
        (r"^.$", vec!["\u{85}", "😀"], vec!["\n", "\u{2028}"]),
        (r"^a{2}b{1,}c{0,1}$", vec!["aab", "aabbc"], vec!["ab", "aabcc"]),
        (r"^\{,2}\p{Lu}\u{e9}$", vec!["{,2}Aé"], vec!["{,2}aé"]),
    ] {
        let schema = serde_json::json!({ "type": "string", "pattern": pattern }).to_string();
        let grammar = compiled(Source::Schema(&schema, Separators::Compact));
        for (texts, accepted) in [(found, true), (absent, false)] {
            for text in texts {
                let value = Value::from(text).to_string();
                assert_eq!(grammar.automaton().accepts(value.as_bytes()), accepted, "{pattern}: {value}");
            }
        }
    }
}

#[test]
fn values_that_are_never_written_are_noted() {
    for (schema, pointer, text) in [
        (r#"{"minLength": 1}"#, "", "without `type` only the types of its keywords are written: string"),
        (r#"{"items": true, "properties": {}}"#, "", "written: array, object"),
        (r#"{"type": "array", "items": {"maxItems": 3}}"#, "/items", "written: array"),
        (r#"{"type": "array", "prefixItems": [true]}"#, "", "without `items` no items behind `prefixItems`"),
        (r#"{"type": "array", "prefixItems": [true], "maxItems": 2}"#, "", "without `items`"),
        (
            r#"{"type": "object", "properties": {"a": true}, "additionalProperties": true}"#,
            "",
            "only the named properties",
        ),
        (
            r#"{"type": "object", "properties": {"a": true}, "unevaluatedProperties": {}}"#,
            "",
            "only the named properties",
        ),
    ] {
        let grammar = compiled(Source::Schema(schema, Separators::Compact));
        let [note] = grammar.notes() else { panic!("{schema}: {:?}", grammar.notes()) };
        assert_eq!(note.pointer, pointer, "{schema}");
        assert!(note.text.contains(text), "{schema}: {}", note.text);
    }
    for schema in [
        r#"{"type": "array", "prefixItems": [true], "items": false}"#,
        r#"{"type": "array", "prefixItems": [true], "maxItems": 1}"#,
        r#"{"allOf": [{"type": "string"}, {"minLength": 1}]}"#,
        r#"{"enum": [1, 2]}"#,
        "{}",
    ] {
        assert_eq!(compiled(Source::Schema(schema, Separators::Compact)).notes(), [], "{schema}");
    }
}

#[test]
fn alternatives_that_may_overlap_are_noted() {
    let notes = |schema: &str| compiled(Source::Schema(schema, Separators::Compact)).notes().to_vec();
    let overlapping = r#"{"type": "array", "items": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}"#;
    let found = notes(overlapping);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].pointer, "/items");
    assert!(found[0].text.contains("`oneOf` is read as `anyOf`"));
    assert!(notes(SCHEMAS[19]).is_empty());
}
