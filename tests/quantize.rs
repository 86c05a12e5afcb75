//! GPTQ over whole models of every family, and 16-bit activations: the same bytes for any number of threads and after an
//! interruption, a smaller error than plain rounding, and artifacts that are closer to the model with wider activations.

use crate::fixture::{Family, Size, compiled, write};
use crate::support::{json, root, succeed};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;
use slm_runtime::sample::random_u64;
use slm_runtime::session::Session;
use slmc::artifact::host::SessionMemory;
use slmc::formats::{ModelSink, open_model, slmc_quantized};
use slmc::machine::kernels::kernels;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::id::{LinearId, Role};
use slmc::model::scheme::{Preset, Width};
use slmc::model::transform::Sparsity;
use slmc::model::weights::Model;
use slmc::progress::Silent;
use slmc::quantize::equalize::equalize;
use slmc::quantize::method::Method;
use slmc::quantize::policy::widths;
use slmc::quantize::resume::GptqResume;
use slmc::quantize::solver::{Solved, solve};
use slmc::quantize::{mark_wide, quantize, with_key_maps};
use slmc::target::Target;

fn sequences(model: &Model) -> Vec<Vec<u32>> {
    let vocabulary = model.spec.vocabulary as u64;
    let draw = |stream: u64, index: u64| (random_u64(7 + stream, index) % vocabulary) as u32;
    (0..8u64).map(|stream| (0..20 + stream % 2).map(|index| draw(stream, index)).collect()).collect()
}

fn solved(model: &Model, preset: Preset, kept: Option<&GptqResume>) -> Solved {
    let (assignment, device) = (preset.assign(&model.spec), device("flex").expect("known"));
    solve(model, (&assignment).into(), &Sparsity::new(), &sequences(model), kept, &device, &Silent)
        .expect("it can be solved")
}

#[test]
fn every_family_is_solved_and_threads_change_nothing() {
    for family in Family::ALL {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), family, Size::SMALL);
        let model = open_model(directory.path()).expect("the fixture is sound");
        let several = solved(&model, Preset::W4, None);
        let names: Vec<String> = several.reports.values().map(|report| report.name.clone()).collect();
        let expected: Vec<String> = model.spec.matrices().iter().map(|(id, ..)| id.to_string()).collect();
        assert_eq!(names, expected, "{}", family.name());
        for report in several.reports.values().filter(|report| report.method == Method::Gptq) {
            let plain = report.plain_error.expect("it is measured");
            assert!(report.relative_error <= plain, "{} {report:?}", family.name());
        }
        let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
        let alone = single.install(|| solved(&model, Preset::W4, None));
        assert!(alone.model.parameters == several.model.parameters, "{}: threads change the integers", family.name());
    }
}

#[test]
fn a_matrix_without_a_scheme_is_refused_and_not_given_one() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), Family::TiedLlama, Size::SMALL);
    let model = open_model(directory.path()).expect("the fixture is sound");
    let device = device("flex").expect("known");
    let mut lacking = Preset::W4.assign(&model.spec);
    let down = LinearId::layer(1, Role::Down);
    lacking.remove(&down).expect("it has a scheme");
    let rounded = quantize(&model, &lacking, None, &Silent).map(drop).expect_err("no scheme");
    let solved =
        solve(&model, (&lacking).into(), &Sparsity::new(), &sequences(&model), None, &device, &Silent).map(drop);
    let equalized = equalize(model.clone(), &lacking, &sequences(&model), &device, &Silent).map(drop);
    let (solved, equalized) = (solved.expect_err("no scheme"), equalized.expect_err("no scheme"));
    for error in [rounded.to_string(), solved.to_string(), equalized.to_string()] {
        assert_eq!(error, format!("`{down}` has no scheme"));
    }
}

