//! Directories that other tools have packed: the checkpoints of tests/data/packed, whose make.py says how they are made. Their
//! weights must be the recorded ones bit for bit, their logits those of transformers.

use crate::support::{name, root};
use safetensors::SafeTensors;
use serde_json::Value;
use slmc::disk::hash::{hex, sha256};
use slmc::formats::{self, ModelSink, hugging_face, open, open_model};
use slmc::model::device::{BACKENDS, device};
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::id::ParameterId;
use slmc::model::scheme::SCHEMES;
use slmc::model::weights::Parameter;
use slmc::quantize::Scales;
use slmc::quantize::keep::taken_over;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

mod hostile;

/// Every folder of tests/data/packed.
const PACKED: [&str; 17] = [
    "auto-round",
    "awq-gemm",
    "awq-gemv-beside",
    "awq-gemv-fast",
    "ct-3-bits-old",
    "ct-4-bits",
    "ct-4-bits-order",
    "ct-bitmask",
    "ct-mixed",
    "gptq-2-bits-beside",
    "gptq-3-bits",
    "gptq-gpt2",
    "gptq-phi3",
    "gptq-v1",
    "gptq-v2-order",
    "torchao",
    "torchao-int4",
];

fn packed(name: &str) -> PathBuf {
    assert!(PACKED.contains(&name), "{name} is not in the list of packed checkpoints");
    root("tests/data/packed").join(name)
}

fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(root("tests/data/packed")).expect("it is part of the repository");
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    assert_eq!(found, PACKED.map(packed), "tests/data/packed and the list differ");
    found
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it is there")).expect("JSON")
}

/// (in, out) turned.
fn turned(bytes: &[u8], (rows, columns): (usize, usize)) -> Vec<u8> {
    let value = |row: usize, column: usize| bytes[(row * columns + column) * 4..][..4].to_vec();
    (0..columns).flat_map(|column| (0..rows).flat_map(move |row| value(row, column))).collect()
}

/// f16 as f32.
fn wide(bytes: &[u8]) -> Vec<u8> {
    let halves = bytes.as_chunks::<2>().0.iter();
    halves.flat_map(|half| half::f16::from_le_bytes(*half).to_f32().to_le_bytes()).collect()
}

#[test]
fn weights_are_what_the_packers_rules_say_bit_for_bit() {
    weights_of(&folders());
}

/// Packed folders of a model of any size, which make.py writes with `--model`.
#[test]
#[ignore = "needs SLMC_PACKED, the folders that tests/data/packed/make.py writes of a whole model"]
fn a_whole_model_is_what_the_packers_rules_say() {
    let packed = std::env::var_os("SLMC_PACKED").expect("SLMC_PACKED is set");
    let entries = fs::read_dir(packed).expect("it is there");
    let folders: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(!folders.is_empty());
    weights_of(&folders);
    logits_of(&folders);
}

fn weights_of(folders: &[PathBuf]) {
    for folder in folders {
        let expected: BTreeMap<String, String> =
            serde_json::from_value(json(&folder.join("expected.json"))).expect("names and hashes");
        let model = open_model(folder).unwrap_or_else(|error| panic!("{}: {error}", name(folder)));
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().join("dense");
        hugging_face::Directory(&out).write(&model, &serde_json::json!({})).expect("it can be written");
        let config = json(&out.join("config.json"));
        // Two of four values are stored as they are; products are f32.
        let dtype = if name(folder) == "ct-bitmask" { "float16" } else { "float32" };
        assert_eq!((config.get("quantization_config"), &config["dtype"]), (None, &dtype.into()), "{}", name(folder));
        let bytes = fs::read(out.join("model.safetensors")).expect("written");
        let file = SafeTensors::deserialize(&bytes).expect("sound");
        assert!(!expected.is_empty());
        for (tensor, hash) in expected {
            let found = file.tensor(&tensor).expect("under the name of the family");
            let data = match (name(folder), found.shape()) {
                ("gptq-gpt2", &[rows, columns]) => turned(found.data(), (rows, columns)),
                ("ct-bitmask", _) => wide(found.data()),
                _ => found.data().to_vec(),
            };
            assert_eq!(hex(&sha256(&data)), hash, "{}: {tensor}", name(folder));
        }
        let again = open_model(&out).expect("what was written opens");
        for id in model.parameters.keys() {
            assert_eq!(model.values_f32(*id).expect("finite"), again.values_f32(*id).expect("finite"), "{id}");
        }
    }
}

