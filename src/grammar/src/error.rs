//! Why a grammar is refused: where in its text, which limit, and what to do.

/// A number that a grammar may not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of the grammar's text.
    Text,
    /// Nesting of expressions, schemas or groups.
    Nesting,
    /// Rules of a grammar.
    Rules,
    /// Rules that are inside themselves.
    Recursion,
    /// Steps of the nondeterministic automaton.
    Steps,
    /// States of the automaton.
    States,
    /// Work of a compilation, in steps of the automaton.
    Work,
    /// Bytes of the section.
    Section,
}

impl Limit {
    const fn name(self) -> &'static str {
        match self {
            Limit::Text => "bytes of the grammar's text",
            Limit::Nesting => "levels of nesting",
            Limit::Rules => "rules",
            Limit::Recursion => "recursive rules",
            Limit::Steps => "steps of its expressions, repetitions written out",
            Limit::States => "states of its automaton",
            Limit::Work => "steps of compiling it",
            Limit::Section => "bytes of its section",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Limit::Text => "make it shorter",
            Limit::Nesting => "name inner parts as rules or definitions",
            Limit::Rules | Limit::Recursion => "use fewer rules",
            Limit::Steps | Limit::States => {
                "bound repetitions and lengths by smaller numbers, or use * where no bound is needed"
            }
            Limit::Work => "use fewer or simpler alternatives and patterns",
            Limit::Section => "use fewer strings with different bounds",
        }
    }
}

/// A grammar that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    /// The grammar's text is not UTF-8 or does not follow its own syntax.
    #[error("grammar, line {line}, column {column}: {problem}")]
    Syntax {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
    /// A regular expression that does not parse, or that an automaton cannot match.
    #[error("regular expression `{pattern}`: {problem}")]
    Pattern {
        /// The expression.
        pattern: String,
        /// What is wrong.
        problem: String,
    },
    /// A text that is not JSON.
    #[error("{what} is not JSON: {problem}")]
    Json {
        /// The input.
        what: &'static str,
        /// What is wrong, and where.
        problem: String,
    },
    /// A keyword of JSON Schema that is not supported.
    #[error(
        "schema at `{pointer}`: the keyword `{keyword}` is not supported; leave it out and check the result instead"
    )]
    Unsupported {
        /// JSON pointer of the schema.
        pointer: String,
        /// The keyword.
        keyword: String,
    },
    /// A schema that is malformed or cannot be compiled.
    #[error("schema at `{pointer}`: {problem}")]
    Schema {
        /// JSON pointer of the schema.
        pointer: String,
        /// What is wrong.
        problem: String,
    },
    /// A list of choices that cannot be used.
    #[error("choices: {problem}")]
    Choices {
        /// What is wrong.
        problem: String,
    },
    /// A rule that is used and not defined.
    #[error("rule `{rule}` is used and not defined")]
    Undefined {
        /// Its name.
        rule: String,
    },
    /// A rule that begins with itself.
    #[error("rule `{rule}` can begin with itself; put what it begins with first, or write the repetition with * or +")]
    LeftRecursion {
        /// Its name.
        rule: String,
    },
    /// A recursive rule after which one byte is not enough to know how to go on.
    #[error(
        "rule `{rule}` is recursive, and at the byte {byte:?} there are two ways to go on {place}; let recursive parts begin and end with bytes that nothing else begins with there"
    )]
    Ambiguous {
        /// Its name.
        rule: String,
        /// The byte, as text.
        byte: String,
        /// Where.
        place: &'static str,
    },
    /// A limit that guards against grammars that never finish.
    #[error("the grammar exceeds {limit} {}: {}", what.name(), what.remedy())]
    Limit {
        /// What there is too much of.
        what: Limit,
        /// The most allowed.
        limit: u64,
    },
    /// No text at all follows the grammar.
    #[error(
        "no text follows the grammar: an expression that cannot match, a rule without an end, or bounds that cross"
    )]
    Empty,
    /// The shortest text nests deeper than the stack.
    #[error("the shortest text that follows the grammar nests deeper than {depth} recursive rules")]
    Depth {
        /// Return states of the stack.
        depth: usize,
    },
    /// The tokens of the model cannot spell any text of the grammar.
    #[error("no sequence of the model's tokens follows the grammar{}", missing(bytes))]
    NoTokens {
        /// Bytes that the grammar uses and no token has.
        bytes: Vec<u8>,
    },
    /// A vocabulary that a section cannot be made for.
    #[error("vocabulary: {problem}")]
    Vocabulary {
        /// What is wrong.
        problem: String,
    },
}

fn missing(bytes: &[u8]) -> String {
    match bytes {
        [] => String::new(),
        some => {
            format!(": no token has the byte {}", some.iter().map(|&byte| shown(byte)).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A byte as an error shows it.
pub(crate) fn shown(byte: u8) -> String {
    if byte.is_ascii_graphic() { char::from(byte).to_string() } else { format!("0x{byte:02x}") }
}

/// Part of a compilation whose text is known.
pub(crate) type Result<T> = core::result::Result<T, GrammarError>;
