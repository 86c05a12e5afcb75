//! What adapters change of a base, parameter by parameter: every tensor of theirs has a place in the base and the shape that
//! base and configuration give it, every module of a list has tensors, and nothing is left over.

use super::error::AdapterError;
use super::merge::{Change, LowRank};
use super::names::{Part, parse};
use super::places::{Place, Places, embedding};
use super::settings::{Settings, ends_with_module};
use super::{AdapterSummary, Weighted};
use crate::disk::tensor_file::StoredTensor;
use crate::disk::{DenseTensor, DenseType};
use crate::formats::error::ModelFormatError;
use crate::model::families::Family;
use crate::model::id::ParameterId;
use crate::model::spec::ModelSpec;
use crate::model::weights::Outline;
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// An adapter whose files are read.
pub(super) struct Opened {
    pub(super) adapter: Weighted,
    pub(super) settings: Settings,
    /// By the names in the file.
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    /// The file of the weights.
    pub(super) file: PathBuf,
}

/// The changes of one parameter.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    /// What stands in its place, before the steps.
    pub(super) replaced: Option<DenseTensor>,
    /// In the order of the adapters.
    pub(super) steps: Arc<[Change]>,
    /// The file of the last adapter that changes it.
    pub(super) file: PathBuf,
}

/// The changes of a base.
pub(super) struct Changes(BTreeMap<ParameterId, Changed>);

impl Changes {
    /// How many parameters are changed.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes of all changes: their matrices are in f32.
    pub(super) fn held_bytes(&self) -> u64 {
        let of_changed = |changed: &Changed| {
            let replaced = changed.replaced.as_ref();
            let replaced =
                replaced.map_or(0, |tensor| tensor.dtype().bytes() * tensor.shape().iter().product::<usize>());
            (replaced + changed.steps.iter().map(Change::bytes).sum::<usize>()) as u64
        };
        self.0.values().map(of_changed).sum()
    }

    /// The changes of a parameter.
    pub(super) fn of_parameter(&self, id: ParameterId) -> Option<&Changed> {
        self.0.get(&id)
    }

    /// The changes that adapters make of a base, whose specification with them is `spec`.
    pub(super) fn of(
        base: &Outline,
        spec: &ModelSpec,
        adapters: &[Opened],
    ) -> Result<(Changes, Vec<AdapterSummary>), ModelFormatError> {
        let family = Family::of(&base.config)?;
        let mut building = Building { base, places: Places::of(spec, family), changed: BTreeMap::new() };
        let mut summaries = Vec::new();
        for opened in adapters {
            summaries.push(building.add(opened)?);
        }
        building.check_rows(spec)?;
        let finish = |building: InBuilding| Changed {
            replaced: building.replaced,
            steps: building.steps.into(),
            file: building.file,
        };
        Ok((Changes(building.changed.into_iter().map(|(id, changed)| (id, finish(changed))).collect()), summaries))
    }
}

/// The changes of one parameter, while adapters are added.
struct InBuilding {
    replaced: Option<DenseTensor>,
    steps: Vec<Change>,
    file: PathBuf,
}

struct Building<'b> {
    base: &'b Outline,
    places: Places,
    changed: BTreeMap<ParameterId, InBuilding>,
}

/// The tensors of one module.
type Parts<'o> = BTreeMap<Part, (&'o String, &'o StoredTensor)>;

