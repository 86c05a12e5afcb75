//! Names of tensors without what training and saving put around them. A wrapper that holds a model as a part of itself
//! puts the part's name before every name (`module.` of DistributedDataParallel, `_orig_mod.` of torch.compile,
//! `base_model.model.` of PEFT, `model.` of a class that calls its model so), or into it where it wraps layers. What is
//! before the names is told by the token table: `WRAPPERS PREFIX TABLE`, the prefix being one of the family's.

use crate::model::families::{FAMILIES, Family};
use crate::model::notes::Note;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of a name that wrappers of layers put anywhere, each with its dot.
const INSERTED: [&str; 4] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module."];
/// What wrappers put before names.
const WRAPPERS: [&str; 10] = [
    "module.",
    "base_model.model.",
    "base_model.",
    "model.",
    "transformer.",
    "bert.",
    "distilbert.",
    "auto_model.",
    "0.",
    "backbone.",
];
/// The head's matrix, which may stand for the table.
const HEAD: &str = "lm_head.weight";

/// The tensors by their names without wrappers, and what is said of it. `family` is the model's, where it is known. Names
/// that would be equal without their wrappers stay as they are.
pub(super) fn unwrapped<T>(
    tensors: BTreeMap<String, T>,
    family: Option<&Family>,
) -> (BTreeMap<String, T>, Option<Note>) {
    let names: Vec<String> = tensors.keys().map(|name| without_inserted(name)).collect();
    let outer = outer(&names, family);
    let bare = |name: &String| name.strip_prefix(&outer).unwrap_or(name).to_owned();
    let renamed: Vec<String> = names.iter().map(bare).collect();
    let changed = tensors.keys().zip(&renamed).filter(|(before, after)| before != after).count();
    let distinct = renamed.iter().collect::<BTreeSet<_>>().len() == renamed.len();
    if changed == 0 || !distinct {
        return (tensors, None);
    }
    let found = INSERTED.iter().filter(|part| tensors.keys().any(|name| holds(name, part)));
    let mut wrappers: Vec<String> = found.map(|part| (*part).to_owned()).collect();
    if !outer.is_empty() {
        wrappers.insert(0, outer);
    }
    let tensors = renamed.into_iter().zip(tensors.into_values()).collect();
    (tensors, Some(Note::Wrapped { wrappers, tensors: changed }))
}

/// Whether a name has a part that wrappers insert.
fn holds(name: &str, part: &str) -> bool {
    name.starts_with(part) || name.contains(&format!(".{part}"))
}

fn without_inserted(name: &str) -> String {
    let mut name = name.to_owned();
    for part in INSERTED {
        while let Some(rest) = name.strip_prefix(part) {
            name = rest.to_owned();
        }
        name = name.replace(&format!(".{part}"), ".");
    }
    name
}

/// The wrappers before the names; nothing where they are not all known.
fn outer(names: &[String], family: Option<&Family>) -> String {
    let families: Vec<&Family> = match family {
        Some(family) => vec![family],
        None => FAMILIES.iter().collect(),
    };
    for table in families.iter().map(|family| family.token_table).chain([HEAD]) {
        let of_table = families.iter().filter(|family| family.token_table == table);
        let mut prefixes: Vec<&str> = of_table.flat_map(|family| family.prefixes).copied().collect();
        if table == HEAD {
            prefixes.push("");
        }
        let leads = names.iter().filter_map(|name| name.strip_suffix(table));
        for lead in leads.filter(|lead| lead.is_empty() || lead.ends_with('.')) {
            if prefixes.contains(&lead) {
                return String::new();
            }
            // The longest prefix of the family first.
            prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
            let outer = prefixes.iter().filter_map(|prefix| lead.strip_suffix(prefix)).find(|outer| is_wrappers(outer));
            if let Some(outer) = outer {
                return outer.to_owned();
            }
        }
    }
    String::new()
}

