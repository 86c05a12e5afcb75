//! The export `onnx`: a directory of a graph with its tensors, the configuration and the files of the tokenizer, for
//! onnxruntime and, of a decoder, onnxruntime-genai. Integers are kept, scales are products of row scale and multiplier in f32,
//! everything else is f32.

use super::attention::is_grouped;
use super::composer::Composer;
use super::file::{self, MODEL_FILE};
use super::genai::{self, GENAI_FILE};
use super::layout::{self, PartLayout, parts};
use super::messages::{DataType, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use super::variant::{Operators, VARIANTS};
use super::{METADATA_SCHEMES, METADATA_VARIANT, PRODUCER};
use crate::disk::DenseType;
use crate::disk::atomic::{self, NewDirectory};
use crate::formats::ModelFormatError;
use crate::formats::export::{
    Described, Export, ExportError, ExportFormat, ExportPlan, ExportSettings, Kept, Place, Variant, Written,
    dense_type_name, key_maps_note, plain_config,
};
use crate::formats::output;
use crate::model::families::Family;
use crate::model::id::{ParameterId, Part};
use crate::model::scheme::QuantScheme;
use crate::model::spec::{Head, Mixer, ModelKind, ModelSpec, QueryKeyNorm};
use crate::model::weights::{Model, Outline, Parameter};
use crate::progress::Progress;
use serde_json::{Map, Value, json};
use std::path::Path;

const NAME: &str = "onnx";
/// Version of the format of messages.
const IR_VERSION: i64 = 10;
/// Version of the operators of the standard.
const OPSET: i64 = 21;

/// Its line of [`crate::formats::export::EXPORTS`].
pub struct OnnxExport;

impl ExportFormat for OnnxExport {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "directory with model.onnx of 4-bit and 8-bit integers, for onnxruntime and onnxruntime-genai"
    }

    fn place(&self) -> Place {
        Place::Directory
    }

    fn variants(&self) -> &'static [Variant] {
        &VARIANTS
    }

    fn plan(&self, model: &Described<'_>, settings: &ExportSettings) -> Result<ExportPlan, ExportError> {
        if let Some(dtype) = settings.dtype.filter(|dtype| *dtype != DenseType::F32) {
            let takes = "computes in f32 and holds what is not integers in it";
            return Err(ExportError::DataType { format: NAME, found: dense_type_name(dtype), takes });
        }
        let operators = operators(settings)?;
        refuse(model.spec)?;
        let mut plan = ExportPlan::default();
        for parameter in model.spec.parameters() {
            let values = parameter.shape.iter().map(|&n| n as u64).product::<u64>();
            let (id, stored) = (parameter.id, model.stored_name(parameter.id));
            let scheme = match id {
                ParameterId::Linear(linear, Part::Weight) => model.matrix(linear).scheme.map(|scheme| (linear, scheme)),
                _ => None,
            };
            let Some((linear, scheme)) = scheme else {
                plan.add(id, &stored, DataType::Float32.name(), (values, 4 * values), Kept::Values);
                continue;
            };
            let shape = (parameter.shape[0], parameter.shape[1]);
            let parts = parts(model.spec, linear, scheme, shape, operators);
            let bytes: usize = parts.iter().map(PartLayout::bytes).sum();
            plan.add(id, &stored, &target(&parts), (values, bytes as u64), Kept::Integers);
            if model.matrix(linear).two_of_four {
                plan.lose("2:4 sparsity", linear, "its zeros are stored as all integers are");
            }
        }
        if !model.schemes.is_empty() {
            plan.notes
                .push("inputs of matrices are 32-bit floats, on a device of slmc they have 8 or 16 bits".to_owned());
        }
        if model.schemes.values().any(|scheme| *scheme == QuantScheme::W3G32) {
            plan.notes.push("integers of 3 bits are stored in 4".to_owned());
        }
        if operators == Operators::Standard && !model.schemes.is_empty() {
            plan.notes.push(
                "onnxruntime rounds inputs to 8 bits in this variant unless session.qdq_matmulnbits_accuracy_level is 1"
                    .to_owned(),
            );
        }
        if operators == Operators::OnnxRuntime && model.spec.kind == ModelKind::Decoder && !is_grouped(model.spec) {
            plan.notes.push(
                "attention is of standard operators: GroupQueryAttention rotates heads of a multiple of 16 columns"
                    .to_owned(),
            );
        }
        plan.notes.extend(key_maps_note(model));
        Ok(plan)
    }

    fn check(&self, outline: &Outline, settings: &ExportSettings) -> Result<(), ModelFormatError> {
        Family::of(&outline.config)?;
        if outline.spec.kind == ModelKind::Decoder {
            genai::config(&outline.spec, &outline.config, &outline.companions, operators(settings)?)?;
        }
        Ok(())
    }

    fn check_output(&self, out: &Path) -> Result<(), ModelFormatError> {
        Ok(atomic::check_directory(out)?)
    }

    fn write(&self, export: Export<'_>, _progress: &dyn Progress) -> Result<Written, ModelFormatError> {
        let Export { model, settings, provenance, out, .. } = export;
        write(&model, operators(settings)?, false, provenance, out)
    }
}

