//! What the models, the data and the targets do not allow, found before anything runs: each stage is checked in order as its
//! subcommand checks it, and the model that it would make is handed on. A stage with other mistakes is checked too, as far as
//! the options that can be used tell.

use super::document::Entry;
use super::mistake::{Code, Location, Mistakes};
use super::reader::Recipe;
use super::stage::{Choice, Chosen, Input, KindIs, RecipeStage, chain, command};
use crate::compile::ARTIFACT_MAGIC;
use crate::data::HELD_OUT_FILE;
use crate::formats;
use crate::model::spec::ModelKind;
use crate::stages::arguments::{Meaning, meaning};
use crate::stages::known::{Known, KnownModel, configured};
use crate::stages::{Fault, Prediction, Product, RunSettings};
use crate::text::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a file that are looked at.
const PEEK: u64 = 8 << 10;
/// First bytes of files that are texts for all that they hold zeros: gzip, Zstandard, Parquet, UTF-16.
const PACKED: [&[u8]; 5] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"\xff\xfe", b"\xfe\xff"];
/// Options that name texts.
const TEXTS: [&str; 2] = ["data", "calibration"];

/// Notes every fault, and says what each stage will take.
pub(super) fn check(
    recipe: &Recipe,
    sample: Option<&Entry>,
    run: &RunSettings,
    mistakes: &mut Mistakes,
) -> Vec<Prediction> {
    let mut models = BTreeMap::new();
    let mut predictions = Vec::new();
    for (index, stage) in recipe.stages.iter().enumerate() {
        for choice in &stage.choices {
            if let Chosen::Reads { source: source @ (Input::Model(_) | Input::Path(_)), .. } = &choice.value {
                let path = recipe.path(source);
                if stage.takes_model(choice) {
                    learn(path.clone(), &choice.place, &mut models, mistakes);
                }
                readable(stage, choice, &path, models.get(&path), mistakes);
            }
            if let Chosen::Reads { source: Input::File(other, HELD_OUT_FILE), .. } = &choice.value
                && recipe.stages[*other].text_of("held-out").is_none()
            {
                let name = &recipe.stages[*other].name;
                let message = format!("stage `{name}` holds nothing out, so it makes no {HELD_OUT_FILE}");
                let help = format!("give `{name}` a share: `held_out = 0.1`");
                mistakes.suggest(&choice.place, Code::Impossible, message, help);
            }
        }
        let checked = match stage.sound {
            true => Some(stage.clone()),
            false => completed(stage),
        };
        let Some(checked) = checked else {
            predictions.push(Prediction::default());
            continue;
        };
        let known = Known::Planned(models);
        let resolved = checked.resolve(run, &known, &|source| recipe.path(source));
        models = known.into_planned();
        // What is left out may be what decides the model.
        if stage.sound || stage.dropped.is_empty() {
            models.extend(stage.output.clone().zip(resolved.makes.clone()));
        }
        predictions.push(resolved.predicted.clone());
        unmeasured(recipe, index, &resolved.lacks, mistakes);
        for fault in resolved.checked().err().into_iter().flatten() {
            if stage.sound || stands(stage, &fault) {
                let (place, message) = described(stage, &fault);
                mistakes.add(&place, Code::Impossible, message);
            }
        }
    }
    if let Some(entry) = sample {
        check_sample(recipe, entry, &models, mistakes);
    }
    predictions
}

