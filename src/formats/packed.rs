//! Directories whose linears another tool has packed into integers: GPTQ, AWQ, AutoRound, torchao and the integer formats of
//! compressed-tensors. `quantization_config` names the method, in older directories quantize_config.json or
//! quant_config.json. Everything that is not packed is a plain tensor.
//!
//! When such a directory is opened, the tensors of every packed matrix `X` are checked by their headers and taken out of
//! the table, and `X.weight` in f32 stands in their place, which is made when it is read: from there on the directory is
//! as any other. What the public readers compute is what is computed here, in f32:
//! `matrix` has the equation, a file for each method its layout.

mod awq;
mod codes;
mod compressed_tensors;
pub mod error;
mod gptq;
mod matrix;
mod module;
mod sparse;
mod torchao;

pub use compressed_tensors::CompressedTensorsExport;

use self::error::PackedError;
use self::matrix::PackedMatrix;
use self::module::Module;
use super::error::ModelFormatError;
use super::hugging_face::{self, DenseSource, companions, configuration_of, contents};
use super::stored_tensors::{StoredTensors, Tensors};
use super::{Format, ModelSource, StoredAs};
use crate::disk::deferred::Deferred;
use crate::disk::hash::{Hash, HashError, path_sha256};
use crate::disk::tensor_file::StoredTensor;
use crate::disk::{Config, ConfigError, SharedBytes};
use crate::model::families::Family;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::integers::{Grid, GroupedIntegers, Unfit};
use crate::model::notes::Note;
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::model::weights::{Outline, Parameter};
use safetensors::Dtype;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Section of config.json.
const KEY: &str = "quantization_config";
/// Files of older directories that stand for the section, each with the method they are of.
const BESIDE: [(&str, &str); 2] = [("quantize_config.json", "gptq"), ("quant_config.json", "awq")];

/// Its row of [`super::FORMATS`], before that of slmc's own quantized directories.
pub const FORMAT: Format = Format {
    name: "packed weights of another tool",
    recognises: |path| {
        path.is_dir() && section(path).map_or_else(|_| has_settings_beside(path), |found| found.is_some())
    },
    contents,
    configuration: |path| hugging_face::configuration(path).map(|config| plain(&config)),
    companions: |path| Ok(companions(path)),
    open: |path| Ok(Box::new(PackedSource::open(path)?)),
    sha256: path_sha256,
};

/// The methods that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Gptq,
    Awq,
    AutoRound,
    CompressedTensors,
    TorchAo,
}

impl Method {
    fn of(name: &str) -> Option<Method> {
        Some(match name {
            "gptq" => Method::Gptq,
            "awq" => Method::Awq,
            "auto-round" | "intel/auto-round" => Method::AutoRound,
            "compressed-tensors" => Method::CompressedTensors,
            "torchao" => Method::TorchAo,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Method::Gptq => "GPTQ",
            Method::Awq => "AWQ",
            Method::AutoRound => "AutoRound",
            Method::CompressedTensors => "compressed-tensors",
            Method::TorchAo => "torchao",
        }
    }
}

/// Method and section of a directory; `None` where it has none that is read here.
fn section(directory: &Path) -> Result<Option<(Method, Config)>, ModelFormatError> {
    let config = hugging_face::configuration(directory)?;
    if let Some(section) = config.section(KEY)? {
        let method = section.value("quant_method").and_then(Value::as_str).and_then(Method::of);
        return Ok(method.map(|method| (method, section)));
    }
    let Some((name, method)) = BESIDE.into_iter().find(|(name, _)| is_beside(directory, name)) else { return Ok(None) };
    let section = Config::read(&directory.join(name))?;
    let method = section.optional_text("quant_method")?.unwrap_or(method);
    Ok(Method::of(method).map(|method| (method, section)))
}

/// Whether settings of that name stand beside packed weights, if only as a link that leads nowhere.
fn is_beside(directory: &Path, name: &str) -> bool {
    let packed = |stored: StoredTensors| stored.tensors().keys().any(|name| name.ends_with(".qweight"));
    directory.join(name).symlink_metadata().is_ok()
        && contents(directory).weights
        && StoredTensors::open(directory).is_ok_and(packed)
}

/// Whether settings beside packed weights are what cannot be read: opening the directory says why.
fn has_settings_beside(directory: &Path) -> bool {
    hugging_face::configuration(directory).is_ok_and(|config| config.value(KEY).is_none())
        && BESIDE.iter().any(|(name, _)| is_beside(directory, name))
}

/// A configuration without the section: that of the model that the matrices stand for.
fn plain(config: &Config) -> Config {
    let mut map = config.map().clone();
    map.shift_remove(KEY);
    Config::from_map(config.file(), map)
}

/// How one kind of packed module is read.
type Read<'r> = Box<dyn Fn(&Module<'_>) -> Result<PackedMatrix, ModelFormatError> + 'r>;

