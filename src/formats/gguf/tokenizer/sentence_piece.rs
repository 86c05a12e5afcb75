//! `llama`: sentencepiece's BPE. Spaces are `▁`, characters that no token has become byte tokens, and merges are not
//! stored: every way to make a token of two others is one. Of two the one whose token has the higher score comes first,
//! then the one with the longer left part, then with the longer right part. Gemma's scores are not in the order of its
//! merges: there the lower id comes first.

use super::written::{File, Written, byte_kind, unknown_kind};
use super::{BYTE, NORMAL, NotRebuilt, Parts, Rebuilt, USER_DEFINED, Vocabulary, key};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Longest piece, in bytes: every split of every piece is looked at. Sentencepiece makes none of more than a few dozen.
const LONGEST_PIECE: usize = 256;
/// What stands for a space.
const SPACE: &str = "▁";

pub(super) fn rebuild(vocabulary: &Vocabulary<'_>) -> Result<Rebuilt, NotRebuilt> {
    let gemma =
        vocabulary.metadata.optional_text("general.architecture")?.is_some_and(|name| name.starts_with("gemma"));
    // Runs of spaces are stored as such.
    let respelled = |token: &str| match gemma && token.len() > 1 && token.bytes().all(|byte| byte == b' ') {
        true => SPACE.repeat(token.len()),
        false => token.to_owned(),
    };
    if let Some((id, ..)) = vocabulary.used().find(|(_, _, token)| token.len() > LONGEST_PIECE) {
        let problem = format!("token {id} has more than {LONGEST_PIECE} bytes, which no sentencepiece has");
        return Err(NotRebuilt::Inconsistent(problem));
    }
    let scores = scores(vocabulary, gemma)?;
    let tokens = vocabulary.object(|_, _, token| respelled(token))?;
    let unknown = match vocabulary.special("unknown_token_id")? {
        Some((_, token)) => Some(token),
        None => vocabulary.used().find(|(_, kind, _)| *kind == super::UNKNOWN).map(|(.., token)| token),
    };
    let spelled: Vec<(u32, u64, String)> =
        vocabulary.used().map(|(id, kind, token)| (id, kind, respelled(token))).collect();
    let merges: Vec<Value> = merges(&spelled, &scores).into_iter().map(|(left, right)| json!([left, right])).collect();
    let has_bytes = vocabulary.used().any(|(_, kind, _)| kind == BYTE);
    let prefixed = vocabulary.flag("add_space_prefix", !gemma)?;
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    let back = json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "});
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let mut decoders = vec![back, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if prefixed {
        decoders.push(strip);
    }
    let parts = Parts {
        added: vocabulary.added(respelled),
        normalizer: match prefixed {
            true => json!({"type": "Sequence", "normalizers": [prepend, replace]}),
            false => replace,
        },
        pre_tokenizer: match gemma {
            true => {
                json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false})
            }
            false => Value::Null,
        },
        post_processor: vocabulary.around(true)?,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": has_bytes,
            "ignore_merges": false,
            "vocab": tokens,
            "merges": merges,
        }),
    };
    Ok(Rebuilt { json: parts.json(), doubt: None })
}

/// Whether a space is put before a text; an error where spaces do not become `▁`, or text is changed otherwise.
fn spaces(json: &Value, gemma: bool) -> Result<bool, String> {
    let (mut replaces, mut before) = (false, false);
    let own = std::slice::from_ref(&json["normalizer"]);
    for part in json["normalizer"]["normalizers"].as_array().map_or(own, Vec::as_slice) {
        match part["type"].as_str() {
            None => {}
            Some("Prepend") if part["prepend"] == SPACE => before = true,
            Some("Replace") if part["pattern"]["String"] == " " && part["content"] == SPACE => replaces = true,
            Some(_) => return Err(format!("`normalizer` has a part {part}, which it has no key for")),
        }
    }
    let cuts = &json["pre_tokenizer"];
    match cuts["type"].as_str() {
        None => {}
        Some("Split") if gemma && cuts["pattern"]["String"] == " " => {}
        Some("Metaspace") if cuts["replacement"] == SPACE && !cuts["split"].as_bool().unwrap_or(true) => {
            let scheme = cuts["prepend_scheme"].as_str().unwrap_or("always");
            before |= scheme != "never" && cuts["add_prefix_space"].as_bool().unwrap_or(true);
            replaces = true;
        }
        Some(_) => return Err(format!("`pre_tokenizer` is {cuts}, and sentencepiece's BPE merges over whole texts")),
    }
    match replaces {
        true => Ok(before),
        false => Err("spaces do not become ▁, as sentencepiece has it".to_owned()),
    }
}

