//! Cuts a template into text and tags, and tags into tokens, at the same places as minijinja's lexer: the guards of
//! [`super::prepare`] hold only where both agree. A template that minijinja's refuses may be cut anywhere.

/// The kinds of tokens that guards tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or keyword.
    Name,
    Number,
    /// A string in quotes.
    Text,
    /// An operator, bracket or other punctuation.
    Symbol,
}

/// A token by its place in the template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether it is this operator or keyword; a string never is.
    pub(super) fn is(&self, text: &str, source: &str) -> bool {
        self.kind != Kind::Text && self.text(source) == text
    }
}

/// A stretch of a template.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Text, a comment, or a whole `raw` block.
    Text(&'a str),
    /// From `{{` or `{%` to its end, both included.
    Tag { text: &'a str, start: usize, tokens: Vec<Token> },
}

/// Reads a template from its start.
pub(super) struct Lexer<'a> {
    source: &'a str,
    offset: usize,
    /// Brackets opened less those closed, over the whole template: inside them `}}` and `%}` end nothing.
    balance: isize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Lexer { source, offset: 0, balance: 0 }
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The next stretch; `None` at the end; or the reason why it cannot be read.
    pub(super) fn next_piece(&mut self) -> Option<Result<Piece<'a>, &'static str>> {
        let rest = self.source.get(self.offset..).filter(|rest| !rest.is_empty())?;
        let begin = rest
            .match_indices('{')
            .map(|(at, _)| at)
            .find(|&at| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
        Some(match begin {
            None => Ok(self.text(rest.len())),
            Some(0) => self.marked(rest),
            Some(at) => Ok(self.text(at)),
        })
    }

    /// The next `length` bytes as text.
    fn text(&mut self, length: usize) -> Piece<'a> {
        let text = &self.source[self.offset..self.offset + length];
        self.offset += length;
        Piece::Text(text)
    }

    /// A stretch that begins with `{{`, `{%` or `{#`.
    fn marked(&mut self, rest: &'a str) -> Result<Piece<'a>, &'static str> {
        let skip = if matches!(rest.as_bytes().get(2), Some(b'-' | b'+')) { 3 } else { 2 };
        if rest.starts_with("{#") {
            let end = rest[skip..].find("#}").ok_or("a comment without its `#}`")?;
            return Ok(self.text(skip + end + 2));
        }
        let raw = if rest.starts_with("{%") { basic_tag(&rest[skip..], "raw", false) } else { None };
        let Some(raw) = raw else { return self.tag(rest, skip) };
        let mut length = skip + raw;
        while let Some(at) = rest[length..].find("{%") {
            length += at + 2;
            if let Some(end) = basic_tag(&rest[length..], "endraw", true) {
                return Ok(self.text(length + end));
            }
        }
        Err("a `raw` block without its `endraw`")
    }

    fn tag(&mut self, rest: &'a str, skip: usize) -> Result<Piece<'a>, &'static str> {
        let start = self.offset;
        let end = if rest.starts_with("{%") { "%}" } else { "}}" };
        let bytes = rest.as_bytes();
        let mut tokens = Vec::new();
        let mut at = skip;
        loop {
            let Some(&byte) = bytes.get(at) else { return Err("a tag without its end") };
            if byte.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            if self.balance == 0 {
                let sign = usize::from(matches!(byte, b'-' | b'+'));
                if bytes[at + sign..].starts_with(end.as_bytes()) {
                    at += sign + end.len();
                    self.offset = start + at;
                    return Ok(Piece::Tag { text: &rest[..at], start, tokens });
                }
            }
            self.offset = start + at;
            let (kind, length) = self.token(&rest[at..], at > 0 && bytes[at - 1] == b'.')?;
            tokens.push(Token { kind, start: start + at, end: start + at + length });
            at += length;
        }
    }

    /// Kind and length of the token that `rest` begins with.
    fn token(&mut self, rest: &str, after_dot: bool) -> Result<(Kind, usize), &'static str> {
        let bytes = rest.as_bytes();
        if let Some(b"//" | b"**" | b"==" | b"!=" | b">=" | b"<=") = bytes.get(..2) {
            return Ok((Kind::Symbol, 2));
        }
        match bytes.first() {
            Some(b'(' | b'[' | b'{') => {
                self.balance += 1;
                Ok((Kind::Symbol, 1))
            }
            Some(b')' | b']' | b'}') => {
                self.balance -= 1;
                Ok((Kind::Symbol, 1))
            }
            Some(b'+' | b'-' | b'*' | b'/' | b'%' | b'.' | b',' | b':' | b'~' | b'|' | b'=' | b'>' | b'<') => {
                Ok((Kind::Symbol, 1))
            }
            Some(&quote @ (b'\'' | b'"')) => text_length(bytes, quote).map(|length| (Kind::Text, length)),
            Some(byte) if byte.is_ascii_digit() => Ok((Kind::Number, number_length(rest, after_dot))),
            _ => match name_length(rest) {
                0 => Err("a character that no expression has"),
                length => Ok((Kind::Name, length)),
            },
        }
    }
}