#[test]
fn logits_are_those_of_transformers() {
    logits_of(&folders());
}

fn logits_of(folders: &[PathBuf]) {
    const TOLERANCE: f32 = 1e-4;
    for folder in folders {
        let bytes = fs::read(folder.join("golden.safetensors")).expect("recorded");
        let file = SafeTensors::deserialize(&bytes).expect("sound");
        let words = |name: &str| file.tensor(name).expect("recorded").data().as_chunks::<4>().0.to_vec();
        let tokens = words("input_ids").into_iter().map(u32::from_le_bytes).collect::<Vec<u32>>();
        let expected = words("logits").into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
        let model = open_model(folder).expect("it opens");
        for label in BACKENDS {
            let device = device(label).expect("it is built");
            let weights = DenseWeights::new(&model, &device).expect("finite");
            let batch = Batch::new(&model.spec, tokens.clone(), 1).expect("tokens of the vocabulary");
            let output = Forward::new(&model.spec, &weights, &device).run(&batch, &mut Unobserved);
            let logits = output.logits.into_data().try_to_vec::<f32>().expect("f32");
            assert_eq!(logits.len(), expected.len());
            let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            let error = logits.iter().zip(&expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(error < TOLERANCE * largest, "{} on {label}: logits differ by {error}", name(folder));
        }
    }
}

/// Integers times scales of every matrix that has any, against the weights; how many have.
fn integers_of(folder: &Path) -> usize {
    let source = open(folder).expect("it opens");
    let mut found = 0;
    for (id, rows, columns) in source.outline().spec.matrices() {
        let Some(integers) = source.integers(id).expect("sound") else { continue };
        assert_eq!((integers.values.dim(), integers.scales.nrows()), ((rows, columns), rows), "{id}");
        assert_eq!(integers.scales.ncols(), columns.div_ceil(integers.group));
        let Parameter::Dense(weights) = source.parameter(ParameterId::weight(id)).expect("sound") else {
            panic!("{id} is dense")
        };
        let weights = weights.to_f32("").expect("finite");
        for ((row, column), value) in integers.values.indexed_iter() {
            let product = integers.scales[[row, column / integers.group]] * f32::from(*value);
            assert_eq!(product.to_bits(), weights[row * columns + column].to_bits(), "{id} [{row}, {column}]");
        }
        found += 1;
    }
    found
}

#[test]
fn integers_are_handed_over_with_the_scales_of_contiguous_groups() {
    let counts: BTreeMap<&str, usize> = PACKED.into_iter().map(|name| (name, integers_of(&packed(name)))).collect();
    let matrices = |name: &str| match name {
        // The order of activations scatters groups; a bitmask holds no integers.
        "gptq-v2-order" | "ct-4-bits-order" | "ct-bitmask" => 0,
        // Zero points in floating point are minima; the attention is symmetric.
        "awq-gemv-fast" => 0,
        "torchao-int4" => 4,
        "gptq-gpt2" => 6,
        _ => 7,
    };
    let expected: BTreeMap<&str, usize> = PACKED.into_iter().map(|name| (name, matrices(name))).collect();
    assert_eq!(counts, expected);
}

#[test]
fn what_keep_takes_over_is_known_before() {
    for name in PACKED {
        let source = open(&packed(name)).expect("it opens");
        for (id, ..) in source.outline().spec.matrices() {
            let grid = source.grid(id);
            let integers = source.integers(id).expect("sound");
            if let (Ok(grid), Some(integers)) = (&grid, &integers) {
                let actual = integers.grid();
                assert!(grid.range.0 <= actual.range.0 && actual.range.1 <= grid.range.1, "{name}: {id} {actual:?}");
                assert_eq!(grid.group, actual.group, "{name}: {id}");
            }
            for def in &SCHEMES {
                if grid.is_ok_and(|grid| grid.fit(def.scheme).is_ok()) {
                    let integers = integers.as_ref().expect("a grid that fits has integers");
                    taken_over(integers, (def.scheme, Scales::Any)).expect("they fit");
                }
            }
        }
    }
}

/// The rows of a report: class, how it is stored, the schemes that keep its integers, and why none does.
fn stored_rows(report: &Value) -> Vec<(String, String, Vec<String>, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = report["stored"].as_array().expect("rows");
    let row = |row: &Value| {
        let keeps = row["keeps"].as_array().map_or_else(Vec::new, |keeps| keeps.iter().map(text).collect());
        (text(&row["class"]), text(&row["stored"]), keeps, text(&row["rounded"]))
    };
    rows.iter().map(row).collect()
}

#[test]
fn inspect_and_estimate_say_what_keep_does_and_quantize_does_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let looked_at = |name: &str| {
        let inspected = crate::support::json(at, &format!("inspect {}", packed(name).display()));
        let estimated = crate::support::json(at, &format!("estimate {}", packed(name).display()));
        assert_eq!(inspected["stored"], estimated["stored"], "{name}");
        (stored_rows(&inspected), estimated)
    };
    let row = |class: &str, stored: &str, keeps: &[&str], rounded: &str| {
        (class.to_owned(), stored.to_owned(), keeps.iter().map(ToString::to_string).collect(), rounded.to_owned())
    };
    let plain = [row("embedding", "f16", &[], ""), row("vectors", "f16", &[], "")];
    let of_zeros = "w4.g32 holds integers of [-8, 7], and zero points take its own beyond";
    let cases = [
        ("gptq-v1", row("ffn", "GPTQ, 4 bits, groups of 32", &["w4.g32"], "")),
        ("gptq-3-bits", row("ffn", "GPTQ, 3 bits, groups of 32", &["w4.g32", "w3.g32"], "")),
        ("awq-gemm", row("ffn", "AWQ, 4 bits, groups of 32, zero points", &[], of_zeros)),
        ("awq-gemv-fast", row("ffn", "AWQ, 4 bits, groups of 32, minima", &[], "its groups have a minimum beside")),
        (
            "gptq-v2-order",
            row("ffn", "GPTQ, 4 bits, scattered groups of 32, zero points", &[], "the columns of its groups"),
        ),
        ("ct-mixed", row("attention", "compressed-tensors, 8 bits, one scale a row", &["w8"], "")),
        ("ct-mixed", row("ffn", "compressed-tensors, 5 bits, groups of 32, zero points", &[], of_zeros)),
        ("gptq-gpt2", row("attention", "GPTQ, 8 bits, one scale a row", &["w8"], "")),
        ("gptq-phi3", row("ffn", "GPTQ, 4 bits, groups of 8", &[], "w4.g32 has groups of 32 columns, and its")),
        ("torchao-int4", row("attention", "torchao, 4 bits, groups of 32", &["w4.g32"], "")),
        ("torchao-int4", row("ffn", "torchao, 4 bits, groups of 32, minima", &[], "its groups have a minimum beside")),
    ];
    for (name, (class, stored, keeps, rounded)) in cases {
        let (rows, _) = looked_at(name);
        let found = rows.iter().find(|row| row.0 == class && row.1 == stored);
        let found = found.unwrap_or_else(|| panic!("{name}: {class} as {stored:?} in {rows:?}"));
        assert!(found.2 == keeps && found.3.starts_with(&rounded), "{name}: {found:?}");
        assert_eq!(found.3.is_empty(), rounded.is_empty(), "{name}: {found:?}");
        if name == "gptq-v1" {
            assert!(plain.iter().all(|row| rows.contains(row)), "{rows:?}");
        }
    }
    for name in PACKED {
        let (_, estimated) = looked_at(name);
        for scheme in estimated["schemes"].as_array().expect("rows") {
            let (said, preset) = (scheme["kept_matrices"].as_u64(), scheme["scheme"].as_str().expect("a name"));
            let line = format!("quantize {} --scheme {preset} --method keep --json -o q", packed(name).display());
            let output = crate::support::run(at, &line);
            if output.status.code() == Some(2) {
                assert_eq!(said.unwrap_or(0), 0, "{name} in {preset}: {}", String::from_utf8_lossy(&output.stderr));
                continue;
            }
            let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
            let matrices = report["matrices"].as_array().expect("a list");
            assert_eq!(estimated["matrices"].as_u64(), Some(matrices.len() as u64), "{name}");
            let kept = matrices.iter().filter(|matrix| matrix["method"] == "keep").count() as u64;
            assert_eq!(said, Some(kept), "{name} in {preset}");
        }
    }
}

