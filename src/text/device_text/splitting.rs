//! A pre-tokenizer as splitting steps. Regular expressions are known by their text: the runtime has a scanner for each.

use super::characters::Classes;
use super::normalizer::Normalization;
use super::{HostOnly, Spelled, host_only, type_of};
use serde_json::Value;
use slm_runtime::format::text::{Behavior, MAX_STEPS, Step, StepRecord, class};

/// What the expressions need to know of a character.
const EXPRESSIONS: u8 = class::LETTER | class::NUMBER | class::SPACE;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Where a prefix is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Prefix {
    #[default]
    Nowhere = 0,
    EveryPiece = 1,
    StartOfText = 2,
}

/// A pre-tokenizer.
#[derive(Clone, Debug, Default)]
pub(super) struct Splitting {
    pub(super) steps: Vec<StepRecord>,
    pub(super) classes: Classes,
    pub(super) prefix: Prefix,
    pub(super) prefix_text: String,
    /// Whether symbols are bytes.
    pub(super) bytes: bool,
    wanted: u8,
}

impl Splitting {
    /// `normalization` receives what a pre-tokenizer replaces.
    pub(super) fn from_json(
        pre_tokenizer: &Value,
        normalization: &mut Normalization,
        normalized: &Spelled,
    ) -> Result<Self, HostOnly> {
        let mut splitting = Splitting::default();
        if !pre_tokenizer.is_null() {
            splitting.add(pre_tokenizer, normalization, normalized)?;
        }
        if splitting.steps.len() > MAX_STEPS as usize {
            return Err(host_only("sequence of more than four pre-tokenizers", pre_tokenizer));
        }
        splitting.classes = Classes::of(splitting.wanted)?;
        Ok(splitting)
    }

    fn add(&mut self, part: &Value, normalization: &mut Normalization, normalized: &Spelled) -> Result<(), HostOnly> {
        let unknown = || host_only("pre-tokenizer", part);
        let begun = self.bytes || self.prefix != Prefix::Nowhere || !self.steps.is_empty();
        // Bytes are written as other characters, and what follows would see those.
        if self.bytes {
            return Err(host_only("pre-tokenizer after ByteLevel", type_of(part)));
        }
        match part["type"].as_str() {
            Some("Sequence") => {
                let parts = part["pretokenizers"].as_array().ok_or_else(unknown)?;
                return parts.iter().try_for_each(|part| self.add(part, normalization, normalized));
            }
            Some("ByteLevel") => {
                if part["add_prefix_space"] == true {
                    if begun {
                        return Err(host_only("add_prefix_space of ByteLevel after", "another pre-tokenizer"));
                    }
                    self.prefix = Prefix::EveryPiece;
                    " ".clone_into(&mut self.prefix_text);
                }
                if part["use_regex"] != false {
                    self.step(Step::Gpt2, 0);
                }
                self.bytes = true;
            }
            Some("Split") => {
                let plain = part["behavior"] == "Isolated" && part["invert"] == false;
                // Everything matches, so that it is the same to keep what matches and leave out the rest.
                let inverted = part["behavior"] == "Removed" && part["invert"] == true;
                match (part["pattern"]["Regex"].as_str(), part["pattern"]["String"].as_str()) {
                    (Some(GPT2), None) if plain || inverted => self.step(Step::Gpt2, 0),
                    (Some(LLAMA3), None) if plain || inverted => self.step(Step::Llama3, 3),
                    (Some(QWEN2), None) if plain || inverted => self.step(Step::Llama3, 1),
                    (None, Some(text)) if part["invert"] == false => {
                        let mut characters = text.chars();
                        let (Some(one), None) = (characters.next(), characters.next()) else { return Err(unknown()) };
                        self.delimit(one, behavior(part).ok_or_else(unknown)?);
                    }
                    _ => return Err(unknown()),
                }
            }
            Some("CharDelimiterSplit") => {
                let delimiter = part["delimiter"].as_str().and_then(|text| text.chars().next());
                self.delimit(delimiter.ok_or_else(unknown)?, Behavior::Removed);
            }
            Some("Digits") => {
                let alone = part["individual_digits"] == true;
                self.classes(class::NUMERIC, if alone { Behavior::Isolated } else { Behavior::Contiguous });
            }
            Some("Punctuation") => self.classes(class::PUNCTUATION, behavior(part).ok_or_else(unknown)?),
            Some("WhitespaceSplit") => self.classes(class::SPACE, Behavior::Removed),
            Some("BertPreTokenizer") => {
                self.classes(class::SPACE, Behavior::Removed);
                self.classes(class::PUNCTUATION, Behavior::Isolated);
            }
            Some("Metaspace") => {
                let replacement = part["replacement"].as_str().and_then(|text| text.chars().next());
                let replacement = replacement.ok_or_else(unknown)?;
                self.prefix = match part["prepend_scheme"].as_str() {
                    Some("always") => Prefix::EveryPiece,
                    Some("first") => Prefix::StartOfText,
                    Some("never") => Prefix::Nowhere,
                    _ => return Err(unknown()),
                };
                // The replacement moves ahead of the added tokens, and to the start of the text as it was.
                let apart = |(text, ..): &(Vec<u8>, u32, u8)| {
                    let text = String::from_utf8_lossy(text);
                    !text.contains(' ') && !text.contains(replacement)
                };
                let plain = self.prefix != Prefix::StartOfText || normalization.only_replaces();
                if begun || !plain || !normalized.iter().all(apart) {
                    return Err(host_only("Metaspace beside", "other normalizers, pre-tokenizers or added tokens"));
                }
                normalization.replace(' ', &replacement.to_string())?;
                if self.prefix != Prefix::Nowhere {
                    self.prefix_text = replacement.to_string();
                }
                if part["split"] != false {
                    self.delimit(replacement, Behavior::MergedWithNext);
                }
            }
            _ => return Err(host_only("pre-tokenizer", type_of(part))),
        }
        Ok(())
    }

    fn step(&mut self, step: Step, value: u32) {
        self.wanted |= EXPRESSIONS;
        self.steps.push(StepRecord { kind: step as u8, behavior: 0, classes: 0, reserved: 0, value });
    }

    fn classes(&mut self, classes: u8, behavior: Behavior) {
        self.wanted |= classes;
        let kind = Step::Classes as u8;
        self.steps.push(StepRecord { kind, behavior: behavior as u8, classes, reserved: 0, value: 0 });
    }

    fn delimit(&mut self, character: char, behavior: Behavior) {
        let (kind, value) = (Step::Character as u8, character as u32);
        self.steps.push(StepRecord { kind, behavior: behavior as u8, classes: 0, reserved: 0, value });
    }
}

fn behavior(part: &Value) -> Option<Behavior> {
    Some(match part["behavior"].as_str()? {
        "Removed" => Behavior::Removed,
        "Isolated" => Behavior::Isolated,
        "Contiguous" => Behavior::Contiguous,
        "MergedWithPrevious" => Behavior::MergedWithPrevious,
        "MergedWithNext" => Behavior::MergedWithNext,
        _ => return None,
    })
}
