//! From a dense checkpoint to 2:4 artifacts: zeros that hold from pruning to packing, the same logits in every layout as
//! from dense storage, and refusal of what lies about its zeros. The model and its texts are in ../shared.

use crate::shared;
use crate::support::{refused, run, stderr};
use serde_json::{Value, json};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::tensor::TensorRecord;
use slm_runtime::layout::{Layout, Storage};
use slm_runtime::session::Session;
use slmc::artifact::host::SessionMemory;
use slmc::compile::{Compiled, HostSections, TextSection, compile};
use slmc::formats::open_model;
use slmc::machine::kernels::kernels;
use slmc::model::device::device;
use slmc::model::id::{Class, ParameterId, Part};
use slmc::model::scheme::Preset;
use slmc::model::transform::NmPattern;
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::prune::Method;
use slmc::quantize::calibration::CalibrationText;
use slmc::quantize::method::Method as QuantizeMethod;
use slmc::quantize::policy::SchemeSource;
use slmc::stages::prune::{PruneOptions, PruneReport, prune_directory};
use slmc::stages::quantize::{QuantizeOptions, QuantizeReport, quantize_directory};
use slmc::target::Target;
use slmc::text::form::TextForm;
use slmc::workers::TrainingDevices;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// The checkpoint, and text to calibrate with.
fn material() -> Option<(PathBuf, CalibrationText)> {
    let text = shared("data/stories-calib.txt")?;
    Some((shared("models/stories260k")?, CalibrationText::File { path: text, form: TextForm::default() }))
}

fn prune(model: &Path, out: &Path, pattern: &str, only: &str, method: Method) -> Result<PruneReport, String> {
    let source = material().map(|(_, source)| source).filter(|_| method != Method::Magnitude);
    let options = PruneOptions {
        model: model.to_owned(),
        out: out.to_owned(),
        pattern: pattern.parse().unwrap(),
        method,
        refit: method == Method::SparseGpt,
        reorder: false,
        most_missed: None,
        only: vec![only.to_owned()],
        source,
        recover: None,
        masks_move: 0.0,
        invocation: Default::default(),
    };
    prune_directory(&options, &TrainingDevices::local(device("flex").unwrap()), &Silent)
        .map_err(|error| error.to_string())
}

fn quantize(model: &Path, out: &Path, preset: Preset) -> Result<QuantizeReport, String> {
    let options = QuantizeOptions {
        model: model.to_owned(),
        out: out.to_owned(),
        schemes: SchemeSource::Preset(preset),
        keeps: Vec::new(),
        activations: Vec::new(),
        equalize: false,
        method: QuantizeMethod::Gptq,
        exact_f16: false,
        source: material().unwrap().1,
        calibration_tokens: 4096,
        seed: 0,
        target: Target::unlimited("generic", Layout::R8K4Offset8),
        tune: Some(0),
        qat: None,
        invocation: Default::default(),
    };
    quantize_directory(&options, &TrainingDevices::local(device("flex").unwrap()), &Silent)
        .map_err(|error| error.to_string())
}

fn compiled(model: &Model, layout: Layout) -> Compiled {
    let text = TextSection { vocabulary: vec![Vec::new(); model.spec.vocabulary], ..TextSection::default() };
    let device = Target::unlimited("test", layout);
    compile(model, &device, Some(64), &text, &HostSections::default(), &Silent).unwrap()
}

