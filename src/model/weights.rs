//! A model: its specification and every parameter, dense as a checkpoint stores it or quantized, and the files that travel
//! with it. Where it comes from and goes to is the business of `formats`; dense values stay on disk until they are asked for.

use super::companions::Companions;
use super::id::{LinearId, ParameterId, Part};
use super::matrix::{from_rows, into_values};
use super::notes::Note;
use super::quantized::QuantizedMatrix;
use super::scheme::{QuantScheme, Width};
use super::size::SizeError;
use super::spec::ModelSpec;
use super::transform::{MaskError, Sparsity};
use crate::disk::{Config, ConfigError, DenseTensor, TensorError};
use ndarray::Array2;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why the values of a model cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Values are refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A matrix has no scheme, or one that it cannot have.
    #[error(transparent)]
    Scheme(#[from] SizeError),
    /// Integers where floating point is needed.
    #[error("`{0}` is quantized; only a model whose weights are all floating point is written as a dense directory")]
    Quantized(ParameterId),
    /// slmc.json is not true of the values.
    #[error("{}: slmc.json calls a matrix sparse that is not: {source}; prune it again, or remove the entry", path.display())]
    NotSparse {
        /// The model.
        path: PathBuf,
        /// Which matrix, and where.
        source: Box<MaskError>,
    },
    /// The model has no such parameter.
    #[error("{}: the model has no parameter `{id}`", path.display())]
    NoParameter {
        /// The model.
        path: PathBuf,
        /// The parameter.
        id: ParameterId,
    },
}

impl ModelError {
    /// [`ModelError::NotSparse`] of the model at a path.
    pub(super) fn not_sparse(path: &Path, error: MaskError) -> Self {
        ModelError::NotSparse { path: path.to_owned(), source: Box::new(error) }
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
    /// Its specification.
    pub spec: ModelSpec,
    /// Its configuration in the form of config.json.
    pub config: Config,
    /// Every tensor of [`ModelSpec::parameters`], and key maps where there are any.
    pub parameters: BTreeMap<ParameterId, Parameter>,
    /// Its tokenizer and the other files that travel with it.
    pub companions: Companions,
    /// Where it was read from, for messages.
    pub path: PathBuf,
}

impl Model {
    /// Values in f32, row-major: dense ones converted, quantized ones as the integers stand for.
    pub fn values_f32(&self, id: ParameterId) -> Result<Vec<f32>, ModelError> {
        match self.parameters.get(&id) {
            Some(Parameter::Dense(tensor)) => Ok(tensor.to_f32(&id.to_string())?),
            Some(Parameter::Quantized(matrix)) => Ok(into_values(matrix.dequantize())),
            None => Err(ModelError::NoParameter { path: self.path.clone(), id }),
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
            return Err(ModelError::NoParameter { path: self.path.clone(), id: parameter });
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
                Some(Parameter::Quantized(_)) => return Err(ModelError::Quantized(id)),
                None => return Err(ModelError::NoParameter { path: self.path, id }),
            }
        }
        Ok(self)
    }

    /// Whether any matrix is quantized.
    pub fn is_quantized(&self) -> bool {
        self.parameters.values().any(|parameter| matches!(parameter, Parameter::Quantized(_)))
    }

    /// Whether the zeros of dense matrices are those of `sparsity`.
    ///
    /// # Errors
    /// [`ModelError::NotSparse`], with the first group that has too many weights; values that cannot be read.
    pub fn check_sparsity(&self, sparsity: &Sparsity) -> Result<(), ModelError> {
        for (id, ..) in self.spec.matrices() {
            let Some(pattern) = sparsity.get(&id) else { continue };
            pattern.check(id, self.matrix(id)?.view()).map_err(|error| ModelError::not_sparse(&self.path, error))?;
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

/// A model without its values, for `estimate` and `plan`. It comes from headers alone, however large the weights;
/// names, shapes and data types are checked, values are not.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Its specification.
    pub spec: ModelSpec,
    /// Its configuration in the form of config.json.
    pub config: Config,
    /// Its tokenizer and the other files that travel with it.
    pub companions: Companions,
    /// Where it is.
    pub path: PathBuf,
    /// Scheme of every quantized matrix, of a quantized model.
    pub schemes: Option<BTreeMap<LinearId, QuantScheme>>,
    /// Pattern of every matrix that has one, of a quantized model.
    pub sparsity: Sparsity,
    /// Width of the inputs of every linear that takes more than 8 bits, of a quantized model.
    pub activations: BTreeMap<LinearId, Width>,
    /// Whether it holds key maps.
    pub key_maps: bool,
    /// What was found and decided in its files.
    pub notes: Vec<Note>,
}

impl Outline {
    /// The outline of a model whose source states neither schemes nor sparsity.
    pub fn dense(spec: ModelSpec, config: Config, companions: Companions, path: PathBuf, notes: Vec<Note>) -> Self {
        Outline {
            spec,
            config,
            companions,
            path,
            schemes: None,
            sparsity: Sparsity::new(),
            activations: BTreeMap::new(),
            key_maps: false,
            notes,
        }
    }

    /// Every parameter, key maps last.
    pub fn parameters(&self) -> Vec<ParameterId> {
        let key_maps = self.key_maps.then(|| self.spec.key_maps()).into_iter().flatten();
        self.spec.parameters().into_iter().chain(key_maps).map(|parameter| parameter.id).collect()
    }
}