/// The tensors of one kind of packed modules, the first being there for all of them.
struct Kind<'r> {
    ends: &'static [&'static str],
    read: Read<'r>,
}

/// The readers of a method by its section.
fn kinds(method: Method, section: &Config, tensors: &Tensors) -> Result<Vec<Kind<'static>>, ModelFormatError> {
    let gptq = |settings: gptq::Settings| {
        let read: Read<'static> = Box::new(move |module| gptq::read(module, &settings));
        vec![Kind { ends: &gptq::ENDS, read }]
    };
    let awq = |settings: awq::Settings| {
        let read: Read<'static> = Box::new(move |module| awq::read(module, &settings));
        vec![Kind { ends: &awq::ENDS, read }]
    };
    Ok(match method {
        Method::Gptq => gptq(gptq::Settings::of(section, method.name(), None)?),
        Method::Awq => awq(awq::Settings::of(section)?),
        Method::AutoRound => {
            if section.optional_text("data_type")?.is_some_and(|kind| kind != "int") {
                return Err(section.unsupported("data_type", method.name(), "int").into());
            }
            match section.optional_text("packing_format")?.unwrap_or("auto_round:auto_gptq") {
                "auto_round:auto_gptq" | "auto_gptq" => gptq(gptq::Settings::of(section, method.name(), Some(true))?),
                "auto_round" | "auto_round:gptqmodel" => gptq(gptq::Settings::of(section, method.name(), Some(false))?),
                "auto_round:auto_awq" | "auto_awq" => awq(awq::Settings::of_auto_round(section)?),
                _ => {
                    let known = "auto_round, auto_round:auto_gptq, auto_round:gptqmodel, auto_round:auto_awq";
                    return Err(section.unsupported("packing_format", method.name(), known).into());
                }
            }
        }
        Method::CompressedTensors => {
            let settings = Arc::new(compressed_tensors::Settings::of(section)?);
            let in_bytes = Arc::clone(&settings);
            vec![
                Kind {
                    ends: &compressed_tensors::PACKED_ENDS,
                    read: Box::new(move |module| compressed_tensors::read_packed(module, &settings)),
                },
                Kind {
                    ends: &compressed_tensors::BYTES_ENDS,
                    read: Box::new(move |module| compressed_tensors::read_bytes(module, &in_bytes)),
                },
            ]
        }
        Method::TorchAo => {
            let kinds = torchao::Kinds::of(tensors)?;
            vec![Kind { ends: &torchao::ENDS, read: Box::new(move |module| torchao::read(module, &kinds)) }]
        }
    })
}

/// An opened directory.
struct PackedSource {
    method: Method,
    dense: DenseSource,
    /// By the names of the tensors they stand for.
    matrices: BTreeMap<String, Arc<PackedMatrix>>,
}

impl PackedSource {
    fn open(directory: &Path) -> Result<Self, ModelFormatError> {
        let whole = configuration_of(directory)?;
        let (method, section) =
            section(directory)?.ok_or_else(|| whole.missing(KEY, "the method that the weights are packed by"))?;
        let mut unpacking = Unpacking { method, section: &section, matrices: BTreeMap::new() };
        let dense = DenseSource::converted(directory, plain(&whole), |spec, family, tensors| {
            unpacking.unpacked(tensors, spec, family)
        })?;
        Ok(PackedSource { method, dense, matrices: unpacking.matrices })
    }