#[test]
fn sizes_of_a_quantized_directory_are_those_of_its_own_target() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    write(&path.join("model"), Family::TiedLlama, Size::SMALL);
    std::fs::write(path.join("text.txt"), "the cat sat on the mat. ".repeat(120)).expect("written");
    let bytes = |target: &str| {
        let line =
            format!("quantize model --scheme w4 --method search --calibration text.txt --target {target} -o {target}");
        let quantized = json(path, line.as_str())["weight_bytes"].clone();
        let line = format!("eval {target} --data text.txt --window 16 --max-windows 1");
        let measured = json(path, line.as_str())["weight_bytes"].clone();
        assert_eq!(measured, quantized, "{target}");
        quantized
    };
    assert_ne!(bytes("generic"), bytes("cortex-m55"), "the targets pad alike, so that this test tests nothing");
    // Of a target that is not part of the program, nobody knows the packing any more.
    let own = std::fs::read_to_string(root("targets/cortex-m55.toml")).expect("it is there");
    std::fs::write(path.join("own.toml"), own.replace("\"cortex-m55\"", "\"own\"")).expect("written");
    succeed(path, "quantize model --scheme w4 --method rtn --target own.toml -o own");
    assert!(json(path, "eval own --data text.txt --window 16 --max-windows 1")["weight_bytes"].is_null());
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_integers() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), Family::TiedLlama, Size::SMALL);
    let model = open_model(directory.path()).expect("the fixture is sound");
    let out = directory.path().join("out");
    let whole = solved(&model, Preset::Mixed, Some(&GptqResume::open(&out, "this run").expect("a new one")));
    let checkpoint = directory.path().join("out.checkpoint");
    let mut files: Vec<_> = std::fs::read_dir(&checkpoint).expect("it is there").flatten().map(|f| f.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    // A token table, and four groups in each of two layers.
    assert_eq!(files.len(), 1 + 4 * model.spec.layers.len());
    for file in files.iter().filter(|file| file.to_string_lossy().contains("layers.1")) {
        std::fs::remove_file(file).expect("it can be removed");
    }
    let kept = GptqResume::open(&out, "this run").expect("it goes on");
    assert_eq!(kept.resumed, 5);
    let resumed = solved(&model, Preset::Mixed, Some(&kept));
    assert!(resumed.model.parameters == whole.model.parameters, "going on changes the integers");
    assert_eq!(resumed.reports, whole.reports);
    assert_eq!(resumed.statistics, whole.statistics);
    let other = GptqResume::open(&out, "another run").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(other.contains("other settings or inputs"), "{other}");
    std::fs::write(&files[0], b"damaged").expect("it can be written");
    let kept = GptqResume::open(&out, "this run").expect("it goes on");
    let (assignment, device) = (Preset::Mixed.assign(&model.spec), device("flex").expect("known"));
    let damaged =
        solve(&model, (&assignment).into(), &Sparsity::new(), &sequences(&model), Some(&kept), &device, &Silent);
    assert!(damaged.is_err_and(|error| error.to_string().contains("embed.token.safetensors")));
}

/// Outputs of the runtime at all positions.
fn outputs(artifact: &[u8], tokens: &[u32]) -> Vec<f32> {
    let view = ArtifactView::open(artifact).expect("it is sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, kernels(), memory.as_mut_slice()).expect("the memory is the planned one");
    let mut out = Vec::new();
    session.run(tokens, &mut |_: usize, row: &[f32]| out.extend(row)).expect("the tokens run");
    out
}

#[test]
fn wider_activations_bring_artifacts_closer_and_survive_directories() {
    for family in [Family::Llama, Family::TiedLlama, Family::Bert] {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), family, Size::SMALL);
        let model = open_model(directory.path()).expect("the fixture is sound");
        let tokens = sequences(&model).swap_remove(0);
        let Solved { model: narrow, statistics, .. } = solved(&model, Preset::W8, None);
        let narrow = with_key_maps(narrow, &statistics).expect("it has keys");
        let mut wide = narrow.clone();
        let all = widths(&model.spec, &["*=a16".parse().expect("it parses")]).expect("it matches");
        assert!(all.values().all(|width| *width == Width::Bits16));
        mark_wide(&mut wide, &all);
        let out = directory.path().join("wide");
        let provenance = serde_json::json!({"schema": "slmc.provenance/1"});
        slmc_quantized::Directory(&out).write(&wide, &provenance).expect("it can be written");
        let read = open_model(&out).expect("it can be read");
        assert_eq!(read.activations(), all, "{}", family.name());
        // The same integers in f32 arithmetic: what is left is the activations' rounding.
        let device = device("flex").expect("known");
        let weights = DenseWeights::new(&wide, &device).expect("it has all");
        let forward = Forward::new(&model.spec, &weights, &device);
        let batch = Batch::new(&model.spec, tokens.clone(), 1).expect("it fits");
        let exact = forward.run(&batch, &mut Unobserved).logits.into_data().try_to_vec::<f32>().expect("f32");
        let distance = |artifact: &[u8]| -> f64 {
            let outputs = outputs(artifact, &tokens);
            assert_eq!(outputs.len(), exact.len(), "{}", family.name());
            outputs.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let artifact = |model: &Model, layout| compiled(model, &Target::unlimited("test", layout), None).bytes;
        let (of_wide, of_narrow) = (artifact(&read, Layout::R8K4Offset8), artifact(&narrow, Layout::R8K4Offset8));
        let (wide, narrow) = (distance(&of_wide), distance(&of_narrow));
        assert!(wide < 0.5 * narrow, "{}: {wide} {narrow}", family.name());
        assert_eq!(outputs(&of_wide, &tokens), outputs(&artifact(&read, Layout::R4K4), &tokens), "{}", family.name());
    }
}

#[test]
fn widths_that_no_linear_can_have_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), Family::Bert, Size::SMALL);
    let spec = open_model(directory.path()).expect("the fixture is sound").spec;
    for pattern in ["embedding=a16", "layers.9.*=a16"] {
        let refused = widths(&spec, &[pattern.parse().expect("it parses")]).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|error| error.contains(pattern) && error.contains("layers.")), "{pattern}");
    }
    for text in ["ffn", "ffn=a12", "ffn=w8"] {
        assert!(text.parse::<slmc::quantize::policy::Activations>().is_err(), "{text}");
    }
}
