//! Rules in the notation like GBNF: texts that follow them and texts that do not, with and without recursion.

use crate::support::{Model, Random, compiled, output};
use slm_grammar::{GrammarError, Limits, Source};

const JSON: &str = r#"
# JSON with white space.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,2})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"#;

const SUMS: &str = r#"
root ::= sum
sum  ::= term (("+" | "-") term)*
term ::= atom ("*" atom)*
atom ::= [0-9]+ | "(" sum ")"
"#;

#[test]
fn texts_follow_the_rules_or_do_not() {
    for (rules, texts) in [
        (
            SUMS,
            &[
                ("1", true),
                ("1+2*(3-4)", true),
                ("((((7))))", true),
                ("(1", false),
                ("1)", false),
                ("", false),
                ("1++2", false),
            ][..],
        ),
        (
            JSON,
            &[(r#"{"a": [1, {"b": "\u00e9"}, null]}"#, true), (r#"{"a" 1}"#, false), ("[1]", false), ("{}\n\t", true)],
        ),
        ("root ::= \"a\"{2,3} [b-d]? | \"\\x41\\u00e9\"", &[("aa", true), ("aaad", true), ("Aé", true), ("a", false)]),
        ("root ::= item (\",\" item)*\nitem ::= [^,\\n]{1,}", &[("a,b", true), ("a,", false), ("ü", true)]),
        // Right recursion needs no stack.
        ("root ::= \"a\" root | \"b\"", &[("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", true), ("aaa", false)]),
        ("root ::= \"(\" root \")\" | \"\"", &[("", true), ("((()))", true), ("(()", false)]),
        ("root ::= .+ # a comment", &[("any text", true), ("two\nlines", false)]),
    ] {
        let grammar = compiled(Source::Rules(rules));
        for (text, accepted) in texts {
            assert_eq!(grammar.automaton().accepts(text.as_bytes()), *accepted, "{rules}: {text:?}");
        }
    }
}

#[test]
fn sixteen_return_states_are_the_limit() {
    let grammar = compiled(Source::Rules("root ::= \"(\" root \")\" | \"x\""));
    let text = |depth: usize| format!("{}x{}", "(".repeat(depth), ")".repeat(depth));
    assert!(grammar.automaton().accepts(text(16).as_bytes()));
    assert!(!grammar.automaton().accepts(text(17).as_bytes()));
    // What must nest deeper than that has no text.
    let chain = |depth: usize| {
        let rule = |index: usize| format!("r{index} ::= \"(\" r{} \")\" | \"[\" r{index} \"]\"\n", index + 1);
        let rules: String = (0..depth).map(rule).collect();
        format!("root ::= r0\n{rules}r{depth} ::= \"x\"\n")
    };
    assert!(Source::Rules(&chain(17)).compile(&Limits::default()).is_ok());
    let deep = Source::Rules(&chain(18)).compile(&Limits::default());
    assert!(matches!(deep, Err(GrammarError::Depth { depth: 16 })), "{deep:?}");
}

/// A full stack never leaves a text that cannot end, and outputs of recursive grammars follow them.
#[test]
fn outputs_of_recursive_rules_end() {
    let model = Model::bytes_and_pieces();
    for (index, rules) in [JSON, SUMS, "root ::= (\"[\" root \"]\" | \"{\" root \"}\")+ | \"x\""].iter().enumerate() {
        let grammar = compiled(Source::Rules(rules));
        assert!(grammar.automaton().is_recursive());
        let section = model.compile(&grammar, None);
        let reader = model.read(&section);
        let mut random = Random::new(index as u64);
        let mut ended = 0;
        for _ in 0..1500 {
            let Some(text) = output(&model, &reader, &mut random, 500) else { continue };
            ended += 1;
            assert!(grammar.automaton().accepts(&text), "{rules}: {}", String::from_utf8_lossy(&text));
            if index == 0 {
                let value: Result<serde_json::Value, _> = serde_json::from_slice(&text);
                assert!(value.is_ok(), "{}: {value:?}", String::from_utf8_lossy(&text));
            }
        }
        assert!(ended > 300, "{ended} of 1500 outputs of grammar {index} ended");
    }
}

#[test]
fn mistakes_have_a_place() {
    for (rules, line, column, problem) in [
        ("root ::= \"a", 1, 12, "a literal does not end"),
        ("root ::= [a", 1, 12, "a class does not end"),
        ("root ::= (\"a\"\n", 2, 1, "expected `)`"),
        ("root = \"a\"", 1, 6, "expected `::=`"),
        ("root ::= \"a\"\nroot ::= \"b\"", 2, 1, "defined twice"),
        ("root ::= \"a\"{3,2}", 1, 17, "bounds of a repetition cross"),
        ("root ::= \"a\"{99999999999}", 1, 25, "too large"),
        ("root ::= \"\\q\"", 1, 13, "unknown escape"),
        ("root ::= [z-a]", 1, 14, "ends before it begins"),
        ("root ::= \"a\" }", 1, 14, "unexpected `}`"),
    ] {
        match Source::Rules(rules).compile(&Limits::default()) {
            Err(GrammarError::Syntax { line: l, column: c, problem: p }) => {
                assert!((l, c) == (line, column) && p.contains(problem), "{rules:?}: line {l}, column {c}: {p}");
            }
            other => panic!("{rules:?}: {other:?}"),
        }
    }
}

#[test]
fn rules_that_cannot_be_followed_are_refused() {
    let compile = |rules: &str| Source::Rules(rules).compile(&Limits::default());
    assert!(matches!(compile("a ::= \"a\""), Err(GrammarError::Undefined { rule }) if rule == "root"));
    assert!(matches!(compile("root ::= b"), Err(GrammarError::Undefined { rule }) if rule == "b"));
    assert!(
        matches!(compile("root ::= root \"a\" | \"b\""), Err(GrammarError::LeftRecursion { rule }) if rule == "root")
    );
    assert!(matches!(compile("root ::= a? root \"a\" | \"b\"\na ::= \"a\""), Err(GrammarError::LeftRecursion { .. })));
    assert!(matches!(compile("root ::= \"a\" root"), Err(GrammarError::Empty)));
    let both_ways = compile("root ::= \"a\" root \"a\" | \"a\"");
    assert!(matches!(both_ways, Err(GrammarError::Ambiguous { ref rule, .. }) if rule == "root"), "{both_ways:?}");
    let follows = compile("root ::= \"(\" list \"a\" | \"a\"\nlist ::= (\"[\" list \"]\" | \"a\")+");
    assert!(matches!(follows, Err(GrammarError::Ambiguous { ref rule, .. }) if rule == "list"), "{follows:?}");
}
