//! `gpt2`: byte-level BPE. Tokens are spelled in the alphabet of bytes already, merges are pairs `LEFT RIGHT`, and
//! `tokenizer.ggml.pre` names the way in which text is cut before: a name of llama.cpp for one regular expression or more.

use super::written::{File, Written};
use super::{NORMAL, NotRebuilt, Parts, Rebuilt, Vocabulary, key};
use serde_json::{Value, json};

/// What ByteLevel cuts by itself.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Numbers of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Single digits.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// What llama.cpp cuts by where it knows no better, one after the other.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

/// A way to cut text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// By [`GPT2`].
    Gpt2,
    /// Digits alone, then by [`GPT2`].
    Digits,
    /// By one expression.
    By(&'static str),
    /// By [`DEFAULT`].
    Default,
}

/// What a name of `tokenizer.ggml.pre` stands for.
struct Splitting {
    names: &'static [&'static str],
    cut: Cut,
    /// Whether a piece that is a token is that token, whatever the merges make of it.
    ignore_merges: bool,
    /// Whether texts open with the opening token where no key says it.
    opens: bool,
    /// Whether texts stand between the opening and the end token.
    separates: bool,
    /// Whether text is composed first, which the file does not say.
    composes: bool,
}

const PLAIN: Splitting =
    Splitting { names: &[], cut: Cut::Gpt2, ignore_merges: false, opens: false, separates: false, composes: false };

const SPLITTINGS: [Splitting; 8] = [
    Splitting { names: &["gpt-2", "phi-2", "modern-bert", "exaone4", "mpt", "olmo", "jais"], ..PLAIN },
    Splitting { names: &["roberta-bpe", "jina-v1-en"], separates: true, ..PLAIN },
    Splitting {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        cut: Cut::Digits,
        ..PLAIN
    },
    Splitting {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "pixtral", "midm-2.0"],
        cut: Cut::By(LLAMA3),
        ignore_merges: true,
        opens: true,
        ..PLAIN
    },
    Splitting { names: &["dbrx", "smaug-bpe"], cut: Cut::By(LLAMA3), ..PLAIN },
    Splitting { names: &["chatglm-bpe", "glm4"], cut: Cut::By(LLAMA3), ignore_merges: true, ..PLAIN },
    Splitting {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"],
        cut: Cut::By(QWEN2),
        composes: true,
        ..PLAIN
    },
    Splitting { names: &["default"], cut: Cut::Default, ..PLAIN },
];

/// One expression as a pre-tokenizer.
fn split(expression: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
}

impl Cut {
    const ALL: [Cut; 5] = [Cut::Gpt2, Cut::Digits, Cut::By(LLAMA3), Cut::By(QWEN2), Cut::Default];

    /// The cut that a pre-tokenizer makes: by its steps, since one can be written in several ways.
    fn of(pre_tokenizer: &Value) -> Result<Cut, String> {
        let found = steps(pre_tokenizer)?;
        let of = |cut: &Cut| steps(&cut.pre_tokenizer()).is_ok_and(|steps| steps == found);
        Cut::ALL.into_iter().find(of).ok_or_else(|| {
            "`pre_tokenizer` cuts text in a way that llama.cpp has no name for, or slmc does not know; export the model as \
             safetensors"
                .to_owned()
        })
    }

    fn pre_tokenizer(self) -> Value {
        let bytes = |cuts: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cuts});
        let sequence = |parts: Vec<Value>| json!({"type": "Sequence", "pretokenizers": parts});
        match self {
            Cut::Gpt2 => bytes(true),
            Cut::Digits => sequence(vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)]),
            Cut::By(expression) => sequence(vec![split(expression), bytes(false)]),
            Cut::Default => sequence(DEFAULT.into_iter().map(split).chain([bytes(false)]).collect()),
        }
    }
}

/// What a pre-tokenizer does, one after the other.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Digits stand alone.
    Digits,
    /// Matches of an expression stand alone.
    Split(String),
}

/// The steps of a pre-tokenizer that ends in ByteLevel.
fn steps(pre_tokenizer: &Value) -> Result<Vec<Step>, String> {
    let own = std::slice::from_ref(pre_tokenizer);
    let parts = pre_tokenizer["pretokenizers"].as_array().map_or(own, Vec::as_slice);
    let mut steps = Vec::new();
    for part in parts {
        let kind = part["type"].as_str().unwrap_or_default();
        let flag = |key: &str, default: bool| part[key].as_bool().unwrap_or(default);
        match kind {
            "Digits" if flag("individual_digits", false) => steps.push(Step::Digits),
            "Split" if part["behavior"] == "Isolated" && !flag("invert", false) => {
                let expression = part["pattern"]["Regex"].as_str();
                let expression = expression.ok_or("`pre_tokenizer` splits at a text, not at an expression")?;
                steps.push(Step::Split(expression.to_owned()));
            }
            "ByteLevel" if flag("add_prefix_space", true) => {
                return Err("`pre_tokenizer` puts a space before a text, which it has no key for".to_owned());
            }
            "ByteLevel" if flag("use_regex", true) => steps.push(Step::Split(GPT2.to_owned())),
            "ByteLevel" => {}
            _ => return Err(format!("`pre_tokenizer` has a part {part}, which it has no name for")),
        }
    }
    Ok(steps)
}

