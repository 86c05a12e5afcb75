//! Which tensor of a Hugging Face directory holds which parameter, by the names of the family: nothing missing, nothing
//! left over, every shape as the configuration says.

use crate::formats::error::ModelFormatError;
use crate::formats::stored_tensors::StoredTensors;
use crate::model::families::{Family, Source};
use crate::model::id::ParameterId;
use crate::model::spec::ModelSpec;
use crate::model::weights::{ModelError, Parameter};
use std::collections::{BTreeMap, BTreeSet};

/// How the parameters of a dense directory are spelled.
pub(super) struct DenseLayout {
    places: BTreeMap<ParameterId, Place>,
    /// Second copies of tied tensors, which must equal the parameter.
    copies: Vec<(String, ParameterId)>,
}

/// Where a parameter is in the files.
struct Place {
    name: String,
    source: Source,
    /// Of the parameter.
    shape: Vec<usize>,
}

impl DenseLayout {
    pub(super) fn of(family: &Family, spec: &ModelSpec, stored: &StoredTensors) -> Result<Self, ModelFormatError> {
        let table = stored.tensors();
        let prefix = family.prefix(spec, |name| table.contains_key(name));
        let mut places = BTreeMap::new();
        let mut used = BTreeSet::new();
        for parameter in spec.parameters() {
            let source = (family.source)(spec, parameter.id)
                .ok_or_else(|| ModelError::NoParameter { path: stored.path().to_owned(), id: parameter.id })?;
            let expected = source.stored_shape(&parameter.shape);
            let spellings = source.names(prefix);
            let Some(name) = spellings.iter().find(|name| table.contains_key(*name)).cloned() else {
                let tensor = spellings.into_iter().next().unwrap_or_else(|| parameter.id.to_string());
                return Err(ModelFormatError::Missing { path: stored.path().to_owned(), tensor, expected });
            };
            stored.check_shape(&name, &expected)?;
            stored.dense(&name)?;
            used.insert(name.clone());
            places.insert(parameter.id, Place { name, source, shape: parameter.shape });
        }
        let mut copies = Vec::new();
        for (source, id) in (family.copies)(spec) {
            for name in source.names(prefix).into_iter().filter(|name| table.contains_key(name)) {
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
        Ok(DenseLayout { places, copies })
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
        let tensor = place.source.take(tensor, &place.shape).ok_or_else(|| ModelFormatError::Shape {
            file: stored.path().to_owned(),
            tensor: place.name.clone(),
            expected: place.source.stored_shape(&place.shape),
            found,
        })?;
        Ok(Parameter::Dense(tensor))
    }
}