#[test]
fn what_was_packed_is_said_with_bits_and_groups() {
    let notes = |name: &str| formats::notes(&packed(name)).iter().map(ToString::to_string).collect::<Vec<String>>();
    assert_eq!(
        notes("gptq-v1"),
        ["7 matrices are integers of GPTQ, 4 bits, groups of 32; they are converted to f32 when read"]
    );
    let old = notes("gptq-2-bits-beside");
    assert!(old[1].starts_with("7 biases beside matrices of GPTQ are zero"), "{old:?}");
    let mixed = notes("ct-mixed");
    assert!(mixed[0].contains("3 matrices are integers of compressed-tensors, 5 bits"), "{mixed:?}");
    assert!(mixed[1].contains("4 matrices") && mixed[1].contains("8 bits, one scale a row"), "{mixed:?}");
    assert!(mixed[2].starts_with("4 tensors of compressed-tensors hold scales of inputs"), "{mixed:?}");
    assert!(notes("ct-bitmask")[0].starts_with("7 matrices are stored as two of every four values"));
    assert_eq!(formats::name(&packed("torchao")), "packed weights of another tool");
}

#[test]
fn keep_takes_integers_over_and_says_what_it_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let keep = |name: &str, options: &str| {
        let out = directory.path().join(name);
        let (model, out_name) = (packed(name), out.display());
        let command = format!("quantize {} {options} --method keep -o {out_name}", model.display());
        (crate::support::json(directory.path(), &command), open_model(&out).expect("it opens"))
    };
    let cases = [
        ("gptq-v1", "--scheme w4", 7),
        ("gptq-3-bits", "--scheme w4 --keep attention=w3.g32 --keep ffn=w3.g32", 7),
        ("ct-4-bits", "--scheme w4", 7),
        // Rows of one scale are exact in 8 bits; 5 bits in groups fit nothing.
        ("ct-mixed", "--scheme w8", 4),
        ("gptq-gpt2", "--scheme w8", 6),
    ];
    for (name, options, count) in cases {
        let (report, model) = keep(name, options);
        let source = open(&packed(name)).expect("it opens");
        let mut kept = 0;
        for matrix in report["matrices"].as_array().expect("a list") {
            let id = matrix["name"].as_str().expect("a name").parse().expect("a matrix");
            if matrix["method"] != "keep" {
                assert!(matrix["fallback"].as_str().is_some_and(|reason| reason.starts_with("rounded: ")), "{matrix}");
                continue;
            }
            kept += 1;
            let lost = matrix["relative_error"].as_f64().expect("a number");
            // w8 ends at −127, and other tools' 8 bits at −128: nothing else is lost there.
            let most = if options.contains("w8") { 1e-5 } else { 2e-5 };
            assert!(lost <= most, "{name}: {id} loses {lost}");
            let integers = source.integers(id).expect("sound").expect("they were kept");
            let Parameter::Quantized(matrix) = &model.parameters[&ParameterId::weight(id)] else {
                panic!("{id} is quantized")
            };
            let fitted = |value: &i8| (*value).max(matrix.scheme.def().range.0);
            assert_eq!(matrix.values, integers.values.map(fitted), "{name}: {id}");
        }
        assert_eq!(kept, count, "{name}");
    }
    let dense = crate::support::golden("llama-mha");
    let command = format!("quantize {} --scheme w4 --method keep -o out", dense.display());
    crate::support::refused(directory.path(), &command, "--method keep takes over integers");
}