/// Notes a sample that cannot be made: of an encoder, or after a prompt that leaves no place in a model's context or in that
/// for which an artifact is compiled.
fn check_sample(recipe: &Recipe, entry: &Entry, models: &BTreeMap<PathBuf, KnownModel>, mistakes: &mut Mistakes) {
    if models.values().any(|model| model.spec.kind != ModelKind::Decoder) {
        let message = "[sample] continues a text, which an encoder does not";
        mistakes.suggest(&entry.place, Code::NoSample, message, "remove [sample]");
    }
    let Some(sample) = &recipe.sample else { return };
    let of_stage = |stage: &RecipeStage| stage.text_of("context").and_then(|context| context.parse().ok());
    let compiled = recipe.stages.iter().filter(|stage| stage.kind.makes() == Product::Artifact).filter_map(of_stage);
    let own = || recipe.models.iter().filter_map(|model| models.get(&model.path));
    let Some(context) = own().map(|model| model.spec.context).chain(compiled).min() else { return };
    // A token is a byte at least.
    if sample.prompt.len() < context {
        return;
    }
    for model in own() {
        let companions = model.files.as_ref().and_then(|files| formats::companions(files.path()).ok());
        let tokenizer = companions.and_then(|companions| Tokenizer::of(&companions).ok());
        let tokens = tokenizer.and_then(|tokenizer| tokenizer.encode_plain(&sample.prompt).ok());
        let Some(tokens) = tokens.map(|tokens| model.spec.opening.len() + tokens.len()) else { continue };
        if tokens > context {
            let message = format!("the prompt of [sample] has {tokens} tokens, and the context is {context}");
            return mistakes.suggest(&entry.place, Code::NoSample, message, "write a shorter prompt");
        }
    }
}

/// Notes gates on a number that their stage will not report.
fn unmeasured(recipe: &Recipe, stage: usize, lacks: &[&str], mistakes: &mut Mistakes) {
    let gates = recipe.gates.all.iter().filter(|gate| gate.stage == stage);
    for gate in gates.filter(|gate| lacks.contains(&gate.definition.stated)) {
        let RecipeStage { name, kind, .. } = &recipe.stages[stage];
        let measured = kind.measures().own.iter().filter(|number| !lacks.contains(number));
        let measured: Vec<String> = measured.map(|number| format!("`{number}`")).collect();
        let message = format!(
            "`{}` limits `{}`, which stage `{name}` does not measure: its task gives {}",
            gate.definition.name,
            gate.definition.stated,
            measured.join(", ")
        );
        mistakes.suggest(
            &gate.place,
            Code::NotMeasured,
            message,
            "limit one of these, or give the stage another `task`",
        );
    }
}

/// Learns the configuration of a model that is there.
fn learn(path: PathBuf, place: &Location, models: &mut BTreeMap<PathBuf, KnownModel>, mistakes: &mut Mistakes) {
    if models.contains_key(&path) {
        return;
    }
    match configured(&path) {
        Ok(model) => models.extend(model.map(|model| (path, model))),
        Err(error) => mistakes.add(place, Code::Impossible, chain(&error)),
    }
}

/// Notes what a look at the first bytes tells of a file that cannot be what the stage takes.
fn readable(stage: &RecipeStage, choice: &Choice, path: &Path, model: Option<&KnownModel>, mistakes: &mut Mistakes) {
    if stage.kind_is == KindIs::Guessed {
        return;
    }
    let mut suggest = |message: String, help: &str| mistakes.suggest(&choice.place, Code::Impossible, message, help);
    let shown = path.display();
    let begins = |bytes: &mut Vec<u8>| File::open(path).and_then(|file| file.take(PEEK).read_to_end(bytes)).is_ok();
    let mut bytes = Vec::new();
    if let Some(Meaning::Model { weights, .. }) = stage.meaning_of(choice) {
        let packs = stage.kind.makes() == Product::Artifact;
        let contents = formats::contents(path);
        if weights && contents.configuration && !contents.weights {
            suggest(
                format!("{shown} holds a configuration and no weights, which `{}` reads", stage.kind.name()),
                "add the weights of the checkpoint, model.safetensors, or put a train stage before this one",
            );
        } else if packs && model.is_some_and(|model| !model.quantized) {
            suggest(
                format!("{shown} is not quantized, and artifacts hold integers only"),
                "put a quantize stage between them",
            );
        } else if model.is_none()
            && path.is_file()
            && !contents.configuration
            && begins(&mut bytes)
            && !bytes.starts_with(ARTIFACT_MAGIC)
        {
            suggest(
                format!("{shown} is no model that slmc reads"),
                "name the directory of a checkpoint, or a file in a format of docs/checkpoints.md",
            );
        }
    } else if TEXTS.contains(&choice.flag.as_str()) {
        // Training takes several texts, of which one may be empty.
        let alone = matches!(stage.kind.name(), "eval" | "quantize");
        let trains = matches!(stage.kind.name(), "train" | "distill" | "prune");
        if alone && path.is_dir() {
            suggest(format!("{shown} is a directory, and a text is needed"), "name a file of text or JSON lines");
        } else if (alone || trains) && path.is_file() && begins(&mut bytes) {
            if alone && bytes.is_empty() {
                suggest(format!("{shown} is empty"), "name a file of text or JSON lines");
            } else if !is_text(&bytes) {
                suggest(
                    format!("{shown} is binary or not UTF-8, and a text is needed"),
                    "name a file of text or JSON lines, in UTF-8",
                );
            }
        }
    }
}