fn slmc(arguments: &[&str]) -> Output {
    run(Path::new("."), arguments)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn zeros_hold_and_logits_are_those_of_dense_storage() {
    let Some((source, _)) = material() else { return };
    let dir = tempfile::tempdir().unwrap();
    let original = open_model(&source).unwrap();
    for method in Method::ALL {
        let (pruned, quantized) = (dir.path().join(method.name()), dir.path().join(format!("{}.q", method.name())));
        let report = prune(&source, &pruned, "2:4", "ffn", method).unwrap();
        assert_eq!((report.matrices.len(), report.zeros_before, report.weights), (15, 0, 165_120));
        assert_eq!(report.zeros_after, report.weights / 2);
        assert!(report.compressed_in_artifacts);
        for matrix in &report.matrices {
            assert!((0.05..0.3).contains(&matrix.energy_removed), "{matrix:?}");
            assert_eq!(matrix.weighted_energy_removed.is_some(), method != Method::Magnitude);
            assert_eq!(matrix.output_error.is_some(), method == Method::SparseGpt);
        }

        let model = open_model(&pruned).unwrap();
        for (id, ..) in model.spec.matrices() {
            let (before, after) = (&original.parameters[&ParameterId::weight(id)], ParameterId::weight(id));
            if id.role.class() == Class::Ffn {
                let values = model.matrix(id).unwrap();
                assert_eq!(NmPattern::TWO_OF_FOUR.check(id, values.view()), Ok(()));
                let kept = values.iter().zip(original.values_f32(after).unwrap()).filter(|(now, _)| **now != 0.0);
                // Refitted weights move, the others stay.
                let moved = kept.clone().any(|(now, then)| *now != then);
                assert!(kept.count() > 0 && moved == (method == Method::SparseGpt), "{id}");
            } else {
                assert_eq!(&model.parameters[&after], before, "{id}");
            }
        }

        let report = quantize(&pruned, &quantized, Preset::Mixed).unwrap();
        let sparse = report.matrices.iter().filter(|matrix| matrix.sparsity.as_deref() == Some("2:4"));
        assert_eq!(sparse.count(), 15);
        let quantized = open_model(&quantized).unwrap();
        assert_eq!(quantized.sparsity().len(), 15);
        let mut dense = quantized.clone();
        for parameter in dense.parameters.values_mut() {
            if let Parameter::Quantized(matrix) = parameter {
                matrix.sparsity = None;
            }
        }
        let expected = compiled(&dense, Layout::R8K4);
        for layout in Layout::ALL {
            let sparse = compiled(&quantized, layout);
            assert_eq!(sparse.golden, expected.golden, "{layout:?}");
            let view = ArtifactView::open(&sparse.bytes).unwrap();
            view.verify_digests().unwrap();
            let size = slmc::artifact::inspect::weight_size(&view);
            assert_eq!(size.weight_bytes, sparse.size.weight_bytes, "{layout:?}");
            // 3.25 bits a weight against 4.25, less what tiles and planes are padded with.
            let ratio = size.bytes_by_class["ffn"] as f64 / compiled(&dense, layout).size.bytes_by_class["ffn"] as f64;
            assert!((0.7..0.9).contains(&ratio), "{layout:?}: {ratio}");
            let ffn = slmc::artifact::inspect::classes(&view).into_iter().find(|(name, _)| *name == "ffn").unwrap().1;
            assert_eq!((ffn.macs_per_token, ffn.sparse_macs_per_token), (165_120, 82_560));
        }
    }
}

/// One-shot divergences on held-out text: exact refits beat SparseGPT's updates, and those beat Wanda.
#[test]
fn refits_lose_less_than_updates_and_updates_less_than_masks_alone() {
    let (Some((model, CalibrationText::File { path, .. })), Some(text)) =
        (material(), shared("data/stories-valid.txt"))
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let divergence = |name: &str, options: &[&str]| -> f64 {
        let out = dir.path().join(name).display().to_string();
        let (model, calibration) = (model.display().to_string(), path.display().to_string());
        let prune =
            ["prune", "-q", &model, "--pattern", "2:4", "--only", "ffn", "--calibration", &calibration, "-o", &out];
        let output = slmc(&[&prune[..], options].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let (text, windows) = (text.display().to_string(), ["--max-windows", "8", "--json", "-q"]);
        let output = slmc(&[&["eval", &out, "--data", &text, "--reference", &model][..], &windows].concat());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["kld_mean"].as_f64().unwrap()
    };
    let wanda = divergence("wanda", &["--method", "wanda"]);
    let updated = divergence("updated", &["--method", "sparsegpt", "--no-refit"]);
    let refitted = divergence("refitted", &["--method", "sparsegpt"]);
    assert!(updated < 0.9 * wanda, "SparseGPT {updated}, Wanda {wanda}");
    assert!(refitted < 0.95 * updated, "refitted {refitted}, SparseGPT {updated}");
}

/// Where every matrix is left dense, the new order of channels is all that a run changes: the same predictions. Where they are
/// pruned, less is removed than in the old order.
#[test]
fn channels_in_another_order_compute_the_same_and_lose_less() {
    let (Some((model, CalibrationText::File { path, .. })), Some(text)) =
        (material(), shared("data/stories-valid.txt"))
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let pruned = |name: &str, options: &str| -> Value {
        let (model, calibration, out) = (model.display(), path.display(), dir.path().join(name));
        let line =
            format!("prune -q --json {model} --pattern 2:4 --calibration {calibration} {options} -o {}", out.display());
        let output = run(dir.path(), &line);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let left = pruned("left", "--method sparsegpt --only layers.*.ffn.down --most-missed 0");
    assert_eq!((&left["left_dense"], left["orders"].as_array().map(Vec::len)), (&json!(5), Some(5)));
    let (text, out) = (text.display(), dir.path().join("left"));
    let line =
        format!("eval -q --json {} --data {text} --reference {} --max-windows 4", out.display(), model.display());
    let report: Value = serde_json::from_slice(&run(dir.path(), &line).stdout).unwrap();
    assert!(report["kld_mean"].as_f64().unwrap() < 1e-8, "{report}");
    let (before, after) = (open_model(&model).unwrap(), open_model(&out).unwrap());
    let moved = |id| before.matrix(id).unwrap() != after.matrix(id).unwrap();
    for (id, ..) in before.spec.matrices() {
        assert_eq!(moved(id), id.role.class() == Class::Ffn, "{id}");
    }

    let energy = |report: &Value| {
        let matrices = report["matrices"].as_array().unwrap().iter();
        let downs = matrices.filter(|matrix| matrix["name"].as_str().unwrap().ends_with("ffn.down"));
        downs.map(|matrix| matrix["weighted_energy_removed"].as_f64().unwrap()).sum::<f64>()
    };
    let ordered = pruned("ordered", "--method wanda");
    let kept = pruned("kept", "--method wanda --no-reorder");
    assert!(energy(&ordered) < 0.98 * energy(&kept), "{} and {}", energy(&ordered), energy(&kept));
    assert!(kept.get("orders").is_none(), "{kept}");
    let of =
        |key: &str| ordered["orders"].as_array().unwrap().iter().map(|order| order[key].as_f64().unwrap()).sum::<f64>();
    assert!((of("removed_after") - energy(&ordered)).abs() < 1e-5, "{ordered}");
}

#[test]
fn what_cannot_be_pruned_is_refused_by_name() {
    let Some((source, _)) = material() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (out, foreign) = (dir.path().join("out"), dir.path().join("foreign"));
    fs::create_dir(&foreign).unwrap();
    let quantized = dir.path().join("quantized");
    quantize(&source, &quantized, Preset::W8).unwrap();
    let cases = [
        (&source, "4:8", "ffn", &out, "`layers.0.ffn.down` has 172 input columns, which 4:8 cannot divide"),
        (&source, "2:4", "layers.9.*", &out, "--only layers.9.*: matches no linear of this model"),
        (&source, "2:4", "embed.*", &out, "matches only tables, such as `embed.token`"),
        (&source, "2:4", "ffn", &foreign, "holds no slmc.json"),
        (&quantized, "2:4", "ffn", &out, "is quantized; prune the dense checkpoint it was made from"),
    ];
    for (model, pattern, only, out, expected) in cases {
        let error = prune(model, out, pattern, only, Method::Magnitude).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    for pattern in ["4:4", "5:4", "2:5", "x"] {
        let model = source.display().to_string();
        let prune = ["prune", &model, "--pattern", pattern, "--method", "magnitude", "-o", "nowhere"];
        refused(dir.path(), &prune, "is not a pattern N:M");
    }
    assert!(!out.exists());
}

#[test]
fn patterns_add_up_and_others_than_two_of_four_stay_dense() {
    let Some((source, _)) = material() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let report = prune(&source, &path("a"), "6:8", "layers.*.ffn.up", Method::Magnitude).unwrap();
    assert_eq!((report.compressed_in_artifacts, report.zeros_after * 4), (false, report.weights));
    prune(&path("a"), &path("b"), "1:4", "layers.1.attn.q", Method::Magnitude).unwrap();
    let recorded = read_json(&path("b").join("slmc.json"));
    assert_eq!(recorded["sparsity"]["layers.0.ffn.up"], json!("6:8"));
    assert_eq!(recorded["sparsity"]["layers.1.attn.q"], json!("1:4"));
    let report = quantize(&path("b"), &path("q"), Preset::W8).unwrap();
    let of = |name: &str| report.matrices.iter().find(|matrix| matrix.name == name).unwrap().sparsity.clone();
    assert_eq!((of("layers.0.ffn.up").as_deref(), of("layers.0.ffn.gate")), (Some("6:8"), None));
    // Every 1:4 matrix is 2:4 as well.
    let sparsity = &read_json(&path("q").join("config.json"))["quantization_config"]["sparsity"];
    assert_eq!(sparsity, &json!({"layers.1.attn.q": "2:4"}));
}

#[test]
fn directories_that_lie_about_their_zeros_are_refused() {
    let Some((source, _)) = material() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (pruned, quantized) = (dir.path().join("p"), dir.path().join("q"));
    prune(&source, &pruned, "2:4", "ffn", Method::Magnitude).unwrap();
    quantize(&pruned, &quantized, Preset::Mixed).unwrap();

    let provenance = read_json(&pruned.join("slmc.json"));
    let cases = [
        ("layers.0.attn.q", json!("2:4"), "calls a matrix sparse that is not: `layers.0.attn.q` is not 2:4: row 0 has"),
        ("layers.0.ffn.down", json!("4:8"), "`sparsity.layers.0.ffn.down` is \"4:8\", expected a pattern that divides"),
        ("layers.0.ffn.down", json!("4:2"), "`sparsity.layers.0.ffn.down` is \"4:2\", expected a pattern N:M"),
        ("layers.0.ffn.down", json!(2), "`sparsity.layers.0.ffn.down` is 2, expected a string"),
        ("embed.token", json!("2:4"), "`sparsity.embed.token` is `2:4`; slmc supports only tables that are not sparse"),
        ("layers.9.ffn.up", json!("2:4"), "expected under the name of a matrix of this model"),
    ];
    for (name, value, expected) in cases {
        let mut lying = provenance.clone();
        lying["sparsity"][name] = value;
        fs::write(pruned.join("slmc.json"), lying.to_string()).unwrap();
        let error = quantize(&pruned, &dir.path().join("out"), Preset::W8).unwrap_err();
        assert!(error.contains(expected) && error.contains("slmc.json"), "{error}");
    }

    let config = read_json(&quantized.join("config.json"));
    let cases = [
        ("layers.0.attn.q", json!("2:4"), "sparsity is not true: `layers.0.attn.q` is not 2:4: row 0 has"),
        (
            "layers.0.ffn.down",
            json!("1:4"),
            "`quantization_config.sparsity.layers.0.ffn.down` is `1:4`; slmc supports 2:4",
        ),
        ("embed.token", json!("2:4"), "slmc supports only tables that are not sparse"),
    ];
    for (name, value, expected) in cases {
        let mut lying = config.clone();
        lying["quantization_config"]["sparsity"][name] = value;
        fs::write(quantized.join("config.json"), lying.to_string()).unwrap();
        let error = open_model(&quantized).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    // A model in memory is looked at as well: packing would drop what the pattern leaves out.
    fs::write(quantized.join("config.json"), config.to_string()).unwrap();
    let mut model = open_model(&quantized).unwrap();
    let id = model.spec.matrices().into_iter().find(|(id, ..)| id.role.class() == Class::Attention).unwrap().0;
    let Some(Parameter::Quantized(matrix)) = model.parameters.get_mut(&ParameterId::Linear(id, Part::Weight)) else {
        panic!("quantized")
    };
    matrix.sparsity = Some(NmPattern::TWO_OF_FOUR);
    let text = TextSection { vocabulary: vec![Vec::new(); model.spec.vocabulary], ..TextSection::default() };
    let target = Target::unlimited("test", Layout::R8K4);
    let error = compile(&model, &target, None, &text, &HostSections::default(), &Silent).unwrap_err().to_string();
    assert!(error.contains("`layers.0.attn.q` is not 2:4"), "{error}");
}

#[test]
fn damaged_sparse_artifacts_are_refused_or_run_without_panic() {
    let Some((source, _)) = material() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (pruned, quantized) = (dir.path().join("p"), dir.path().join("q"));
    prune(&source, &pruned, "2:4", "ffn", Method::Magnitude).unwrap();
    quantize(&pruned, &quantized, Preset::Mixed).unwrap();
    let artifact = compiled(&open_model(&quantized).unwrap(), Layout::R4K16).bytes;
    let view = ArtifactView::open(&artifact).unwrap();
    let sections: Vec<_> = view.section_records().collect();
    let (table, weights) = (sections[1].offset as usize, sections[3]);
    let is_sparse = |index: &usize| Storage::from_id(view.tensor_record(*index).storage).unwrap().is_sparse();
    let sparse = (0..view.tensor_count()).find(is_sparse).unwrap();
    let dense = (0..view.tensor_count()).find(|index| view.tensor_record(*index).role == 0x11).unwrap();
    // Offsets within a record: 4 storage, 7 sparsity, 12 columns.
    let record = |index: usize| table + index * TensorRecord::BYTES;
    for (at, value) in [
        (record(sparse) + 7, 0),
        (record(sparse) + 7, 2),
        (record(dense) + 7, 1),
        (record(sparse) + 4, Storage::W4G32 as u8),
        (record(sparse) + 4, Storage::W8S24 as u8),
        (record(dense) + 4, Storage::W8S24 as u8),
        (record(dense) + 4, 5),
        (record(sparse) + 12, 63),
        (record(0) + 4, Storage::W8S24 as u8),
    ] {
        let mut damaged = artifact.clone();
        damaged[at] = value;
        assert!(ArtifactView::open(&damaged).is_err(), "{} = {value}", at - table);
    }
    // A table stored sparse is refused for what it is, before its size is looked at.
    let mut damaged = artifact.clone();
    (damaged[record(0) + 4], damaged[record(0) + 7]) = (Storage::W8S24 as u8, 1);
    let error = ArtifactView::open(&damaged).unwrap_err().to_string();
    assert!(error.contains("cannot be sparse"), "{error}");

    let mut damaged = artifact.clone();
    let bytes = &mut damaged[weights.offset as usize..][..weights.bytes as usize];
    for (n, byte) in bytes.iter_mut().enumerate().filter(|(n, _)| n % 5 == 0) {
        *byte = slm_runtime::sample::random_u64(3, n as u64) as u8;
    }
    let view = ArtifactView::open(&damaged).unwrap();
    assert!(view.verify_digests().is_err());
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, kernels(), memory.as_mut_slice()).unwrap();
    // Scales that are no numbers are an error of the session; anything but a panic will do.
    let _ = session.run(&[1, 5, 9, 2], &mut |_, _| {});
}

#[test]
fn a_target_for_two_of_four_takes_only_sparse_feed_forward_networks() {
    let Some((source, _)) = material() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    prune(&source, &path("half"), "2:4", "layers.*.ffn.gate", Method::Magnitude).unwrap();
    prune(&source, &path("all"), "2:4", "ffn", Method::Magnitude).unwrap();
    for name in ["half", "all"] {
        quantize(&path(name), &path(&format!("{name}.q")), Preset::Mixed).unwrap();
    }
    let compile = |name: &str| {
        let (model, out) = (path(name).display().to_string(), path("x.slm").display().to_string());
        slmc(&["compile", &model, "--target", "generic-npu-2to4", "-o", &out])
    };
    let refusal = compile("half.q");
    let message = stderr(&refusal);
    assert_eq!(refusal.status.code(), Some(2), "{message}");
    for expected in ["generic-npu-2to4", "`layers.0.ffn.up` is not", "slmc prune DIR --pattern 2:4 --only ffn"] {
        assert!(message.contains(expected), "{message}");
    }
    assert!(!path("x.slm").exists());
    let accepted = compile("all.q");
    assert_eq!(accepted.status.code(), Some(0), "{}", stderr(&accepted));
}

#[test]
fn training_on_the_grid_holds_the_zeros() {
    let Some((source, _)) = material() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    prune(&source, &dir.path().join("p"), "2:4", "ffn", Method::Magnitude).unwrap();
    let text = shared("data/stories-calib.txt").unwrap().display().to_string();
    let (model, out) = (path("p"), path("q"));
    let output = slmc(&[
        "quantize",
        &model,
        "--scheme",
        "mixed",
        "--calibration",
        &text,
        "--qat",
        "--data",
        &text,
        "--tokens",
        "2048",
        "--batch",
        "8",
        "--window",
        "64",
        "-o",
        &out,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(open_model(&dir.path().join("q")).unwrap().sparsity().len(), 15);
}
