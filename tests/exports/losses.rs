//! What formats do not hold: refused with the matrix and the remedy, written under --lossy with a sentence.

use super::{exported, kept, model, options, quantized, same_integers, with_split};
use crate::support::golden;
use slmc::formats::export::ExportSettings;
use slmc::formats::{ModelSink, slmc_quantized};
use slmc::model::id::{LinearId, ParameterId, Role};
use slmc::model::scheme::{Preset, QuantScheme, Width};
use slmc::model::transform::NmPattern;
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::quantize::{Scales, quantize};
use slmc::stages::export::export_model;
use std::path::Path;

/// The refusal of an export, after which nothing is there.
fn refused(source: &Path, format: &str, settings: ExportSettings) -> String {
    let out = source.with_extension("refused");
    let asked = slmc::stages::export::ExportOptions { settings, ..options(source, format, &out) };
    let error = export_model(&asked, &Silent).expect_err("it is refused").to_string();
    assert!(!out.exists(), "{error}: and something was written");
    error
}

/// Writes what is refused without the word for it; the losses that are told.
fn lossy(source: &Path, format: &str, of: &Model) -> Vec<String> {
    let out = source.with_extension(format!("lossy-{format}"));
    let report =
        export_model(&slmc::stages::export::ExportOptions { lossy: true, ..options(source, format, &out) }, &Silent)
            .expect("it is written");
    assert_eq!(same_integers(&out, of, format), kept(&report), "every integer is there all the same");
    report.lost.iter().map(ToString::to_string).collect()
}

fn changed(
    model: &Model,
    change: impl Fn(LinearId, &mut slmc::model::quantized::QuantizedMatrix),
    out: &Path,
) -> Model {
    let (mut quantized, _) = quantize(model, &Preset::W4.assign(&model.spec), None, &Silent).expect("finite");
    for (id, parameter) in &mut quantized.parameters {
        if let (ParameterId::Linear(id, _), Parameter::Quantized(matrix)) = (id, parameter) {
            change(*id, matrix);
        }
    }
    slmc_quantized::Directory(out).write(&quantized, &serde_json::json!({})).expect("a directory");
    quantized
}

#[test]
fn sparsity_wide_inputs_and_split_tables_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("model");
    let llama = model("llama-gqa-tied");
    let sparse = changed(
        &llama,
        |id, matrix| {
            if id.role == Role::Up {
                matrix.values.indexed_iter_mut().for_each(|((_, column), value)| *value *= i8::from(column % 4 < 2));
                matrix.sparsity = Some(NmPattern::TWO_OF_FOUR);
            }
        },
        &source,
    );
    let error = refused(&source, "gguf", ExportSettings::default());
    assert_eq!(
        error,
        "gguf does not hold all that this model is: 2:4 sparsity of `layers.0.ffn.up` and 2 more: zeros are stored, a weight \
         takes 4.5 bits instead of 3.25; pass --lossy to write it without, or export a model that was made without"
    );
    assert!(
        refused(&source, "compressed-tensors", ExportSettings::default()).contains("2:4 sparsity of `layers.0.ffn.up`")
    );
    for format in ["gguf", "compressed-tensors"] {
        assert_eq!(lossy(&source, format, &sparse).len(), 1, "{format}");
    }
    // Dense values have room for zeros, and slmc.json says where they are.
    exported(&source, "safetensors", &directory.path().join("dense"));

    let wide = changed(
        &llama,
        |id, matrix| {
            if id.role == Role::Down {
                matrix.activations = Width::Bits16;
            }
        },
        &source,
    );
    let error = refused(&source, "gguf", ExportSettings::default());
    assert!(
        error.contains("16-bit inputs of `layers.0.ffn.down` and 2 more: llama.cpp rounds inputs to 8 bits"),
        "{error}"
    );
    assert_eq!(lossy(&source, "gguf", &wide).len(), 1);
    // Inputs of packed weights are floating point, and of linears with 16-bit inputs whatever is asked for.
    let packed = directory.path().join("packed");
    let mut asked = options(&source, "compressed-tensors", &packed);
    asked.settings.variant = Some("inputs");
    export_model(&asked, &Silent).expect("nothing is lost");
    same_integers(&packed, &wide, "packed with inputs");

    let split = quantized(&llama, &with_split(&llama, 64), Scales::Any, &source);
    let error = refused(&source, "gguf", ExportSettings::default());
    assert!(error.contains("two parts of `embed.token`: all rows take 8.5 bits a weight"), "{error}");
    assert_eq!(lossy(&source, "gguf", &split).len(), 1);
}

#[test]
fn three_bits_take_four_there_and_three_here() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("model");
    let llama = model("llama-gqa-tied");
    let mut assignment = Preset::W4.assign(&llama.spec);
    assignment.values_mut().for_each(|scheme| *scheme = QuantScheme::W3G32);
    let rounded = quantized(&llama, &assignment, Scales::Any, &source);
    assert!(refused(&source, "gguf", ExportSettings::default()).contains("3-bit integers of `embed.token`"));
    assert_eq!(lossy(&source, "gguf", &rounded).len(), 1);
    let report = exported(&source, "compressed-tensors", &directory.path().join("packed"));
    assert!(
        report.tensors.iter().any(|row| row.target == "pack-quantized, 3 bits, groups of 32"),
        "{:?}",
        report.tensors
    );
    same_integers(&directory.path().join("packed"), &rounded, "three bits");
    // Groups of 64 are two blocks with one scale.
    assignment.values_mut().for_each(|scheme| *scheme = QuantScheme::W4G64);
    let rounded = quantized(&llama, &assignment, Scales::Any, &source);
    for format in ["gguf", "compressed-tensors"] {
        let out = directory.path().join(format!("g64-{format}"));
        exported(&source, format, &out);
        same_integers(&out, &rounded, format);
    }
}

#[test]
fn what_the_architectures_do_not_say_is_refused_or_lost_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let cases = [
        ("bert-mlm", "masked-token head: the file gives hidden states"),
        ("mistral-sliding-window-8", "sliding window: the format has no key for it, and texts of more than 8 tokens"),
    ];
    for (name, expected) in cases {
        let out = directory.path().join("out.gguf");
        let error =
            export_model(&options(&golden(name), "gguf", &out), &Silent).expect_err("it is refused").to_string();
        assert!(error.contains(expected) && !out.exists(), "{name}: {error}");
        let asked = slmc::stages::export::ExportOptions { lossy: true, ..options(&golden(name), "gguf", &out) };
        let report = export_model(&asked, &Silent).expect("it is written");
        assert_eq!(report.lost.len(), 1, "{name}");
        slmc::formats::open_model(&out).unwrap_or_else(|error| panic!("{name}: {error}"));
        std::fs::remove_file(&out).expect("it is there");
    }
    let refusals = [
        ("gemma3-text", "gguf", "gguf cannot say the factor on scores (query_pre_attn_scalar)"),
        (
            "gpt2",
            "compressed-tensors",
            "compressed-tensors has no counterpart of gpt2, whose matrices are Conv1D modules",
        ),
        (
            "qwen3-qk-norm",
            "compressed-tensors",
            "compressed-tensors cannot say a model without integers: quantize it first",
        ),
    ];
    for (name, format, expected) in refusals {
        let out = directory.path().join("out");
        let error =
            export_model(&options(&golden(name), format, &out), &Silent).expect_err("it is refused").to_string();
        assert!(error.contains(expected) && !out.exists(), "{name}: {error}");
    }
}