/// Whether a text is one known wrapper after the other.
fn is_wrappers(text: &str) -> bool {
    text.is_empty() || WRAPPERS.iter().any(|wrapper| text.strip_prefix(wrapper).is_some_and(is_wrappers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &str) -> Option<&'static Family> {
        const TABLE: &[Family] = &FAMILIES;
        TABLE.iter().find(|family| family.model_type == name)
    }

    fn renamed(names: &[&str], model: &str) -> (Vec<String>, Option<String>) {
        let tensors = names.iter().map(|name| ((*name).to_owned(), ())).collect();
        let (tensors, note) = unwrapped(tensors, family(model));
        (tensors.into_keys().collect(), note.map(|note| note.to_string()))
    }

    #[test]
    fn known_wrappers_are_taken_off() {
        let cases: [(&str, &[&str], &str); 14] = [
            ("llama", &["module.lm_head.weight", "module.model.embed_tokens.weight"], "`module.`"),
            ("llama", &["_orig_mod.lm_head.weight", "_orig_mod.model.embed_tokens.weight"], "`_orig_mod.`"),
            (
                "llama",
                &["base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"],
                "`base_model.model.`",
            ),
            ("llama", &["lm_head.weight", "model.model.embed_tokens.weight"], "`model.`"),
            ("llama", &["module.module.lm_head.weight", "module.module.model.embed_tokens.weight"], "`module.module.`"),
            (
                "llama",
                &["module._orig_mod.lm_head.weight", "module._orig_mod.model.embed_tokens.weight"],
                "`module.` and `_orig_mod.`",
            ),
            ("llama", &["model._orig_mod.embed_tokens.weight", "lm_head.weight"], "`_orig_mod.`"),
            ("llama", &["transformer.model.embed_tokens.weight", "transformer.lm_head.weight"], "`transformer.`"),
            ("bert", &["model.bert.embeddings.word_embeddings.weight", "model.classifier.weight"], "`model.`"),
            (
                "bert",
                &["0.auto_model.embeddings.word_embeddings.weight", "0.auto_model.pooler.dense.weight"],
                "`0.auto_model.`",
            ),
            ("distilbert", &["bert.embeddings.word_embeddings.weight", "vocab_projector.bias"], "`bert.`"),
            ("distilbert", &["distilbert.distilbert.embeddings.word_embeddings.weight"], "`distilbert.`"),
            ("gpt2", &["model.transformer.wte.weight", "model.lm_head.weight"], "`model.`"),
            ("llama", &["module.lm_head.weight", "module.model.norm.weight"], "`module.`"),
        ];
        for (model, names, said) in cases {
            let (after, note) = renamed(names, model);
            let note = note.unwrap_or_else(|| panic!("{names:?} stayed"));
            assert!(note.starts_with(&format!("{said} was taken off the names of")), "{names:?}: {note}");
            assert!(
                after.iter().all(|name| {
                    let bare = ["lm_head.weight", "classifier.weight", "pooler.dense.weight", "vocab_projector.bias"];
                    bare.contains(&name.as_str())
                        || family(model).is_some_and(|family| {
                            family.prefixes.iter().any(|p| *name == format!("{p}{}", family.token_table))
                        })
                        || name == "model.norm.weight"
                }),
                "{after:?}"
            );
        }
    }

    #[test]
    fn other_names_stay() {
        for (model, names) in [
            ("llama", &["model.embed_tokens.weight", "lm_head.weight"][..]),
            ("llama", &["embed_tokens.weight", "norm.weight"]),
            ("llama", &["vision.embed_tokens.weight"]),
            // Both would be called the same.
            ("llama", &["module.model.embed_tokens.weight", "module.a", "a"]),
            ("llama", &[]),
        ] {
            let (after, note) = renamed(names, model);
            assert_eq!((after.len(), note), (names.len(), None), "{names:?}");
            assert!(names.iter().all(|name| after.contains(&(*name).to_owned())), "{after:?}");
        }
    }
}
