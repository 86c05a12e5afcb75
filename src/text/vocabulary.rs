//! What each token writes on a device that has no tokenizer: a tokenizer's `decoder` read as steps that turn one token
//! into bytes, and the little that decoding does beyond concatenation ([`TextRules`]). Known decoders: byte-level BPE
//! (GPT-2's alphabet of 256 characters), sentencepiece-like BPE (`▁` is a space, `<0x41>` a byte), and word pieces
//! (a space before each token, `##` continues a word).

use serde_json::Value;
use std::collections::BTreeMap;

/// What decoding a sequence does beyond writing the bytes of its tokens one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextRules {
    /// One space at the very start of a text is left out.
    pub strip_leading_space: bool,
}

impl TextRules {
    /// The bytes of a whole text, given the bytes of all its tokens.
    pub fn start_of_text<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match bytes {
            [b' ', rest @ ..] if self.strip_leading_space => rest,
            _ => bytes,
        }
    }
}

/// The vocabulary section of an artifact: offsets of the tokens' bytes, then the bytes.
pub fn vocabulary_section(vocabulary: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut offset = 0u32;
    bytes.extend(offset.to_le_bytes());
    for token in vocabulary {
        offset += token.len() as u32;
        bytes.extend(offset.to_le_bytes());
    }
    bytes.extend(vocabulary.iter().flatten());
    bytes
}

/// One step from a token's spelling to its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Every occurrence of a string becomes another.
    Replace { pattern: String, content: String },
    /// A token spelled `<0x41>` is that byte.
    ByteFallback,
    /// Every character of GPT-2's alphabet is a byte; a token with any other character is its own UTF-8.
    ByteLevel,
    /// A prefix continues the word before; every other token starts with a space.
    WordPiece { prefix: String, cleanup: bool },
}

/// A tokenizer's decoder as far as single tokens are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DecoderSteps {
    steps: Vec<Step>,
    rules: TextRules,
}

impl DecoderSteps {
    /// From the `decoder` of a tokenizer.json; the error says what was found there.
    pub(super) fn from_json(decoder: &Value) -> Result<Self, String> {
        let mut parsed = DecoderSteps { steps: Vec::new(), rules: TextRules::default() };
        let single = std::slice::from_ref(decoder);
        let sequence = match decoder["type"].as_str() {
            Some("Sequence") => decoder["decoders"].as_array().map_or(single, Vec::as_slice),
            _ => single,
        };
        let mut fused = false;
        for step in sequence {
            parsed.add(step, &mut fused)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, step: &Value, fused: &mut bool) -> Result<(), String> {
        let unknown = || match step {
            Value::Null => "it has none".to_owned(),
            other => format!("found `{other}`"),
        };
        let text = |key: &str| step[key].as_str().map(str::to_owned).ok_or_else(unknown);
        match step["type"].as_str() {
            Some("Replace") if !*fused => {
                let pattern = step["pattern"]["String"].as_str().ok_or_else(unknown)?.to_owned();
                self.steps.push(Step::Replace { pattern, content: text("content")? });
            }
            Some("ByteFallback") if !*fused => self.steps.push(Step::ByteFallback),
            Some("ByteLevel") if !*fused => self.steps.push(Step::ByteLevel),
            Some("WordPiece") if !*fused => {
                let cleanup = step["cleanup"].as_bool().ok_or_else(unknown)?;
                self.steps.push(Step::WordPiece { prefix: text("prefix")?, cleanup });
                self.rules.strip_leading_space = true;
            }
            Some("Metaspace") if !*fused => {
                self.steps.push(Step::Replace { pattern: text("replacement")?, content: " ".to_owned() });
                let never = step["prepend_scheme"] == "never" || step["add_prefix_space"] == false;
                self.rules.strip_leading_space = !never;
            }
            Some("Fuse") => *fused = true,
            // Before Fuse, Strip works on every token; after it, on the whole text.
            Some("Strip") if *fused && step["content"] == " " && step["stop"] == 0 && step["start"] == 1 => {
                self.rules.strip_leading_space = true;
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    pub(super) fn rules(&self) -> TextRules {
        self.rules
    }

    /// What the token adds to a text in which it is not the first.
    pub(super) fn token_bytes(&self, token: &str, alphabet: &BTreeMap<char, u8>) -> Vec<u8> {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                Step::Replace { pattern, content } => text = text.replace(pattern.as_str(), content),
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return vec![byte];
                    }
                }
                Step::ByteLevel => {
                    let bytes: Option<Vec<u8>> = text.chars().map(|c| alphabet.get(&c).copied()).collect();
                    return bytes.unwrap_or_else(|| text.into_bytes());
                }
                Step::WordPiece { prefix, cleanup } => {
                    text = text.strip_prefix(prefix.as_str()).map_or_else(|| format!(" {text}"), str::to_owned);
                    if *cleanup {
                        text = tokenizers::decoders::wordpiece::cleanup(&text);
                    }
                }
            }
        }
        text.into_bytes()
    }
}

/// 0x41 for `<0x41>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, every other byte for the next free character from U+0100 on.
pub(super) fn byte_alphabet() -> BTreeMap<char, u8> {
    let mut moved = 0x100..;
    (0..=255u8)
        .filter_map(|byte| {
            let itself = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let character = if itself { char::from(byte) } else { char::from_u32(moved.next()?)? };
            Some((character, byte))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(decoder: Value, tokens: &[&str]) -> Vec<Vec<u8>> {
        let steps = DecoderSteps::from_json(&decoder).expect("known");
        tokens.iter().map(|token| steps.token_bytes(token, &byte_alphabet())).collect()
    }

    #[test]
    fn tokens_of_every_known_decoder_become_bytes() {
        assert_eq!(byte_alphabet().len(), 256);
        assert_eq!(
            bytes(json!({"type": "ByteLevel"}), &["Ġthe", "Ċ", "âĢ", "語"]),
            [b" the".to_vec(), b"\n".to_vec(), vec![0xE2, 0x80], "語".as_bytes().to_vec()]
        );
        let sentencepiece = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]});
        assert_eq!(bytes(sentencepiece.clone(), &["▁▁a", "<0x0A>", "<0xZZ>"]), [&b"  a"[..], b"\n", b"<0xZZ>"]);
        assert!(!DecoderSteps::from_json(&sentencepiece).expect("known").rules().strip_leading_space);
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        assert_eq!(bytes(metaspace.clone(), &["▁a"]), [b" a"]);
        assert!(DecoderSteps::from_json(&metaspace).expect("known").rules().strip_leading_space);
        let pieces = json!({"type": "WordPiece", "prefix": "##", "cleanup": false});
        assert_eq!(bytes(pieces, &["ab", "##c", "."]), [&b" ab"[..], b"c", b" ."]);
    }

    #[test]
    fn other_decoders_are_named() {
        let cases = [
            (Value::Null, "it has none"),
            (json!({"type": "BPEDecoder", "suffix": "</w>"}), "BPEDecoder"),
            (
                json!({"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
                "Strip",
            ),
            (json!({"type": "Replace", "pattern": {"Regex": "x+"}, "content": " "}), "Regex"),
        ];
        for (decoder, named) in cases {
            let error = DecoderSteps::from_json(&decoder).expect_err("unknown");
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn only_one_space_at_the_start_is_left_out() {
        let strip = TextRules { strip_leading_space: true };
        assert_eq!(strip.start_of_text(b"  a"), b" a");
        assert_eq!(strip.start_of_text(b"a"), b"a");
        assert_eq!(TextRules::default().start_of_text(b" a"), b" a");
    }
}