/// The keys of a byte-level tokenizer.json.
///
/// # Errors
/// What they cannot say.
pub(super) fn written(file: &File<'_>, rows: usize) -> Result<Written, String> {
    file.require("byte_fallback", &[json!(false)])?;
    file.require("continuing_subword_prefix", &[json!("")])?;
    file.require("end_of_word_suffix", &[json!("")])?;
    let composes = match &file.json["normalizer"] {
        Value::Null => false,
        normalizer if normalizer["type"] == "NFC" => true,
        normalizer => return Err(format!("`normalizer` is {normalizer}, which it has no key for")),
    };
    let (before, after) = file.around()?;
    let cut = Cut::of(&file.json["pre_tokenizer"])?;
    let ignores = file.model["ignore_merges"].as_bool().unwrap_or(false);
    // Composed text is what a name stands for, or it is not: where it stands for it and the tokenizer does not, only text that
    // is not composed yet is cut otherwise.
    let alike = |own: &&Splitting| own.cut == cut && own.ignore_merges == ignores && !own.separates;
    let exact = SPLITTINGS.iter().filter(alike).find(|own| own.composes == composes);
    let Some(splitting) = exact.or_else(|| SPLITTINGS.iter().filter(alike).find(|own| own.composes || !composes))
    else {
        return Err("`normalizer` composes text (NFC), or `model.ignore_merges` is set, where the name of its cut has the other"
            .to_owned());
    };
    let merges = file.merges()?;
    if let Some((left, right)) = merges.iter().find(|(left, right)| left.contains(' ') || right.contains(' ')) {
        return Err(format!(
            "`model.merges` has a space in {left:?} {right:?}, which stands between the two parts there"
        ));
    }
    Ok(Written {
        model: "gpt2",
        pre: splitting.names.first().copied(),
        rows: file.rows(rows, |_| NORMAL, |_, token| token.to_owned())?,
        scores: None,
        merges: Some(merges.into_iter().map(|(left, right)| format!("{left} {right}")).collect()),
        before,
        after,
        unknown: None,
        space_before: Some(false),
        lowercase: None,
    })
}

/// A merge: the two tokens that its first space after the first character stands between.
fn pair(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let at = first + merge[first..].find(' ')?;
    Some((&merge[..at], &merge[at + 1..]))
}

pub(super) fn rebuild(vocabulary: &Vocabulary<'_>) -> Result<Rebuilt, NotRebuilt> {
    let stated = vocabulary.metadata.optional_text(&key("pre"))?;
    let name = stated.unwrap_or("default");
    let splitting = SPLITTINGS.iter().find(|splitting| splitting.names.contains(&name));
    let splitting = splitting.ok_or_else(|| NotRebuilt::Splitting { found: name.to_owned() })?;
    let tokens = vocabulary.object(|_, _, token| token.to_owned())?;
    let full = key("merges");
    let merges = vocabulary.metadata.optional_texts(&full)?.ok_or_else(|| NotRebuilt::Absent { key: full.clone() })?;
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        let known = pair(merge).filter(|(left, right)| {
            let whole = format!("{left}{right}");
            [*left, *right, &whole].into_iter().all(|token| tokens.contains_key(token))
        });
        let (left, right) = known.ok_or_else(|| {
            NotRebuilt::Inconsistent(format!("`{full}` has {merge:?}, which does not make one token of two"))
        })?;
        pairs.push(json!([left, right]));
    }
    let around = match splitting.separates {
        false => vocabulary.around(splitting.opens)?,
        true => vocabulary.template(vocabulary.special("bos_token_id")?, vocabulary.special("eos_token_id")?),
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let parts = Parts {
        added: vocabulary.added(str::to_owned),
        normalizer: if splitting.composes { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: splitting.cut.pre_tokenizer(),
        post_processor: if around.is_null() { byte_level.clone() } else { around },
        decoder: byte_level,
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": splitting.ignore_merges,
            "vocab": tokens,
            "merges": pairs,
        }),
    };
    let doubt = stated.is_none().then(|| {
        "has no `tokenizer.ggml.pre`, as old files: text is cut as llama.cpp does then, which may not be how the model was \
         trained"
            .to_owned()
    });
    Ok(Rebuilt { json: parts.json(), doubt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_is_found_again_by_its_pre_tokenizer() {
        for splitting in &SPLITTINGS {
            assert!(Cut::of(&splitting.cut.pre_tokenizer()) == Ok(splitting.cut), "{:?}", splitting.names);
        }
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
        let by_hand = json!({"type": "Sequence", "pretokenizers": [split(GPT2), bytes]});
        assert!(Cut::of(&by_hand) == Ok(Cut::Gpt2), "the expression that ByteLevel has may stand before it");
        assert!(Cut::of(&json!({"type": "ByteLevel", "add_prefix_space": true})).is_err());
        assert!(Cut::of(&json!({"type": "Sequence", "pretokenizers": [split("a+"), bytes]})).is_err());
    }

    #[test]
    fn the_space_that_parts_a_merge_is_not_its_first_character() {
        assert_eq!(pair("a b"), Some(("a", "b")));
        assert_eq!(pair("Ġ the"), Some(("Ġ", "the")));
        assert_eq!(pair("  b"), Some((" ", "b")));
        assert_eq!((pair(""), pair("ab"), pair(" ")), (None, None, None));
    }
}