/// Whether a file that begins so may be a text.
fn is_text(bytes: &[u8]) -> bool {
    let packed = PACKED.iter().any(|magic| bytes.starts_with(magic));
    // A character that is cut by the end of what was read is none of its faults.
    let utf8 = std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true);
    packed || (utf8 && !bytes.contains(&0))
}

/// A stage with mistakes, so that the rest of it can be checked: models and files that it lacks stand as ones of which
/// nothing is known. `None` where its options still cannot be parsed.
fn completed(stage: &RecipeStage) -> Option<RecipeStage> {
    if stage.kind_is == KindIs::Guessed {
        return None;
    }
    let mut completed = stage.clone();
    let command = command(stage.kind);
    for argument in command.get_arguments() {
        let stands_for_something = matches!(meaning(argument), Some(Meaning::Model { .. } | Meaning::Reads(_)));
        let flag = argument.get_long().unwrap_or(argument.get_id().as_str()).to_owned();
        let lacks = stage.dropped.contains(&flag) || argument.is_required_set();
        if stands_for_something && lacks && stage.choices.iter().all(|choice| choice.flag != flag) && flag != "out" {
            let source = Input::Path(PathBuf::from("unknown"));
            let value = Chosen::Reads { source, written: String::new() };
            let positional = argument.get_long().is_none();
            completed.choices.push(Choice { flag, positional, place: stage.place.clone(), value });
        }
    }
    let path = |_: &Input| PathBuf::from("unknown");
    command.try_get_matches_from(completed.arguments(&path)).ok().map(|_| completed)
}

/// Whether a fault of a stage with other mistakes is one in any case: at an option that can be used, and not about one that
/// cannot.
fn stands(stage: &RecipeStage, fault: &Fault) -> bool {
    let message = chain(fault.error.as_ref());
    let about = |flag: &String| {
        message.contains(&format!("--{flag}")) || message.contains(&format!("`{}`", flag.replace('-', "_")))
    };
    stage.choices.iter().any(|choice| choice.flag == fault.option) && !stage.dropped.iter().any(about)
}

/// Location and text of a fault: at the option's key, which the message names, or else at the stage.
fn described(stage: &RecipeStage, fault: &Fault) -> (Location, String) {
    let message = chain(fault.error.as_ref());
    let of_option = || stage.choices.iter().filter(|choice| choice.flag == fault.option);
    let quoted = |choice: &&Choice| matches!(&choice.value, Chosen::Text(text) if message.contains(text.as_str()));
    match of_option().find(quoted).or_else(|| of_option().next()) {
        None => (stage.place.clone(), message),
        Some(choice) => {
            let key = choice.flag.replace('-', "_");
            let named = message.contains(&format!("`{key}`")) || message.contains(&format!("--{}", choice.flag));
            let message = if named || choice.positional { message } else { format!("`{key}`: {message}") };
            (choice.place.clone(), message)
        }
    }
}
