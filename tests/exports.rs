//! Models written for other tools and read back: every integer stays, rows of queries and keys among them; with scales that
//! are halves every weight does, to the bit. What a format does not hold is refused by name, and nothing is written then.

mod directories;
mod heads;
mod losses;
mod places;
mod recipes;
mod text;

use crate::support::{golden, root};
use serde_json::{Map, Value, json};
use slm_runtime::sample::random_u64;
use slmc::disk::{Config, DenseTensor, DenseType};
use slmc::formats::export::{self, ExportSettings, Kept};
use slmc::formats::{self, ModelSink, hugging_face, open_model, slmc_quantized};
use slmc::model::companions::Companions;
use slmc::model::families::spec_without_weights;
use slmc::model::id::{LinearId, ParameterId, Part};
use slmc::model::scheme::{Assignment, Preset, QuantScheme};
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::quantize::{Grids, Scales, quantize};
use slmc::stages::export::{ExportOptions, ExportReport, export_model};
use std::collections::BTreeMap;
use std::path::Path;

/// A family for each architecture, by the golden checkpoint whose configuration is widened to whole blocks.
const FAMILIES: [&str; 11] = [
    "bert-classifier",
    "bert-encoder",
    "gemma3-text",
    "gpt2",
    "lfm2-short-conv",
    "llama-gqa-tied",
    "llama3-rope-scaling",
    "mistral",
    "phi3-fused-qkv",
    "qwen2-qkv-bias",
    "qwen3-qk-norm",
];
/// Hidden width, width of the network and of a head.
const HIDDEN: usize = 64;
const WIDTH: usize = 160;
const HEAD: usize = 16;

/// The configuration of a golden checkpoint with widths that blocks of 32 divide.
fn widened(name: &str) -> Config {
    let path = golden(name).join("config.json");
    let text = std::fs::read(&path).expect("a golden checkpoint");
    let mut map: Map<String, Value> = serde_json::from_slice(&text).expect("JSON");
    let widths = [
        ("hidden_size", HIDDEN),
        ("n_embd", HIDDEN),
        ("intermediate_size", WIDTH),
        ("n_inner", WIDTH),
        ("head_dim", HEAD),
        ("query_pre_attn_scalar", HEAD),
    ];
    for (key, width) in widths {
        if map.contains_key(key) {
            map.insert(key.to_owned(), json!(width));
        }
    }
    Config::from_map(&path, map)
}

/// A model of a family with random values of every sign.
fn model(name: &str) -> Model {
    model_of(widened(name))
}

