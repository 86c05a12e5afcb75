//! A model: its specification and every parameter, dense as a checkpoint stores it or quantized. Opening checks names
//! and shapes both ways (nothing missing, nothing left over); dense values stay on disk until they are asked for.

use super::dense_directory::DenseError;
use super::families::{Family, Source};
use super::id::{LinearId, ParameterId, Part};
use super::matrix::from_rows;
use super::quantized::QuantizedMatrix;
use super::quantized_directory::{self, QuantizedError};
use super::scheme::{QuantScheme, Width};
use super::size::SizeError;
use super::spec::ModelSpec;
use super::special_tokens;
use super::transform::{MaskError, Sparsity};
use crate::disk::atomic::AtomicError;
use crate::disk::tensor_file::TensorFileError;
use crate::disk::{Config, ConfigError, DenseTensor, Directory, DirectoryError, TensorError};
use ndarray::Array2;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Why a model cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weight files are refused.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Values are refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Quantized values are refused.
    #[error(transparent)]
    Quantized(#[from] QuantizedError),
    /// A matrix has no scheme, or one that it cannot have.
    #[error(transparent)]
    Scheme(#[from] SizeError),
    /// The model is not one that a dense directory holds.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// slmc.json is not true of the values.
    #[error("{}: slmc.json calls a matrix sparse that is not: {source}; prune it again, or remove the entry", path.display())]
    NotSparse {
        /// The directory.
        path: PathBuf,
        /// Which matrix, and where.
        source: Box<MaskError>,
    },
    /// The output path is refused, or the file system failed.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// A weight file could not be written.
    #[error(transparent)]
    Write(#[from] TensorFileError),
    /// A file that travels with the model could not be copied.
    #[error("{}: cannot be copied to the output", file.display())]
    Companion {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tensor the configuration calls for is not there.
    #[error("{}: tensor `{tensor}` is missing, expected shape {expected:?} by config.json; the checkpoint is incomplete, or its configuration is another model's", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// As the files would spell it.
        tensor: String,
        /// What it would look like.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected:?} by config.json; the two do not belong together", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// By the configuration.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor has no place in the model.
    #[error("{}: tensor `{tensor}` has no place in {family} with this config.json; slmc drops nothing silently: correct the configuration or remove the tensor", file.display())]
    Extra {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The family.
        family: &'static str,
    },
    /// A tied tensor is stored a second time with other values.
    #[error("{}: tensor `{tensor}` differs from `{original}`, which config.json ties it to; set tie_word_embeddings to false or remove the tensor", file.display())]
    Untied {
        /// The file.
        file: PathBuf,
        /// The second copy.
        tensor: String,
        /// The parameter.
        original: String,
    },
    /// The model has no such parameter.
    #[error("{}: the model has no parameter `{id}`", path.display())]
    NoParameter {
        /// The directory.
        path: PathBuf,
        /// The parameter.
        id: ParameterId,
    },
}

impl ModelError {
    /// [`ModelError::NotSparse`] of a directory.
    pub(super) fn not_sparse(directory: &Path, error: MaskError) -> Self {
        ModelError::NotSparse { path: directory.to_owned(), source: Box::new(error) }
    }
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// Floating point.
    Dense(DenseTensor),
    /// Integers with scales.
    Quantized(QuantizedMatrix),
}

impl Parameter {
    /// One row of a matrix in f32, (columns). Nothing is checked to be finite; `inline(always)`, so that the caller's
    /// vectors are used.
    ///
    /// # Panics
    /// If `row` is out of range, or `out` has another length.
    #[inline(always)]
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Parameter::Dense(tensor) => tensor.read_row(row, out),
            Parameter::Quantized(matrix) => matrix.read_row(row, out),
        }
    }
}

/// A model with its weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it computes.
    pub spec: ModelSpec,
    /// config.json, as read.
    pub config: Config,
    /// Every tensor of [`ModelSpec::parameters`], and key maps where there are any.
    pub parameters: BTreeMap<ParameterId, Parameter>,
    /// Where it was read from; its tokenizer files are there.
    pub directory: PathBuf,
}

impl Model {
    /// Opens a Hugging Face directory, or a quantized one written by slmc.
    pub fn open(directory: &Path) -> Result<Model, ModelError> {
        let Opened { outline, stored, layout } = Opened::open(directory)?;
        let parameters = match (&outline.schemes, layout) {
            (Some(schemes), _) => quantized_directory::read(&outline, schemes, &stored)?,
            (None, layout) => layout.read(&stored)?,
        };
        let Outline { spec, config, directory, .. } = outline;
        Ok(Model { spec, config, parameters, directory })
    }

