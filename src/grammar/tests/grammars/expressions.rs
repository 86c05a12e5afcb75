//! Regular expressions against the `regex` crate: the automaton accepts exactly the texts that match as a whole.

use crate::support::{Model, Random, compiled, output};
use slm_grammar::{GrammarError, Limits, Source};

const EXPRESSIONS: [&str; 22] = [
    "abc",
    "a*",
    "(ab|cd)+e?",
    "[a-f0-9]{4}(-[a-f0-9]{4}){3}",
    r"\d{1,3}(\.\d{1,3}){3}",
    r"(?i)yes|no|maybe",
    r"[A-Z][a-z]{1,12}( [A-Z][a-z]{1,12}){0,3}",
    r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    r"[^\x00-\x1f]{0,20}",
    r"^(?:\+\d{1,3} )?\d{2,4}( \d{2,4}){1,3}$",
    r"(?s).{3,5}",
    r".*x.*",
    r"\w+@\w+\.(com|org|example)",
    r"[α-ω]+|[а-я]+",
    r"\p{Lu}\p{Ll}*",
    r"(a|b)*abb",
    r"(|a|ab|abc)d",
    r"\x22([^\x22\\]|\\[\x22\\n])*\x22",
    r"-?(0|[1-9][0-9]*)(\.[0-9]+)?",
    r"(move|turn (left|right)) [1-9][0-9]{0,2}( (mm|cm|deg))?",
    r"(^a|b$|c)",
    r"(?:x{2,4}y){2}",
];

#[test]
fn outputs_match_and_matches_are_accepted() {
    let model = Model::bytes_and_pieces();
    let (mut ended, mut all, mut accepted, mut refused) = (0, 0, 0, 0);
    for (index, expression) in EXPRESSIONS.iter().enumerate() {
        let grammar = compiled(Source::Expression(expression));
        let section = model.compile(&grammar, None);
        let reader = model.read(&section);
        let whole = regex::Regex::new(&format!("^(?:{expression})$")).expect("an expression");
        // `$` of the crate is the end of the text without further flags.
        let matches = |text: &[u8]| std::str::from_utf8(text).is_ok_and(|text| whole.is_match(text));
        let mut random = Random::new(index as u64);
        for _ in 0..1800 {
            all += 1;
            let Some(text) = output(&model, &reader, &mut random, 300) else { continue };
            ended += 1;
            let shown = String::from_utf8_lossy(&text).into_owned();
            assert!(matches(&text) && grammar.automaton().accepts(&text), "{expression}: {shown:?}");
            // A text nearby is accepted where it matches, and nowhere else.
            let mut other = text;
            for _ in 0..=random.below(3) {
                let at = random.below(other.len() + 1);
                match random.below(3) {
                    0 if at < other.len() => drop(other.remove(at)),
                    1 if at < other.len() => other[at] = other[random.below(other.len())],
                    _ => other.insert(at, b"a0-. bxZ\"\\"[random.below(10)]),
                }
            }
            let shown = String::from_utf8_lossy(&other).into_owned();
            assert_eq!(grammar.automaton().accepts(&other), matches(&other), "{expression}: {shown:?}");
            if matches(&other) { accepted += 1 } else { refused += 1 }
        }
    }
    assert!(ended * 20 > all * 19, "{ended} of {all} ended");
    assert!(accepted > 3000 && refused > 3000, "{accepted} texts nearby match, {refused} do not");
}

#[test]
fn what_an_automaton_cannot_match_is_refused() {
    for (expression, problem) in [
        ("a(", "unclosed group"),
        (r"\bword\b", "no word boundaries"),
        ("a^b", "^ and $ may only stand at its ends"),
        ("(a$)+", "^ and $ may only stand at its ends"),
        ("(?m)^a$", "^ and $ may only stand at its ends"),
        (r"(?-u:\xff)", "invalid UTF-8"),
        (r"(a)\1", "backreferences are not supported"),
        ("(?=a)b", "look-around"),
    ] {
        match Source::Expression(expression).compile(&Limits::default()) {
            Err(error @ GrammarError::Pattern { .. }) => {
                let text = error.to_string();
                assert!(text.contains(problem), "{expression}: {text}");
            }
            other => panic!("{expression}: {other:?}"),
        }
    }
    let empty = Source::Expression(r"[a&&b]").compile(&Limits::default());
    assert!(matches!(empty, Err(GrammarError::Empty)), "{empty:?}");
}