    /// The packed matrix that a matrix is in, and its rows there.
    fn matrix(&self, id: LinearId) -> Option<(&PackedMatrix, Range<usize>)> {
        let (name, rows) = self.dense.rows_of(id)?;
        Some((self.matrices.get(name)?, rows))
    }
}

/// The matrices of a directory, while it is opened.
struct Unpacking<'s> {
    method: Method,
    section: &'s Config,
    matrices: BTreeMap<String, Arc<PackedMatrix>>,
}

impl Unpacking<'_> {
    /// The table with `X.weight` in the place of what a matrix is packed as, and what is said of it.
    fn unpacked(
        &mut self,
        mut tensors: Tensors,
        spec: &ModelSpec,
        family: &Family,
    ) -> Result<(Tensors, Vec<Note>), ModelFormatError> {
        let names = Names::of(spec, family);
        let kinds = kinds(self.method, self.section, &tensors)?;
        let mut sparse = 0;
        let mut of_inputs = 0;
        if self.method == Method::CompressedTensors {
            sparse = self.scattered(&mut tensors)?;
            let before = tensors.len();
            tensors.retain(|name, _| !compressed_tensors::OF_INPUTS.iter().any(|end| name.ends_with(end)));
            of_inputs = before - tensors.len();
        }
        let mut zero_biases = 0;
        for kind in &kinds {
            let modules: Vec<String> =
                tensors.keys().filter_map(|name| name.strip_suffix(kind.ends[0])).map(str::to_owned).collect();
            for name in modules {
                let taken = kind.ends.iter().filter_map(|end| Some((*end, tensors.remove(&format!("{name}{end}"))?)));
                let taken = taken.collect();
                let module = Module { name: &name, method: self.method.name(), key: kind.ends[0], tensors: taken };
                self.add(&mut tensors, &module, (kind.read)(&module)?, &names)?;
                zero_biases += usize::from(names.drop_zero_bias(&mut tensors, &name));
            }
        }
        if self.matrices.is_empty() && sparse == 0 {
            return Err(PackedError::NothingPacked {
                file: self.section.file().to_owned(),
                key: KEY.to_owned(),
                method: self.method.name(),
                end: kinds[0].ends[0],
            }
            .into());
        }
        let mut notes = self.notes();
        if sparse > 0 {
            notes.push(Note::Scattered { matrices: sparse });
        }
        if zero_biases > 0 {
            notes.push(Note::ZeroBiases { method: self.method.name(), matrices: zero_biases });
        }
        if of_inputs > 0 {
            notes.push(Note::InputScales { method: self.method.name(), tensors: of_inputs });
        }
        Ok((tensors, notes))
    }

    /// Puts `X.weight` in the place of every matrix with a bitmask; how many there are.
    fn scattered(&self, tensors: &mut Tensors) -> Result<usize, ModelFormatError> {
        let key = sparse::ENDS[0];
        let modules: Vec<String> =
            tensors.keys().filter_map(|name| name.strip_suffix(key)).map(str::to_owned).collect();
        for name in &modules {
            let taken = sparse::ENDS.iter().filter_map(|end| Some((*end, tensors.remove(&format!("{name}{end}"))?)));
            let taken = taken.collect();
            let module = Module { name, method: self.method.name(), key, tensors: taken };
            let whole = sparse::read(&module)?;
            put(tensors, &module, whole)?;
        }
        Ok(modules.len())
    }

    /// Puts a matrix into the table.
    fn add(
        &mut self,
        tensors: &mut Tensors,
        module: &Module<'_>,
        matrix: PackedMatrix,
        names: &Names,
    ) -> Result<(), ModelFormatError> {
        let name = format!("{}.weight", module.name);
        let (matrix, turned) = (Arc::new(matrix), names.turned.contains(&name));
        let (rows, columns) = matrix.shape();
        let file = module.part(module.key)?.file.clone();
        let made = Arc::clone(&matrix);
        let deferred = Deferred::new(rows * columns * 4, &file, move || made.to_bytes(turned));
        let shape = if turned { vec![columns, rows] } else { vec![rows, columns] };
        let tensor = StoredTensor { dtype: Dtype::F32, shape, bytes: SharedBytes::deferred(deferred), file };
        put(tensors, module, tensor)?;
        self.matrices.insert(name, matrix);
        Ok(())
    }

    /// What the matrices are.
    fn notes(&self) -> Vec<Note> {
        let mut kinds: BTreeMap<(usize, Option<usize>), usize> = BTreeMap::new();
        for matrix in self.matrices.values() {
            *kinds.entry((matrix.bits(), matrix.group_size())).or_default() += 1;
        }
        let method = self.method.name();
        let note = |((bits, group), matrices)| Note::Packed { method, matrices, bits, group };
        kinds.into_iter().map(note).collect()
    }
}