impl Building<'_> {
    fn add(&mut self, opened: &Opened) -> Result<AdapterSummary, ModelFormatError> {
        let mut modules: BTreeMap<String, Parts<'_>> = BTreeMap::new();
        for (name, tensor) in &opened.tensors {
            let unknown = || AdapterError::Unknown { file: opened.file.clone(), tensor: name.clone() };
            let (module, part) = parse(name).ok_or_else(unknown)?;
            modules.entry(module).or_default().insert(part, (name, tensor));
        }
        self.check_lists(opened, &modules)?;
        let (mut changed, mut ranks, mut replaced) = (0, BTreeSet::new(), 0);
        for (module, parts) in &modules {
            if self.places.rearranged.contains(module) {
                let (file, module, family) = (opened.file.clone(), module.clone(), self.base.spec.family);
                return Err(AdapterError::Rearranged { file, module, family }.into());
            }
            replaced += self.replace(opened, module, parts)?;
            let thin = [(Part::A, Part::B, false), (Part::TableA, Part::TableB, true)];
            for (a, b, table) in thin {
                if let Some(rank) = self.low_rank(opened, module, parts, (a, b), table)? {
                    changed += 1;
                    ranks.insert(rank);
                }
            }
            self.token_rows(opened, module, parts)?;
        }
        let Weighted { path, weight } = opened.adapter.clone();
        let ranks = ranks.into_iter().collect();
        Ok(AdapterSummary { path, weight, modules: changed, ranks, dora: opened.settings.dora, replaced })
    }

    /// Every module of a list must have tensors.
    fn check_lists(&self, opened: &Opened, modules: &BTreeMap<String, Parts<'_>>) -> Result<(), ModelFormatError> {
        let thin = [Part::A, Part::TableA];
        let has = |name: &str, wanted: &[Part]| {
            let of_name = modules.iter().filter(|(module, _)| ends_with_module(module, name));
            of_name.flat_map(|(_, parts)| parts.keys()).any(|part| wanted.contains(part))
        };
        let targets = opened.settings.listed("target_modules");
        let target = targets.into_iter().find(|name| !has(name, &thin)).map(|name| ("target_modules", name));
        // For classifiers PEFT lists both names that their heads have.
        let whole = opened.settings.listed("modules_to_save");
        let saved = whole.iter().any(|name| has(name, &[Part::Weight, Part::Bias]));
        let save = whole.first().filter(|_| !saved).map(|name| ("modules_to_save", *name));
        match target.or(save) {
            None => Ok(()),
            Some((key, module)) => {
                let (file, weights) = (opened.settings.file().to_owned(), opened.file.clone());
                Err(AdapterError::Untrained { file, key, module: module.to_owned(), weights }.into())
            }
        }
    }

    /// Tables with more rows, or fewer, than the base's must be there whole.
    fn check_rows(&self, spec: &ModelSpec) -> Result<(), ModelFormatError> {
        let of_base: BTreeMap<ParameterId, Vec<usize>> =
            self.base.spec.parameters().into_iter().map(|parameter| (parameter.id, parameter.shape)).collect();
        for parameter in spec.parameters() {
            // A head that is no longer tied begins as the table.
            let shape = of_base.get(&parameter.id).or_else(|| of_base.get(&embedding()));
            let replaced = self.changed.get(&parameter.id).is_some_and(|changed| changed.replaced.is_some());
            if !replaced && shape.is_some_and(|shape| *shape != parameter.shape) {
                let file = self.changed.get(&embedding()).map(|changed| changed.file.clone());
                let (found, expected) = (shape.cloned().unwrap_or_default(), parameter.shape);
                let (file, parameter) = (file.unwrap_or_else(|| self.base.path.clone()), parameter.id);
                return Err(AdapterError::Rows { file, parameter, found, expected }.into());
            }
        }
        Ok(())
    }

    fn no_place(&self, opened: &Opened, module: &str, name: &str) -> ModelFormatError {
        AdapterError::NoPlace {
            file: opened.file.clone(),
            tensor: name.to_owned(),
            base: self.base.path.clone(),
            nearest: self.places.nearest(module),
        }
        .into()
    }

    fn entry(&mut self, id: ParameterId, file: &PathBuf) -> &mut InBuilding {
        let empty = || InBuilding { replaced: None, steps: Vec::new(), file: file.clone() };
        let entry = self.changed.entry(id).or_insert_with(empty);
        entry.file.clone_from(file);
        entry
    }

    /// Puts whole tensors of a module in the place of the base's; how many.
    fn replace(&mut self, opened: &Opened, module: &str, parts: &Parts<'_>) -> Result<usize, ModelFormatError> {
        let mut count = 0;
        for (part, end) in [(Part::Weight, "weight"), (Part::Bias, "bias")] {
            let Some((name, tensor)) = parts.get(&part) else { continue };
            let Some(places) = self.places.find(module, end).map(<[Place]>::to_vec) else {
                if part == Part::Weight && self.places.copies.contains(module) {
                    continue;
                }
                return Err(self.no_place(opened, module, name));
            };
            let problem =
                |problem| AdapterError::Replaced { file: opened.file.clone(), tensor: (*name).clone(), problem };
            // Only what PEFT stores of the base beside a table's change has any weight.
            if opened.adapter.weight != 1.0 && !parts.contains_key(&Part::TableA) {
                return Err(problem("which a weight other than 1 cannot do in part").into());
            }
            let dense = dense(opened, name, tensor)?;
            let found = dense.shape().to_vec();
            for place in places {
                let whole = [&[place.whole], &place.shape[1..]].concat();
                let turned: Vec<usize> = whole.iter().rev().copied().collect();
                let rows = place.first..place.first + place.shape[0];
                let cut = match found == whole {
                    true => dense.rows(rows),
                    // GPT-2 stores matrices as (in, out).
                    false if found == turned => dense.transposed_columns(rows),
                    false => None,
                };
                let Some(cut) = cut else {
                    return Err(shape(opened, name, tensor, format!("{whole:?} by the base")));
                };
                let entry = self.entry(place.id, &opened.file);
                if entry.replaced.is_some() || !entry.steps.is_empty() {
                    return Err(problem("which another adapter has changed already; merge one of the two").into());
                }
                entry.replaced = Some(cut);
            }
            count += 1;
        }
        Ok(count)
    }

    /// Adds B·A of a module, with the lengths of its rows and the change of its bias; its rank where there is one.
    fn low_rank(
        &mut self,
        opened: &Opened,
        module: &str,
        parts: &Parts<'_>,
        (first, second): (Part, Part),
        table: bool,
    ) -> Result<Option<usize>, ModelFormatError> {
        let (a, b) = match (parts.get(&first), parts.get(&second)) {
            (None, None) => return Ok(None),
            (Some(a), Some(b)) => (*a, *b),
            (Some((name, _)), None) => return Err(missing(opened, name, "_A", "_B")),
            (None, Some((name, _))) => return Err(missing(opened, name, "_B", "_A")),
        };
        let Some(places) = self.places.find(module, "weight").map(<[Place]>::to_vec) else {
            return Err(self.no_place(opened, module, a.0));
        };
        let rank = opened.settings.rank(module);
        let (whole, columns) = match places[0].shape[..] {
            [_, columns] => (places[0].whole, columns),
            _ => return Err(self.no_place(opened, module, a.0)),
        };
        let (inputs, outputs) = if table { (whole, columns) } else { (columns, whole) };
        let expected = |sizes: [usize; 2]| format!("{sizes:?} by the base and a rank of {rank}");
        for (tensor, sizes) in [(a, [rank, inputs]), (b, [outputs, rank])] {
            if tensor.1.shape != sizes {
                return Err(shape(opened, tensor.0, tensor.1, expected(sizes)));
            }
        }
        let magnitude = self.magnitude(opened, parts, a.0, whole, table)?;
        let (a, b) = (floats(opened, a)?, floats(opened, b)?);
        let scale = (opened.settings.scale(module) * opened.adapter.weight) as f32;
        // (rows, rank) and (rank, columns): a table's change is the transpose.
        let (left, right) = match table {
            false => (b, a),
            true => (turned(&a, rank, whole), turned(&b, columns, rank)),
        };
        for place in &places {
            let rows = place.first..place.first + place.shape[0];
            let change = LowRank {
                left: left[rows.start * rank..rows.end * rank].to_vec(),
                right: right.clone(),
                rank,
                scale,
                magnitude: magnitude.as_ref().map(|magnitude| magnitude[rows].to_vec()),
            };
            self.entry(place.id, &opened.file).steps.push(Change::LowRank(change));
        }
        if let Some(&bias) = parts.get(&Part::BiasB) {
            self.bias(opened, module, bias, whole, scale)?;
        }
        Ok(Some(rank))
    }

    /// Lengths of the rows of a module, with DoRA.
    fn magnitude(
        &self,
        opened: &Opened,
        parts: &Parts<'_>,
        beside: &str,
        rows: usize,
        table: bool,
    ) -> Result<Option<Vec<f32>>, ModelFormatError> {
        match (parts.get(&Part::Magnitude), opened.settings.dora) {
            (None, false) => Ok(None),
            (None, true) => {
                let module = beside.split(".lora_").next().unwrap_or(beside);
                let (file, tensor) = (opened.file.clone(), format!("{module}.lora_magnitude_vector"));
                Err(AdapterError::Missing { file, tensor, beside: beside.to_owned() }.into())
            }
            (Some(_), _) if table => {
                Err(opened.settings.wrong("use_dora", "false where a table is among the targets").into())
            }
            (Some(_), false) => {
                Err(opened.settings.wrong("use_dora", "true, since the weights have magnitude vectors").into())
            }
            (Some(&found), true) => {
                if found.1.shape.iter().product::<usize>() != rows {
                    return Err(shape(opened, found.0, found.1, format!("[{rows}] by the base")));
                }
                Ok(Some(floats(opened, found)?))
            }
        }
    }

    /// Adds to the bias of a module.
    fn bias(
        &mut self,
        opened: &Opened,
        module: &str,
        (name, tensor): (&String, &StoredTensor),
        whole: usize,
        scale: f32,
    ) -> Result<(), ModelFormatError> {
        let Some(places) = self.places.find(module, "bias").map(<[Place]>::to_vec) else {
            return Err(self.no_place(opened, module, name));
        };
        if tensor.shape != [whole] {
            return Err(shape(opened, name, tensor, format!("[{whole}] by the base")));
        }
        let added = floats(opened, (name, tensor))?;
        for place in places {
            let part = added[place.first..place.first + place.shape[0]].to_vec();
            self.entry(place.id, &opened.file).steps.push(Change::Add(part, scale));
        }
        Ok(())
    }

    /// Puts trained rows of a table in the place of the base's.
    fn token_rows(&mut self, opened: &Opened, module: &str, parts: &Parts<'_>) -> Result<(), ModelFormatError> {
        let Some(&(name, tensor)) = parts.get(&Part::TokenRows) else { return Ok(()) };
        let place = match self.places.find(module, "weight") {
            Some([place]) => place.clone(),
            _ => return Err(self.no_place(opened, module, name)),
        };
        let (rows, width) = (place.shape[0], place.shape.get(1).copied().unwrap_or(1));
        let tokens = opened.settings.tokens(module)?;
        if tensor.shape != [tokens.len(), width] {
            return Err(shape(
                opened,
                name,
                tensor,
                format!("[{}, {width}] by `trainable_token_indices` and the base", tokens.len()),
            ));
        }
        if opened.adapter.weight != 1.0 {
            let problem = "row by row, which a weight other than 1 cannot do in part";
            return Err(AdapterError::Replaced { file: opened.file.clone(), tensor: name.clone(), problem }.into());
        }
        let values = floats(opened, (name, tensor))?;
        let mut new = Vec::with_capacity(tokens.len());
        for (index, values) in tokens.into_iter().zip(values.chunks_exact(width.max(1))) {
            let row = usize::try_from(index).ok().filter(|row| *row < rows);
            let beyond = || AdapterError::Token {
                file: opened.settings.file().to_owned(),
                tensor: format!("{module}.weight"),
                index,
                rows,
            };
            new.push((row.ok_or_else(beyond)?, values.to_vec()));
        }
        self.entry(place.id, &opened.file).steps.push(Change::Rows(new));
        Ok(())
    }
}