/// The operators of the variant that is asked for.
fn operators(settings: &ExportSettings) -> Result<Operators, ExportError> {
    Operators::of(settings.variant).ok_or_else(|| ExportError::Variant {
        format: NAME,
        found: settings.variant.unwrap_or_default().to_owned(),
        known: VARIANTS.map(|variant| variant.name).join(", "),
    })
}

/// Refuses models that the graphs cannot compute.
fn refuse(spec: &ModelSpec) -> Result<(), ExportError> {
    let not_said = |what: String, why: &str| Err(ExportError::NotSaid { format: NAME, what, why: why.to_owned() });
    if spec.layers.iter().any(|layer| matches!(layer.mixer, Mixer::Conv(_))) {
        let why = "its graphs have layers of attention alone; export the model as safetensors, or compile it";
        return not_said(format!("the short convolutions of {}", spec.family), why);
    }
    if spec.has_experts() {
        let why = "its graphs have one network a layer; export the model as safetensors, or compile it";
        return not_said(format!("the experts of {}", spec.family), why);
    }
    if !spec.exits.is_empty() {
        let why = "its graphs have the last head alone; export the model as safetensors, or compile it";
        return not_said("exit heads".to_owned(), why);
    }
    let attention = || spec.layers.iter().filter_map(|layer| layer.attention());
    if attention().any(|of| of.query_key_norm == Some(QueryKeyNorm::Together)) {
        let why = "its graphs have norms of single heads; export the model as safetensors, or compile it";
        return not_said(format!("the norms of queries and keys of {}", spec.family), why);
    }
    if matches!(spec.head, Head::LastClassifier { .. }) {
        let why = "its classifiers read a pooler of the first token; export the model as safetensors, or compile it";
        return not_said(format!("the classifier of this {}", spec.family), why);
    }
    if spec.logit_cap().is_some() || attention().any(|of| of.score_cap.is_some()) {
        let why = "its graphs have neither; export the model as safetensors, or compile it";
        return not_said(format!("the caps on scores and logits of {}", spec.family), why);
    }
    let decoder = spec.kind == ModelKind::Decoder;
    if decoder && !matches!(spec.head, Head::LanguageModel { .. }) {
        let why = "its decoders give logits of the next token; export the model as safetensors, or compile it";
        return not_said(format!("the head of this {}", spec.family), why);
    }
    if !decoder && attention().any(|of| of.rotary.is_some() || of.window.is_some() || of.query_key_norm.is_some()) {
        let why = "its encoders have learned positions and see whole sequences; export the model as safetensors";
        return not_said(format!("the attention of this {}", spec.family), why);
    }
    if spec.projects_embeddings() {
        let why = "its encoders have tables as wide as their layers; export the model as safetensors, or compile it";
        return not_said(format!("the embeddings of this {}", spec.family), why);
    }
    Ok(())
}

/// The word for how the parts of a matrix are stored.
fn target(parts: &[PartLayout]) -> String {
    let names = parts.iter().map(|part| match (part.data_type(), part.is_blocked()) {
        (DataType::Uint8, _) => format!("uint{} by {}", part.bits, part.block()),
        (data_type, true) => format!("{} by {}", data_type.name(), part.block()),
        (data_type, false) => data_type.name().to_owned(),
    });
    names.collect::<Vec<_>>().join(" + ")
}