/// A model of a configuration with such values.
fn model_of(config: Config) -> Model {
    let name = config.file().display();
    let spec = spec_without_weights(&config).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut parameters = BTreeMap::new();
    for (number, parameter) in spec.parameters().into_iter().enumerate() {
        let count: usize = parameter.shape.iter().product();
        let draw = |n: usize| (random_u64(number as u64, n as u64) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let values: Vec<f32> = (0..count).map(|n| 0.2 * draw(n)).collect();
        let tensor = DenseTensor::from_f32(parameter.shape, &values).expect("as many values");
        parameters.insert(parameter.id, Parameter::Dense(tensor));
    }
    Model { spec, config, parameters, companions: Companions::of(Path::new("nowhere")), path: "random".into() }
}

/// The model rounded plainly, in a directory.
fn quantized(model: &Model, assignment: &Assignment, scales: Scales, out: &Path) -> Model {
    let (quantized, _) = quantize(model, Grids { assignment, scales }, None, &Silent).expect("finite values");
    slmc_quantized::Directory(out).write(&quantized, &json!({})).expect("a directory");
    quantized
}

fn options(model: &Path, format: &str, out: &Path) -> ExportOptions {
    ExportOptions {
        model: model.to_owned(),
        format: export::named(format).expect("a format"),
        settings: ExportSettings::default(),
        lossy: false,
        out: out.to_owned(),
        invocation: Default::default(),
    }
}

fn exported(model: &Path, format: &str, out: &Path) -> ExportReport {
    export_model(&options(model, format, out), &Silent).unwrap_or_else(|error| panic!("{format}: {error}"))
}

/// Matrices whose integers a report says are kept, by what they become.
fn kept(report: &ExportReport) -> usize {
    report.tensors.iter().filter(|row| row.kept == Kept::Integers).map(|row| row.tensors).sum()
}

/// Compares the integers that a file holds of a model with those that it was made of; how many matrices were compared.
fn same_integers(path: &Path, of: &Model, what: &str) -> usize {
    let source = formats::open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut compared = 0;
    for (id, parameter) in &of.parameters {
        let (ParameterId::Linear(id, Part::Weight), Parameter::Quantized(matrix)) = (id, parameter) else { continue };
        let Some(integers) = source.integers(*id).expect("readable") else { continue };
        assert!(integers.values == matrix.values, "{what}: the integers of {id} differ");
        let groups = integers.scales.ncols();
        for row in 0..matrix.rows() {
            for column in 0..matrix.columns() {
                let scale = f64::from(integers.scales[[row, (column / integers.group).min(groups - 1)]]);
                let multiplier = f64::from(matrix.integer(row, column)) / f64::from(matrix.values[[row, column]]);
                let own = f64::from(matrix.row_scale[row]) * if multiplier.is_nan() { continue } else { multiplier };
                assert!((scale - own).abs() <= 5e-4 * own.abs(), "{what}: a scale of {id}: {scale}, was {own}");
            }
        }
        compared += 1;
    }
    compared
}

/// Bits of all values of a model; a negative scale makes a zero of the other sign, which is the same weight.
fn bits(model: &Model, id: ParameterId) -> Vec<u32> {
    model.values_f32(id).expect("finite values").into_iter().map(|value| (value + 0.0).to_bits()).collect()
}

/// Compares every value of a model that was read back with those that the integers stand for.
fn same_values(read: &Model, of: &Model, what: &str) {
    for id in read.parameters.keys() {
        let mut own = bits(of, *id);
        if what.contains("gguf") && of.spec.counts_from_one(*id) {
            // A file holds these norms with one added, rounded.
            own = own.into_iter().map(|bits| ((f32::from_bits(bits) + 1.0) - 1.0).to_bits()).collect();
        }
        assert!(bits(read, *id) == own, "{what}: the values of {id} differ");
    }
    let named = |model: &Model| -> Vec<ParameterId> {
        model.parameters.keys().filter(|id| !matches!(id, ParameterId::KeyMap(..))).copied().collect()
    };
    assert_eq!(named(read), named(of), "{what}");
}

#[test]
fn every_integer_comes_back_in_every_family_and_scheme() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in FAMILIES {
        let model = model(name);
        for preset in Preset::ALL {
            let what = format!("{name} in {}", preset.name());
            let source = directory.path().join("quantized");
            let rounded = quantized(&model, &preset.assign(&model.spec), Scales::Any, &source);
            let out = directory.path().join("model.gguf");
            let report = exported(&source, "gguf", &out);
            let compared = same_integers(&out, &rounded, &format!("{what} as gguf"));
            assert_eq!(compared, kept(&report), "{what}: as many matrices as the report says");
            assert!(compared >= 3 * model.spec.layers.len(), "{what}: {compared} matrices");
            let largest = report.scale_error.expect("there are scales");
            assert!((1e-5..5e-4).contains(&largest), "{what}: {largest}");
            if name == "gpt2" {
                continue;
            }
            let out = directory.path().join("packed");
            let report = exported(&source, "compressed-tensors", &out);
            let compared = same_integers(&out, &rounded, &format!("{what} as compressed-tensors"));
            assert_eq!(compared, kept(&report), "{what}: as many matrices as the report says");
            assert!(compared >= 3 * model.spec.layers.len(), "{what}: {compared} matrices");
        }
    }
}

