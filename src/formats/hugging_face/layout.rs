//! Which tensor of a Hugging Face directory holds which parameter, by the names of the family: nothing missing, nothing
//! left over, every shape as the configuration says.

use crate::formats::error::ModelFormatError;
use crate::formats::foreign;
use crate::formats::stored_tensors::StoredTensors;
use crate::model::families::{Family, TensorName};
use crate::model::id::ParameterId;
use crate::model::notes::Note;
use crate::model::spec::ModelSpec;
use crate::model::weights::{ModelError, Parameter};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// How the parameters of a dense directory are spelled.
pub(super) struct DenseLayout {
    places: BTreeMap<ParameterId, TensorPlacement>,
    /// Second copies of tied tensors, which must equal the parameter.
    copies: Vec<(String, ParameterId)>,
}

/// Where a parameter is in the files.
struct TensorPlacement {
    name: String,
    source: TensorName,
    /// Shape of the parameter.
    shape: Vec<usize>,
}

impl DenseLayout {
    /// With a note where a tied parameter is there under the name of its copy only.
    pub(super) fn of(
        family: &Family,
        spec: &ModelSpec,
        stored: &StoredTensors,
    ) -> Result<(Self, Option<Note>), ModelFormatError> {
        let table = stored.tensors();
        if let Some((kind, tensor)) = foreign::by_names(table.keys()) {
            let (path, kind, found) = (stored.path().to_owned(), kind.to_owned(), format!("tensor `{tensor}`"));
            return Err(match foreign::is_packed(tensor) {
                true => ModelFormatError::Unstated { path, kind, found },
                false => ModelFormatError::Foreign { path, kind, found },
            });
        }
        let prefix = family.prefix(spec, |name| table.contains_key(name));
        let copies_of_model = (family.copies)(spec);
        let mut tied = None;
        let mut places = BTreeMap::new();
        let mut used = BTreeSet::new();
        for parameter in spec.parameters() {
            let source = family
                .tensor(spec, parameter.id)
                .ok_or_else(|| ModelError::NoParameter { path: stored.path().to_owned(), id: parameter.id })?;
            let expected = source.stored_shape(&parameter.shape);
            let spellings = source.names(prefix);
            let there = |names: &[String]| names.iter().find(|name| table.contains_key(*name)).cloned();
            let copy = || {
                let copies = copies_of_model.iter().filter(|(_, of)| *of == parameter.id);
                copies.filter_map(|(source, _)| there(&source.names(prefix))).next()
            };
            let usual = spellings.first().cloned().unwrap_or_else(|| parameter.id.to_string());
            let name = match (there(&spellings), copy()) {
                (Some(name), _) => name,
                (None, Some(found)) => {
                    tied = Some(Note::TiedUnder { found: found.clone(), usual });
                    found
                }
                (None, None) => {
                    let others = without_place(family, spec, stored, prefix);
                    let path = stored.path().to_owned();
                    return Err(ModelFormatError::Missing { path, tensor: usual, expected, others });
                }
            };
            stored.check_shape(&name, &expected)?;
            stored.dense(&name)?;
            used.insert(name.clone());
            places.insert(parameter.id, TensorPlacement { name, source, shape: parameter.shape });
        }
        let mut copies = Vec::new();
        for (source, id) in copies_of_model {
            let names = source.names(prefix).into_iter();
            for name in names.filter(|name| table.contains_key(name) && *name != places[&id].name) {
                stored.check_shape(&name, &stored.tensor(&places[&id].name)?.shape)?;
                used.insert(name.clone());
                copies.push((name, id));
            }
        }
        for (name, tensor) in table {
            let bare = name.strip_prefix(prefix).unwrap_or(name);
            if !used.contains(name) && !(family.ignored)(spec, bare) {
                let (file, tensor) = (tensor.file.clone(), name.clone());
                return Err(ModelFormatError::Extra { file, tensor, family: spec.family });
            }
        }
        Ok((DenseLayout { places, copies }, tied))
    }

    /// The tensor that a matrix is in, and its rows there, counted as outputs; `None` where they stand in another order, or
    /// with another factor.
    pub(super) fn rows_of(&self, id: ParameterId) -> Option<(&str, Range<usize>)> {
        let place = self.places.get(&id).filter(|place| place.source.is_as_stored())?;
        let (first, rows) = (place.source.fused.map_or(0, |fused| fused.first), *place.shape.first()?);
        Some((&place.name, first..first.checked_add(rows)?))
    }

    /// Takes one parameter; only second copies of it are read.
    pub(super) fn read(&self, stored: &StoredTensors, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        let Some(place) = self.places.get(&id) else {
            return Err(ModelError::NoParameter { path: stored.path().to_owned(), id }.into());
        };
        for (name, _) in self.copies.iter().filter(|(_, of)| *of == id) {
            if stored.dense(name)? != stored.dense(&place.name)? {
                let file = stored.tensor(name)?.file.clone();
                return Err(ModelFormatError::Untied { file, tensor: name.clone(), original: place.name.clone() });
            }
        }
        let tensor = stored.dense(&place.name)?;
        let found = tensor.shape().to_vec();
        let tensor = place.source.take(tensor, &place.shape)?.ok_or_else(|| ModelFormatError::Shape {
            file: stored.path().to_owned(),
            tensor: place.name.clone(),
            expected: place.source.stored_shape(&place.shape),
            found,
        })?;
        Ok(Parameter::Dense(tensor))
    }
}

/// The tensors that are none of the model's, ignored ones aside.
fn without_place(family: &Family, spec: &ModelSpec, stored: &StoredTensors, prefix: &str) -> Vec<String> {
    let parameters = spec.parameters().into_iter().filter_map(|parameter| family.tensor(spec, parameter.id));
    let copies = (family.copies)(spec).into_iter().map(|(source, _)| source);
    let known: BTreeSet<String> = parameters.chain(copies).flat_map(|source| source.names(prefix)).collect();
    let placed =
        |name: &String| known.contains(name) || (family.ignored)(spec, name.strip_prefix(prefix).unwrap_or(name));
    stored.tensors().keys().filter(|name| !placed(name)).cloned().collect()
}