fn missing(opened: &Opened, name: &str, there: &str, absent: &str) -> ModelFormatError {
    let (file, tensor) = (opened.file.clone(), name.replacen(there, absent, 1));
    AdapterError::Missing { file, tensor, beside: name.to_owned() }.into()
}

fn shape(opened: &Opened, name: &str, tensor: &StoredTensor, expected: String) -> ModelFormatError {
    let (file, found) = (opened.file.clone(), tensor.shape.clone());
    AdapterError::Shape { file, tensor: name.to_owned(), found, expected }.into()
}

fn dense(opened: &Opened, name: &str, tensor: &StoredTensor) -> Result<DenseTensor, ModelFormatError> {
    let dtype = match tensor.dtype {
        Dtype::F32 => DenseType::F32,
        Dtype::F16 => DenseType::F16,
        Dtype::BF16 => DenseType::Bf16,
        found => {
            let (file, tensor, expected) = (opened.file.clone(), name.to_owned(), "F32, F16 or BF16".to_owned());
            return Err(ModelFormatError::DataType { file, tensor, found: found.to_string(), expected });
        }
    };
    Ok(DenseTensor::stored(name, tensor.shape.clone(), dtype, tensor.bytes.clone()))
}

/// Values in f32, checked to be finite.
fn floats(opened: &Opened, (name, tensor): (&String, &StoredTensor)) -> Result<Vec<f32>, ModelFormatError> {
    Ok(dense(opened, name, tensor)?.to_f32(name)?)
}

/// (rows, columns) turned.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}