#[test]
fn with_scales_that_are_halves_every_weight_comes_back_to_the_bit() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in FAMILIES {
        let model = model(name);
        for preset in Preset::ALL {
            let source = directory.path().join("quantized");
            let rounded = quantized(&model, &preset.assign(&model.spec), Scales::Half, &source);
            let out = directory.path().join("model.gguf");
            let report = exported(&source, "gguf", &out);
            assert_eq!(report.scale_error, Some(0.0), "{name} in {}", preset.name());
            let what = format!("{name} in {} as gguf", preset.name());
            let read = open_model(&out).unwrap_or_else(|error| panic!("{what}: {error}"));
            same_values(&read, &rounded, &what);
            let mut expected = model.spec.clone();
            // Without a tokenizer a file has one end token at most.
            expected.ends.truncate(1);
            if name == "mistral" {
                expected.family = "llama";
            }
            assert_eq!(read.spec, expected, "{what}");
            if name == "gpt2" {
                continue;
            }
            let out = directory.path().join("packed");
            let mut packed = options(&source, "compressed-tensors", &out);
            packed.settings.dtype = Some(DenseType::F32);
            let report = export_model(&packed, &Silent).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(report.scale_error, Some(0.0), "{name} in {}", preset.name());
            same_values(&open_model(&out).expect("a directory"), &rounded, &format!("{name} as compressed-tensors"));
        }
    }
}

#[test]
fn dense_directories_hold_what_integers_stand_for() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in FAMILIES {
        let model = model(name);
        let source = directory.path().join("quantized");
        let rounded = quantized(&model, &Preset::Mixed.assign(&model.spec), Scales::Any, &source);
        let out = directory.path().join("dense");
        let report = exported(&source, "safetensors", &out);
        assert!(report.tensors.iter().all(|row| row.kept == Kept::Values && row.target == "f32"), "{name}");
        let read = open_model(&out).unwrap_or_else(|error| panic!("{name}: {error}"));
        same_values(&read, &rounded, name);
        assert!(read.config.value("quantization_config").is_none(), "{name}");
        // A dense model is written as well, rounded to the nearest.
        let plain = directory.path().join("plain");
        hugging_face::Directory(&plain).write(&model, &json!({})).expect("a directory");
        for (dtype, format) in [(DenseType::F16, "safetensors"), (DenseType::F16, "gguf"), (DenseType::F32, "gguf")] {
            let out = directory.path().join(format!("dense-{name}-{dtype}-{format}"));
            let mut dense = options(&plain, format, &out);
            dense.settings.dtype = Some(dtype);
            export_model(&dense, &Silent).unwrap_or_else(|error| panic!("{name}: {error}"));
            let read = open_model(&out).expect("a model");
            for id in read.parameters.keys() {
                let largest = read
                    .values_f32(*id)
                    .expect("finite")
                    .iter()
                    .zip(model.values_f32(*id).expect("finite"))
                    .fold(0f32, |most, (read, own)| most.max((read - own).abs()));
                let bound = if dtype == DenseType::F32 { 1.3e-7 } else { 1e-4 };
                assert!(largest <= bound, "{name} as {format} in {dtype}: {id} is {largest} off");
            }
        }
    }
}

#[test]
fn the_file_of_a_golden_checkpoint_equals_the_one_that_the_formats_package_wrote() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = [
        "bert-classifier",
        "gpt2",
        "lfm2-short-conv",
        "llama-gqa-tied",
        "llama3-rope-scaling",
        "phi3-fused-qkv",
        "qwen2-qkv-bias",
        "qwen3-qk-norm",
    ];
    for name in files {
        let out = directory.path().join(format!("{name}.gguf"));
        let mut dense = options(&golden(name), "gguf", &out);
        dense.settings.dtype = Some(DenseType::F32);
        export_model(&dense, &Silent).unwrap_or_else(|error| panic!("{name}: {error}"));
        let theirs = root("tests/data/gguf").join(format!("{name}.gguf"));
        let (mut ours, theirs) = (open_model(&out).expect("ours"), open_model(&theirs).expect("theirs"));
        // Theirs were written without special tokens.
        ours.spec.ends = theirs.spec.ends.clone();
        ours.spec.embedding = theirs.spec.embedding;
        assert_eq!(ours.spec, theirs.spec, "{name}");
        for id in theirs.parameters.keys() {
            assert!(bits(&ours, *id) == bits(&theirs, *id), "{name}: the values of {id} differ");
        }
    }
}

/// A matrix of which only some rows have 8 bits.
fn with_split(model: &Model, wide_rows: u32) -> Assignment {
    let mut assignment = Preset::W4.assign(&model.spec);
    let table = LinearId::global(slmc::model::id::Role::TokenEmbedding);
    assignment.insert(table, QuantScheme::Split { wide_rows });
    assignment
}