/// Puts `X.weight` into the table, where there is none yet.
fn put(tensors: &mut Tensors, module: &Module<'_>, tensor: StoredTensor) -> Result<(), ModelFormatError> {
    let name = format!("{}.weight", module.name);
    if let Some(plain) = tensors.get(&name) {
        let (file, packed) = (plain.file.clone(), module.full(module.key));
        return Err(PackedError::Twice { file, tensor: name, packed }.into());
    }
    tensors.insert(name, tensor);
    Ok(())
}

/// The tensors of a family's models.
struct Names {
    known: BTreeSet<String>,
    /// Matrices that the family's files hold as (in, out); packed ones are (out, in) all the same.
    turned: BTreeSet<String>,
}

impl Names {
    fn of(spec: &ModelSpec, family: &Family) -> Names {
        let mut names = Names { known: BTreeSet::new(), turned: BTreeSet::new() };
        for source in spec.parameters().iter().filter_map(|parameter| family.tensor(spec, parameter.id)) {
            for name in family.prefixes.iter().chain(&[""]).flat_map(|prefix| source.names(prefix)) {
                if source.transposed {
                    names.turned.insert(name.clone());
                }
                names.known.insert(name);
            }
        }
        names
    }

    /// Takes out the bias of a packed matrix that the family does not have and that is zero: AutoGPTQ writes one for every
    /// linear.
    fn drop_zero_bias(&self, tensors: &mut Tensors, module: &str) -> bool {
        let name = format!("{module}.bias");
        let zero = |tensor: &StoredTensor| tensor.bytes.as_slice().iter().all(|byte| *byte == 0);
        let superfluous = !self.known.contains(&name) && tensors.get(&name).is_some_and(zero);
        superfluous && tensors.remove(&name).is_some()
    }
}

impl ModelSource for PackedSource {
    fn outline(&self) -> &Outline {
        self.dense.outline()
    }

    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        self.dense.parameter(id)
    }

    fn grid(&self, id: LinearId) -> Result<Grid, Unfit> {
        self.matrix(id).ok_or(Unfit::Floats)?.0.grid()
    }

    fn integers(&self, id: LinearId) -> Result<Option<GroupedIntegers>, ModelFormatError> {
        Ok(self.matrix(id).and_then(|(matrix, rows)| matrix.integers(rows)))
    }

    fn stored(&self, id: ParameterId) -> Result<Option<StoredAs>, ModelFormatError> {
        let matrix = match id {
            ParameterId::Linear(id, Part::Weight) => self.matrix(id),
            _ => None,
        };
        Ok(Some(match matrix {
            Some((matrix, _)) => StoredAs::converted(format!("{}, {}", self.method.name(), matrix.described())),
            None => StoredAs::of(&self.parameter(id)?),
        }))
    }

    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError> {
        Ok(Sparsity::new())
    }

    fn provenance(&self) -> Option<Value> {
        self.dense.provenance()
    }

    fn sha256(&self) -> Result<Hash, HashError> {
        self.dense.sha256()
    }
}