/// Length of `name %}` with its spaces and sign, where `text` begins with that.
fn basic_tag(text: &str, name: &str, sign_first: bool) -> Option<usize> {
    let space = |character: char| character.is_ascii_whitespace();
    let mut rest = text;
    if sign_first {
        rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    }
    rest = rest.trim_start_matches(space).strip_prefix(name)?.trim_start_matches(space);
    rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.starts_with("%}").then(|| text.len() - rest.len() + 2)
}

/// Length of a string with its quotes.
fn text_length(bytes: &[u8], quote: u8) -> Result<usize, &'static str> {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            _ if byte == quote => return Ok(at + 1),
            _ => at += 1,
        }
    }
    Err("a string without its closing quote")
}

fn name_length(text: &str) -> usize {
    let word =
        |(at, byte): &(usize, u8)| *byte == b'_' || byte.is_ascii_alphabetic() || *at > 0 && byte.is_ascii_digit();
    text.bytes().enumerate().take_while(word).count()
}

/// Length of a number: decimal with fraction and exponent, or with a radix. After a dot it is an index, without a
/// fraction.
fn number_length(text: &str, after_dot: bool) -> usize {
    #[derive(Clone, Copy, PartialEq)]
    enum Part {
        Radix,
        Integer,
        Fraction,
        Exponent,
        Signed,
    }
    let bytes = text.as_bytes();
    let prefix = matches!(bytes.get(..2), Some(b"0b" | b"0B" | b"0o" | b"0O" | b"0x" | b"0X"));
    let hexadecimal = matches!(bytes.get(..2), Some(b"0x" | b"0X"));
    let start = if prefix { 2 } else { 0 };
    let mut part = if prefix { Part::Radix } else { Part::Integer };
    let mut at = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    while let Some(&byte) = bytes.get(at) {
        part = match (byte, part) {
            (b'.', Part::Integer) if after_dot => break,
            (b'.', Part::Integer) => {
                let exponent = matches!(bytes.get(at + 1), Some(b'e' | b'E'))
                    && matches!(bytes.get(at + 2), Some(b'+' | b'-' | b'0'..=b'9'));
                if !exponent && name_length(&text[at + 1..]) > 0 {
                    break;
                }
                Part::Fraction
            }
            (b'E' | b'e', Part::Integer | Part::Fraction) => Part::Exponent,
            (b'+' | b'-' | b'0'..=b'9', Part::Exponent) => Part::Signed,
            (b'0'..=b'9', part) => part,
            (b'a'..=b'f' | b'A'..=b'F', Part::Radix) if hexadecimal => part,
            (b'_', part) => part,
            _ => break,
        };
        at += 1;
    }
    at
}