/// Writes the directory; tensors in a file of their own where they are wanted `apart`, or are too large for one.
pub(super) fn write(
    model: &Model,
    operators: Operators,
    apart: bool,
    provenance: &Value,
    out: &Path,
) -> Result<Written, ModelFormatError> {
    refuse(&model.spec)?;
    for (id, parameter) in &model.parameters {
        if let (ParameterId::Linear(id, _), Parameter::Quantized(matrix)) = (id, parameter) {
            matrix.validate(*id)?;
        }
    }
    let mut composer = Composer::new(model, operators);
    let decoder = model.spec.kind == ModelKind::Decoder;
    if decoder {
        composer.decoder()?
    } else {
        composer.encoder()?
    }
    if let Some(name) = composer.graph.repeated() {
        let what = format!("a graph that gives `{name}` twice");
        let why = "this is a fault of slmc, please report it; export the model as safetensors".to_owned();
        return Err(ExportError::NotSaid { format: NAME, what, why }.into());
    }
    let directory = NewDirectory::begin(out)?;
    let header = header(model, operators);
    file::write(directory.path(), &header, model.spec.family, composer.graph, apart)?;
    let config = plain_config(&model.config);
    let mut notes = Vec::new();
    if decoder {
        let genai = genai::config(&model.spec, &config, &model.companions, operators)?;
        let failed = |source| ModelFormatError::Companion { file: directory.path().join(GENAI_FILE), source };
        directory.write(GENAI_FILE, format!("{genai:#}\n")).map_err(failed)?;
        notes.extend(genai::note(&model.companions)?);
    }
    output::finish(directory, config.map().clone(), provenance, &model.companions)?;
    Ok(Written { scale_error: scale_error(model), notes })
}

/// Everything of the file but the graph.
fn header(model: &Model, operators: Operators) -> ModelProto {
    let standard = OperatorSetIdProto { domain: Some(String::new()), version: OPSET };
    let contrib = OperatorSetIdProto { domain: Some(super::builder::CONTRIB.to_owned()), version: 1 };
    let mut opset_import = vec![standard];
    opset_import.extend((operators == Operators::OnnxRuntime).then_some(contrib));
    let schemes: Map<String, Value> =
        model.schemes().iter().map(|(id, scheme)| (id.to_string(), json!(scheme.to_string()))).collect();
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: PRODUCER.to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        opset_import,
        metadata_props: vec![
            StringStringEntryProto::new(METADATA_VARIANT, operators.name().to_owned()),
            StringStringEntryProto::new(METADATA_SCHEMES, Value::Object(schemes).to_string()),
        ],
        ..ModelProto::default()
    }
}

/// Largest relative change of a scale: of a product of row scale and multiplier that f32 does not hold. `None` without
/// integers.
fn scale_error(model: &Model) -> Option<f64> {
    let matrices = model.parameters.values().filter_map(|parameter| match parameter {
        Parameter::Quantized(matrix) => Some(matrix),
        Parameter::Dense(_) => None,
    });
    let errors = matrices.map(|matrix| {
        let rows = (0..matrix.rows()).flat_map(|row| (0..matrix.multipliers(row).len()).map(move |block| (row, block)));
        let change = |(row, block): (usize, usize)| {
            let exact = f64::from(matrix.row_scale[row]) * f64::from(matrix.multipliers(row)[block]);
            let written = f64::from(layout::scale(matrix, row, block));
            if exact == 0.0 { 0.0 } else { ((written - exact) / exact).abs() }
        };
        rows.map(change).fold(0.0, f64::max)
    });
    errors.reduce(f64::max)
}

/// Whether a file begins as the graphs that slmc writes: `ir_version`, then `producer_name`.
pub(super) fn is_own(start: &[u8]) -> bool {
    let name = PRODUCER.as_bytes();
    let expected = [&[0x08, IR_VERSION as u8, 0x12, name.len() as u8], name].concat();
    start.starts_with(&expected)
}

/// Bytes that [`is_own`] looks at.
pub(super) const START_BYTES: usize = 4 + PRODUCER.len();

/// The graph's file in a directory.
pub(super) fn graph_file(directory: &Path) -> std::path::PathBuf {
    directory.join(MODEL_FILE)
}