    /// Values in f32, row-major: dense ones converted, quantized ones as the integers stand for.
    pub fn values_f32(&self, id: ParameterId) -> Result<Vec<f32>, ModelError> {
        match self.parameters.get(&id) {
            Some(Parameter::Dense(tensor)) => Ok(tensor.to_f32(&id.to_string())?),
            Some(Parameter::Quantized(matrix)) => Ok(matrix.dequantize()),
            None => Err(ModelError::NoParameter { path: self.directory.clone(), id }),
        }
    }

    /// A matrix in f32, (rows, columns).
    ///
    /// # Errors
    /// A matrix the model does not have; values that are not finite.
    pub fn matrix(&self, id: LinearId) -> Result<Array2<f32>, ModelError> {
        let parameter = ParameterId::weight(id);
        let values = self.values_f32(parameter)?;
        let shape = self.spec.matrices().into_iter().find(|(other, ..)| *other == id);
        let Some((.., columns)) = shape else {
            return Err(ModelError::NoParameter { path: self.directory.clone(), id: parameter });
        };
        Ok(from_rows(values, columns))
    }

    /// The same model with other values, row-major, in the place of dense parameters. A parameter keeps its data type where
    /// that holds every new value exactly, and becomes f32 where it does not.
    ///
    /// # Errors
    /// A parameter the model does not have or that is quantized, or a number of values that is not its shape's.
    pub fn with_values(mut self, values: BTreeMap<ParameterId, Vec<f32>>) -> Result<Model, ModelError> {
        for (id, values) in values {
            match self.parameters.get_mut(&id) {
                Some(Parameter::Dense(tensor)) => *tensor = tensor.replaced(&values)?,
                Some(Parameter::Quantized(_)) => return Err(DenseError::Quantized(id).into()),
                None => return Err(ModelError::NoParameter { path: self.directory, id }),
            }
        }
        Ok(self)
    }

    /// Whether any matrix is quantized.
    pub fn is_quantized(&self) -> bool {
        self.parameters.values().any(|parameter| matches!(parameter, Parameter::Quantized(_)))
    }

    /// Whether the values of dense matrices are what `sparsity` says.
    ///
    /// # Errors
    /// [`ModelError::NotSparse`], with the first group that has too many weights; values that cannot be read.
    pub fn check_sparsity(&self, sparsity: &Sparsity) -> Result<(), ModelError> {
        for (id, _, columns) in self.spec.matrices() {
            let Some(pattern) = sparsity.get(&id) else { continue };
            let values = self.values_f32(ParameterId::weight(id))?;
            pattern.check(id, &values, columns).map_err(|error| ModelError::not_sparse(&self.directory, error))?;
        }
        Ok(())
    }

    /// Pattern of every quantized matrix that has one.
    pub fn sparsity(&self) -> Sparsity {
        let pattern = |(id, parameter): (&ParameterId, &Parameter)| match (id, parameter) {
            (ParameterId::Linear(id, Part::Weight), Parameter::Quantized(matrix)) => Some((*id, matrix.sparsity?)),
            _ => None,
        };
        self.parameters.iter().filter_map(pattern).collect()
    }

    /// Width of the inputs of every linear that takes more than 8 bits.
    pub fn activations(&self) -> BTreeMap<LinearId, Width> {
        let wide = |(id, parameter): (&ParameterId, &Parameter)| match (id, parameter) {
            (ParameterId::Linear(id, Part::Weight), Parameter::Quantized(matrix)) => {
                (matrix.activations != Width::Bits8).then_some((*id, matrix.activations))
            }
            _ => None,
        };
        self.parameters.iter().filter_map(wide).collect()
    }

    /// Scheme of every quantized matrix.
    pub fn schemes(&self) -> BTreeMap<LinearId, QuantScheme> {
        let scheme = |(id, parameter): (&ParameterId, &Parameter)| match (id, parameter) {
            (ParameterId::Linear(id, Part::Weight), Parameter::Quantized(matrix)) => Some((*id, matrix.scheme)),
            _ => None,
        };
        self.parameters.iter().filter_map(scheme).collect()
    }
}

