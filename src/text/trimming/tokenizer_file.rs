//! tokenizer.json with the kept tokens alone. Everything but the ids is as it was, and merges have their order.

use super::KeptIds;
use super::vocabulary::{Vocabulary, parts_of, product_of};
use serde_json::{Map, Value, json};

/// A trimmed tokenizer.json.
pub(super) fn rewritten(vocabulary: &Vocabulary, kept: &KeptIds) -> Value {
    let mut file = vocabulary.file.clone();
    let model = &mut file["model"];
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("").to_owned();
    let in_model = |token: &str| vocabulary.ids.get(token).and_then(|&id| kept.new_id(id));
    match model["vocab"].take() {
        Value::Array(pieces) => {
            // A place is an id here, and rows beyond the list are padding or added tokens.
            let pieces = pieces.into_iter().enumerate();
            let stays = |(id, piece)| u32::try_from(id).ok().and_then(|id| kept.new_id(id)).map(|_| piece);
            model["vocab"] = pieces.filter_map(stays).collect();
            if let Some(unknown) = vocabulary.unknown.filter(|_| model["unk_id"].is_u64()) {
                model["unk_id"] = json!(kept.new_id(unknown));
            }
        }
        Value::Object(tokens) => {
            let stays = |(token, _): (String, Value)| in_model(&token).map(|id| (id, token));
            let mut tokens: Vec<(u32, String)> = tokens.into_iter().filter_map(stays).collect();
            tokens.sort_unstable();
            model["vocab"] = tokens.into_iter().map(|(id, token)| (token, json!(id))).collect::<Map<_, _>>().into();
        }
        other => model["vocab"] = other,
    }
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| {
            parts_of(merge).is_some_and(|(left, right)| {
                let product = product_of(left, right, &prefix);
                [left, right, &product].into_iter().all(|token| in_model(token).is_some())
            })
        });
    }
    if let Some(added) = file["added_tokens"].as_array_mut() {
        added.retain_mut(|token| renumber(&mut token["id"], kept));
    }
    renumber_processor(&mut file["post_processor"], kept);
    if file["padding"].is_object() {
        renumber(&mut file["padding"]["pad_id"], kept);
    }
    file
}

/// Puts the new id in the place of an old one; false where it is gone.
fn renumber(id: &mut Value, kept: &KeptIds) -> bool {
    let new = id.as_u64().and_then(|old| u32::try_from(old).ok()).and_then(|old| kept.new_id(old));
    if let Some(new) = new {
        *id = json!(new);
    }
    new.is_some()
}

fn renumber_processor(processor: &mut Value, kept: &KeptIds) {
    match processor["type"].as_str() {
        Some("BertProcessing" | "RobertaProcessing") => {
            for part in ["cls", "sep"] {
                renumber(&mut processor[part][1], kept);
            }
        }
        Some("Sequence") => {
            if let Some(processors) = processor["processors"].as_array_mut() {
                processors.iter_mut().for_each(|processor| renumber_processor(processor, kept));
            }
        }
        Some("TemplateProcessing") => {
            let tokens = processor["special_tokens"].as_object_mut().into_iter().flatten();
            for (_, token) in tokens {
                let ids = token["ids"].as_array_mut().into_iter().flatten();
                ids.for_each(|id| {
                    renumber(id, kept);
                });
            }
        }
        _ => {}
    }
}