/// The keys of a tokenizer.json of sentencepiece's BPE. Merges are not among them: the score of a token is the rank of its
/// first merge, negative, so that of two tokens that could be made the one that was learned first is.
///
/// # Errors
/// What they cannot say.
pub(super) fn written(file: &File<'_>, rows: usize, gemma: bool) -> Result<Written, String> {
    file.require("continuing_subword_prefix", &[json!("")])?;
    file.require("end_of_word_suffix", &[json!("")])?;
    file.require("ignore_merges", &[json!(false)])?;
    let space_before = spaces(file.json, gemma)?;
    let (before, after) = file.around()?;
    let unknown = file.model["unk_token"].as_str();
    let falls_back = file.model["byte_fallback"].as_bool().unwrap_or(false);
    let kind_of = |token: &str| {
        let byte = byte_kind(token).filter(|_| falls_back);
        byte.or_else(|| unknown_kind(token, unknown)).unwrap_or(NORMAL)
    };
    let merges = file.merges()?;
    let mut ranks: BTreeMap<String, usize> = BTreeMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |token: &str| match ranks.get(token) {
        Some(&rank) => 0.0 - rank as f32,
        None if token.chars().count() > 1 => 0.0 - merges.len() as f32,
        None => 0.0,
    };
    let mut scores = vec![0.0; rows];
    for (token, id) in &file.ids {
        if let Some(place) = scores.get_mut(*id as usize).filter(|_| kind_of(token) == NORMAL) {
            *place = score(token);
        }
    }
    // Runs of spaces that are matched whole are looked for in the text as it is.
    let spelled = |kind: u64, token: &str| match gemma && kind == USER_DEFINED && token.chars().all(|one| one == '▁')
    {
        true => token.replace(SPACE, " "),
        false => token.to_owned(),
    };
    Ok(Written {
        model: "llama",
        pre: None,
        rows: file.rows(rows, kind_of, spelled)?,
        scores: Some(scores),
        merges: None,
        before,
        after,
        unknown: unknown.and_then(|token| file.ids.get(token).copied()),
        space_before: Some(space_before),
        lowercase: None,
    })
}

/// What merges are sorted by, for every id, the highest first.
fn scores(vocabulary: &Vocabulary<'_>, gemma: bool) -> Result<Vec<f64>, NotRebuilt> {
    if gemma {
        return Ok((0..vocabulary.tokens.len()).map(|id| -(id as f64)).collect());
    }
    let full = key("scores");
    let scores =
        vocabulary.metadata.optional_numbers(&full)?.ok_or_else(|| NotRebuilt::Absent { key: full.clone() })?;
    match scores.len() == vocabulary.tokens.len() && scores.iter().all(|score| !score.is_nan()) {
        true => Ok(scores),
        false => Err(NotRebuilt::Inconsistent(format!("`{full}` does not hold a number for each token"))),
    }
}

/// Every way to make a token of two others, in the order in which they are tried.
fn merges<'t>(tokens: &'t [(u32, u64, String)], scores: &[f64]) -> Vec<(&'t str, &'t str)> {
    let pieces = tokens.iter().filter(|(_, kind, _)| matches!(*kind, NORMAL | USER_DEFINED));
    let ids: HashMap<&str, u32> = pieces.clone().map(|(id, _, token)| (token.as_str(), *id)).collect();
    let mut merges = Vec::new();
    for (id, _, token) in pieces {
        let mut of_token: Vec<(u32, u32, usize, usize)> = Vec::new();
        let length = token.chars().count();
        for (left_length, (at, _)) in token.char_indices().enumerate().skip(1) {
            if let (Some(&left), Some(&right)) = (ids.get(&token[..at]), ids.get(&token[at..])) {
                of_token.push((left, right, at, left_length));
            }
        }
        of_token.sort_unstable();
        merges.extend(of_token.into_iter().map(|(_, _, at, left)| (*id, token.split_at(at), left, length - left)));
    }
    // Stable: of equal ones the lower id comes first.
    merges.sort_by(|a, b| {
        let score = |id: u32| scores.get(id as usize).copied().unwrap_or(f64::NEG_INFINITY);
        score(b.0).total_cmp(&score(a.0)).then_with(|| (Reverse(a.2), Reverse(a.3)).cmp(&(Reverse(b.2), Reverse(b.3))))
    });
    merges.into_iter().map(|(_, parts, ..)| parts).collect()
}