/// A model directory without its values: what `estimate` and `plan` need. Opening reads headers only, however large the
/// weights; names, shapes and data types are checked as [`Model::open`] does, values are not.
#[derive(Clone, Debug)]
pub struct Outline {
    /// What the model computes.
    pub spec: ModelSpec,
    /// config.json, as read.
    pub config: Config,
    /// The directory.
    pub directory: PathBuf,
    /// Of a quantized directory, the scheme of every quantized matrix.
    pub schemes: Option<BTreeMap<LinearId, QuantScheme>>,
    /// Of a quantized directory, the pattern of every matrix that has one.
    pub sparsity: Sparsity,
    /// Of a quantized directory, the width of the inputs of every linear that takes more than 8 bits.
    pub activations: BTreeMap<LinearId, Width>,
    /// Whether it holds key maps.
    pub key_maps: bool,
}

impl Outline {
    /// Opens a Hugging Face directory, or a quantized one written by slmc.
    pub fn open(directory: &Path) -> Result<Outline, ModelError> {
        Ok(Opened::open(directory)?.outline)
    }
}

/// A directory whose headers agree with its configuration.
struct Opened {
    outline: Outline,
    stored: Directory,
    layout: DenseLayout,
}

impl Opened {
    fn open(directory: &Path) -> Result<Self, ModelError> {
        let config = Config::open(directory)?;
        let family = Family::of(&config)?;
        let spec = special_tokens::spec_of(directory, &config)?;
        let schemes = quantized_directory::schemes(&config)?;
        let sparsity = match &schemes {
            Some(schemes) => quantized_directory::sparsity(&config, &spec, schemes)?,
            None => Sparsity::new(),
        };
        let activations = match &schemes {
            Some(schemes) => quantized_directory::activations(&config, &spec, schemes)?,
            None => BTreeMap::new(),
        };
        let stored = Directory::open(directory)?;
        let (layout, key_maps) = match &schemes {
            None => (DenseLayout::of(family, &spec, &stored)?, false),
            Some(schemes) => (DenseLayout::default(), quantized_directory::check(&spec, schemes, &stored)?),
        };
        let outline =
            Outline { spec, config, directory: directory.to_owned(), schemes, sparsity, activations, key_maps };
        Ok(Opened { outline, stored, layout })
    }
}

/// How the parameters of a dense directory are spelled.
#[derive(Default)]
struct DenseLayout {
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
    fn of(family: &Family, spec: &ModelSpec, stored: &Directory) -> Result<Self, ModelError> {
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
                return Err(ModelError::Missing { path: stored.path().to_owned(), tensor, expected });
            };
            check_shape(stored, &name, &expected)?;
            stored.dense(&name)?;
            used.insert(name.clone());
            places.insert(parameter.id, Place { name, source, shape: parameter.shape });
        }
        let mut copies = Vec::new();
        for (source, id) in (family.copies)(spec) {
            for name in source.names(prefix).into_iter().filter(|name| table.contains_key(name)) {
                check_shape(stored, &name, &stored.tensor(&places[&id].name)?.shape)?;
                used.insert(name.clone());
                copies.push((name, id));
            }
        }
        for (name, tensor) in table {
            let bare = name.strip_prefix(prefix).unwrap_or(name);
            if !used.contains(name) && !(family.ignored)(spec, bare) {
                let (file, tensor) = (tensor.file.clone(), name.clone());
                return Err(ModelError::Extra { file, tensor, family: spec.family });
            }
        }
        Ok(DenseLayout { places, copies })
    }

    /// Takes every parameter; only second copies are read.
    fn read(&self, stored: &Directory) -> Result<BTreeMap<ParameterId, Parameter>, ModelError> {
        for (name, id) in &self.copies {
            let original = &self.places[id].name;
            if stored.dense(name)? != stored.dense(original)? {
                let file = stored.tensor(name)?.file.clone();
                return Err(ModelError::Untied { file, tensor: name.clone(), original: original.clone() });
            }
        }
        let read = |(id, place): (&ParameterId, &Place)| {
            let tensor = stored.dense(&place.name)?;
            let found = tensor.shape().to_vec();
            let tensor = place.source.take(tensor, &place.shape).ok_or_else(|| ModelError::Shape {
                file: stored.path().to_owned(),
                tensor: place.name.clone(),
                expected: place.source.stored_shape(&place.shape),
                found,
            })?;
            Ok((*id, Parameter::Dense(tensor)))
        };
        self.places.iter().map(read).collect()
    }
}

/// Refuses a tensor of another shape.
pub(super) fn check_shape(stored: &Directory, name: &str, expected: &[usize]) -> Result<(), ModelError> {
    let tensor = stored.tensor(name)?;
    if tensor.shape == expected {
        return Ok(());
    }
    Err(ModelError::Shape {
        file: tensor.file.clone(),
        tensor: name.to_owned(),
        expected: expected.to_vec(),
        found: tensor.shape.clone(),
    })
}
