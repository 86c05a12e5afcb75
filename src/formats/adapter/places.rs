//! Where the modules of a base are: which parameters, or rows of them, the tensors are that adapters name, and what the
//! configuration of a base becomes by tables with more rows and by heads that are tables no longer.

use super::changes::Opened;
use super::names::{Part, parse};
use super::settings::ends_with_module;
use crate::disk::Config;
use crate::formats::error::ModelFormatError;
use crate::model::families::{Family, TensorName};
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::ModelSpec;
use crate::model::weights::Outline;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The configuration of a base with adapters: more rows of the table, and a head of its own where it was the table.
pub(super) fn configuration(base: &Outline, adapters: &[Opened]) -> Result<Config, ModelFormatError> {
    let family = Family::of(&base.config)?;
    let table = module_names(family, family.tensor(&base.spec, embedding()).as_ref());
    let tied = base.spec.tied_head();
    let copies = (family.copies)(&base.spec).into_iter().filter(|(_, of)| tied && *of == embedding());
    let heads: BTreeSet<String> = copies.flat_map(|(source, _)| module_names(family, Some(&source))).collect();
    let mut config = base.config.map().clone();
    for opened in adapters {
        let whole = |modules: &BTreeSet<String>| {
            let mut tensors = opened.tensors.iter();
            tensors.find(|(name, _)| {
                parse(name).is_some_and(|(module, part)| part == Part::Weight && modules.contains(&module))
            })
        };
        if let Some((_, tensor)) = whole(&table)
            && let Some(&rows) = tensor.shape.first().filter(|rows| **rows != base.spec.vocabulary)
        {
            config.insert("vocab_size".to_owned(), json!(rows));
        }
        let of_head = |name: &String| parse(name).is_some_and(|(module, _)| heads.contains(&module));
        // A head that is saved beside a table of the same values is still that table.
        let same = whole(&table).zip(whole(&heads)).is_some_and(|((_, table), (_, head))| {
            table.shape == head.shape && table.dtype == head.dtype && table.bytes.as_slice() == head.bytes.as_slice()
        });
        if !same && opened.tensors.keys().any(of_head) {
            for key in ["tie_word_embeddings", "tie_embedding"] {
                if config.contains_key(key) {
                    config.insert(key.to_owned(), json!(false));
                }
            }
            config.entry("tie_word_embeddings").or_insert(json!(false));
        }
    }
    Ok(Config::from_map(base.config.file(), config))
}

pub(super) fn embedding() -> ParameterId {
    ParameterId::weight(LinearId::global(Role::TokenEmbedding))
}

/// The paths that a module may have.
fn module_names(family: &Family, source: Option<&TensorName>) -> BTreeSet<String> {
    let names = family.prefixes.iter().chain(&[""]).flat_map(|prefix| source.map(|source| source.names(prefix)));
    names.flatten().filter_map(|name| name.strip_suffix(".weight").map(str::to_owned)).collect()
}

/// A parameter, or the rows of one, that a tensor of the base holds.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: ParameterId,
    /// (rows, columns), or (values).
    pub(super) shape: Vec<usize>,
    /// Its first row in the tensor, and how many that has.
    pub(super) first: usize,
    pub(super) whole: usize,
}

/// What the tensors of a base are called, by every prefix of its family.
pub(super) struct Places {
    places: BTreeMap<String, Vec<Place>>,
    /// The copies of a tied table, which adapters may save with it.
    pub(super) copies: BTreeSet<String>,
    /// Modules that slmc holds in another order than files, or with a factor that files do not have.
    pub(super) rearranged: BTreeSet<String>,
}

impl Places {
    pub(super) fn of(spec: &ModelSpec, family: &Family) -> Places {
        let mut places: BTreeMap<String, Vec<Place>> = BTreeMap::new();
        let mut rearranged = BTreeSet::new();
        for parameter in spec.parameters() {
            let Some(source) = family.tensor(spec, parameter.id) else { continue };
            let rows = parameter.shape.first().copied().unwrap_or(0);
            let (first, whole) = source.fused.map_or((0, rows), |fused| (fused.first, fused.rows));
            let names: BTreeSet<String> =
                family.prefixes.iter().chain(&[""]).flat_map(|prefix| source.names(prefix)).collect();
            for name in names {
                if !source.is_as_stored() {
                    rearranged.extend(name.rsplit_once('.').map(|(module, _)| module.to_owned()));
                }
                let place = Place { id: parameter.id, shape: parameter.shape.clone(), first, whole };
                places.entry(name).or_default().push(place);
            }
        }
        let copies = (family.copies)(spec).into_iter().map(|(source, _)| source);
        let copies = copies.flat_map(|source| module_names(family, Some(&source))).collect();
        Places { places, copies, rearranged }
    }

    pub(super) fn find(&self, module: &str, end: &str) -> Option<&[Place]> {
        self.places.get(&format!("{module}.{end}")).map(Vec::as_slice)
    }

    /// The module of the base whose path is nearest: one that ends as `module` does.
    pub(super) fn nearest(&self, module: &str) -> Option<String> {
        let last = module.rsplit('.').next().unwrap_or(module);
        let modules = self.places.keys().filter_map(|name| name.strip_suffix(".weight"));
        let mut modules = modules.filter(|name| name.contains('.'));
        let like = modules.clone().find(|name| ends_with_module(name, last));
        like.or_else(|| modules.find(|name| name.contains("layers") || name.contains("h."))).map(str::to_owned)
    }
}
