//! Students that are cut out of their teacher, for every family: what nothing is taken from is the teacher, what carries
//! nothing changes nothing when it goes, fitting never adds to errors, and what is written opens again.

use crate::fixture;
use crate::support::{golden, golden_folders, json_with_code, name, refused, root, states};
use serde_json::{Value, json};
use slmc::calibrate::probe::Probe;
use slmc::divergence::mean_and_error;
use slmc::formats::{ModelSink, hugging_face, open_model};
use slmc::model::device::device;
use slmc::model::families::{self, Widths};
use slmc::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use slmc::model::spec::{Head, LayerSpec, NormPlacement};
use slmc::model::weights::Model;
use slmc::progress::Silent;
use slmc::shrink::basis::{HiddenMethod, can_rotate};
use slmc::shrink::importance::measure;
use slmc::shrink::measure::Bench;
use slmc::shrink::shape::{Depth, ShapeError, Wanted};
use slmc::shrink::{Plan, ShrinkError, Student, cut, depth, describe, projection};
use slmc::train::student::hidden_pairs;
use std::collections::BTreeMap;
use std::path::Path;

/// Sequences of tokens that every golden model has.
fn text(count: usize, length: usize) -> Vec<Vec<u32>> {
    let token = |n: usize| (n * n * 7 + n * 13 + 5) % 89 + 3;
    (0..count).map(|row| (0..length).map(|place| token(row * length + place) as u32).collect()).collect()
}

fn opened(folder: &Path) -> Model {
    open_model(folder).expect("a golden checkpoint opens")
}

fn student(teacher: &Model, plan: &Plan, text: &[Vec<u32>]) -> Result<Student, ShrinkError> {
    let device = device("flex").expect("a device");
    let importance = measure(teacher, text, &device, &Silent)?;
    cut(teacher, &importance, (plan, describe(teacher, plan)?), text, &device, &Silent)
}

fn divergence(teacher: &Model, student: &Model) -> f64 {
    let probe = Probe::new(teacher, &text(6, 20), &device("flex").expect("a device")).expect("the teacher runs");
    mean_and_error(&probe.other(student).expect("the student runs")).0
}

fn plan(teacher: &Model, wanted: &Wanted) -> Plan {
    let widths = wanted.widths(&teacher.spec).expect("a shape that can be");
    let layers = wanted.layers(&teacher.spec).expect("layers that are there").expect("named layers");
    Plan { layers, widths, hidden: None, refit: true }
}

fn head_dim(teacher: &Model) -> usize {
    teacher.spec.layers.iter().find_map(LayerSpec::attention).expect("a layer with attention").head_dim
}

/// The shapes that every golden model is cut to; those of families whose heads share the hidden width go together.
fn shapes(teacher: &Model) -> Vec<Wanted> {
    let family = families::FAMILIES.iter().find(|family| family.model_type == teacher.spec.family);
    let shared = family.expect("its row").widths.head_dim.is_none();
    // Experts keep their width.
    let mixture = teacher.spec.layers.iter().any(|layer| layer.ffn.mixture.is_some());
    let ffn = Wanted { ffn: (!mixture).then_some(40), ..Wanted::default() };
    // Two of three layers, the second of two.
    let last = teacher.spec.layers.len() - 1;
    let (first, mut second) = if last > 1 { (vec![0, last], vec![last - 1, last]) } else { (vec![0], vec![last]) };
    // Its first layer is another than the others.
    if teacher.spec.layers[0].norm_placement == NormPlacement::Network {
        second.clone_from(&first);
    }
    let mut shapes = vec![Wanted { depth: Depth::Layers(first), heads: mixture.then_some(2), ..ffn.clone() }];
    shapes.extend((!mixture).then(|| ffn.clone()));
    if !shared {
        shapes.push(Wanted { heads: Some(2), ..Wanted::default() });
        shapes.push(Wanted { heads: Some(2), key_heads: Some(2), ..Wanted::default() });
    }
    if teacher.spec.head != Head::Hidden && !teacher.spec.projects_embeddings() {
        let hidden = match (shared, mixture) {
            (true, _) => 2 * head_dim(teacher),
            (false, true) => 32,
            (false, false) => 24,
        };
        shapes.push(Wanted { hidden: Some(hidden), ..Wanted::default() });
        shapes.push(Wanted { hidden: Some(hidden), depth: Depth::Layers(second), ..ffn });
    }
    shapes
}

#[test]
fn every_family_is_cut_fitted_written_and_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = text(24, 24);
    for folder in golden_folders() {
        let teacher = opened(&folder);
        for (number, wanted) in shapes(&teacher).iter().enumerate() {
            let label = format!("{} {wanted:?}", name(&folder));
            let methods = if wanted.hidden.is_some() {
                &[HiddenMethod::Channels, HiddenMethod::Pca][..]
            } else {
                &[HiddenMethod::Channels]
            };
            for &method in methods {
                let plan = Plan { hidden: Some(method), ..plan(&teacher, wanted) };
                let cut = student(&teacher, &plan, &text);
                if method == HiddenMethod::Pca && !can_rotate(&teacher.spec) {
                    let error = cut.expect_err("it cannot be rotated").to_string();
                    assert!(
                        error.contains(&format!("of {} cannot be rotated", teacher.spec.family)),
                        "{label}: {error}"
                    );
                    continue;
                }
                let Student { model, fits } = cut.unwrap_or_else(|error| panic!("{label}: {error}"));
                let mut widths = Widths::of(&model.spec);
                if model.spec.layers.iter().all(|layer| layer.attention().is_none()) {
                    // Layers without attention have no heads to count.
                    (widths.heads, widths.key_heads) = (plan.widths.heads, plan.widths.key_heads);
                }
                assert_eq!((widths, model.spec.layers.len()), (plan.widths, plan.layers.len()), "{label}");
                assert!(!fits.is_empty(), "{label}");
                for fit in &fits {
                    assert!(fit.fitted.after <= fit.fitted.before * (1.0 + 1e-6), "{label}: {fit:?}");
                }
                let out = directory.path().join(format!("{}-{number}-{method:?}", name(&folder)));
                let provenance = json!({"schema": "slmc.provenance/1", "stage": "test"});
                hugging_face::Directory(&out).write(&model, &provenance).expect("it can be written");
                let read = open_model(&out).expect("what was written opens");
                assert_eq!(read.spec.layers, model.spec.layers, "{label}");
                for parameter in model.spec.parameters() {
                    let of = |model: &Model| model.values_f32(parameter.id).expect("a value");
                    // A factor there and back is rounded twice.
                    let room = if model.spec.stored.residual == 1.0 { 0.0 } else { f32::EPSILON };
                    let alike = of(&read).iter().zip(of(&model)).all(|(a, b)| (a - b).abs() <= room * b.abs());
                    assert!(alike, "{label}: {}", parameter.id);
                }
                assert!(divergence(&teacher, &read).is_finite(), "{label}");
            }
        }
    }
}

#[test]
fn a_student_that_lacks_nothing_is_its_teacher() {
    for folder in golden_folders() {
        let teacher = opened(&folder);
        let whole = plan(&teacher, &Wanted::default());
        let student = student(&teacher, &whole, &text(4, 16)).expect("a student");
        assert!(student.fits.is_empty());
        assert_eq!(student.model.config.map(), teacher.config.map(), "{}", name(&folder));
        for parameter in teacher.spec.parameters() {
            let of = |model: &Model| model.values_f32(parameter.id).expect("a value");
            assert_eq!(of(&student.model), of(&teacher), "{}: {}", name(&folder), parameter.id);
        }
    }
}

/// The teacher with the values that `change` makes of some parameters.
fn changed(teacher: &Model, change: impl Fn(ParameterId, &mut Vec<f32>)) -> Model {
    let mut values = BTreeMap::new();
    for parameter in teacher.spec.parameters() {
        let mut of_parameter = teacher.values_f32(parameter.id).expect("a value");
        change(parameter.id, &mut of_parameter);
        values.insert(parameter.id, of_parameter);
    }
    teacher.clone().with_values(values).expect("the same shapes")
}

/// Columns of a matrix that are in `out` become 0.
fn clear_columns(values: &mut [f32], columns: usize, out: impl Fn(usize) -> bool) {
    for row in values.chunks_exact_mut(columns) {
        row.iter_mut().enumerate().filter(|(column, _)| out(*column)).for_each(|(_, value)| *value = 0.0);
    }
}

#[test]
fn channels_and_heads_that_carry_nothing_change_nothing_when_they_go() {
    for folder in ["llama-gqa-tied", "qwen2-qkv-bias", "gemma3-text", "phi3-fused-qkv", "lfm2-short-conv"] {
        let teacher = opened(&golden(folder));
        let (ffn, attention) = (
            teacher.spec.layers[0].ffn.width,
            *teacher.spec.layers.iter().find_map(LayerSpec::attention).expect("attention"),
        );
        // Every other channel, and the heads of the second key head.
        let teacher = changed(&teacher, |id, values| match id {
            ParameterId::Linear(LinearId { role: Role::Down, .. }, Part::Weight) => {
                clear_columns(values, ffn, |column| column % 2 == 1);
            }
            ParameterId::Linear(LinearId { role: Role::Output, .. }, Part::Weight) => {
                let (width, kept) = (attention.query_width(), attention.query_width() / 2);
                clear_columns(values, width, |column| column >= kept);
            }
            _ => {}
        });
        let wanted = Wanted { ffn: Some(ffn / 2), heads: Some(attention.heads / 2), ..Wanted::default() };
        for refit in [false, true] {
            let plan = Plan { refit, ..plan(&teacher, &wanted) };
            let student = student(&teacher, &plan, &text(24, 24)).expect("a student");
            let found = divergence(&teacher, &student.model);
            assert!(found < 1e-8, "{folder}, refit {refit}: {found}");
        }
    }
}

#[test]
fn hidden_channels_that_carry_nothing_change_nothing_when_they_go() {
    for folder in ["llama-mha", "phi3-fused-qkv", "mistral", "llama-gqa-tied"] {
        let teacher = opened(&golden(folder));
        let (hidden, kept) = (teacher.spec.hidden, teacher.spec.hidden / 2);
        let teacher = changed(&teacher, |id, values| match id {
            ParameterId::Linear(LinearId { role: Role::TokenEmbedding, .. }, _) => {
                clear_columns(values, hidden, |column| column >= kept);
            }
            ParameterId::Linear(LinearId { role: Role::Output | Role::Down, .. }, Part::Weight) => {
                let columns = values.len() / hidden;
                values[kept * columns..].fill(0.0);
            }
            // The directions of a tied head need one gain: it has no matrix to take another.
            ParameterId::Norm(None, NormSite::Final, Part::Weight) if folder == "llama-gqa-tied" => values.fill(1.5),
            _ => {}
        });
        let wanted = Wanted { hidden: Some(kept), ..Wanted::default() };
        for method in [HiddenMethod::Channels, HiddenMethod::Pca] {
            for refit in [false, true] {
                let plan = Plan { hidden: Some(method), refit, ..plan(&teacher, &wanted) };
                let student = student(&teacher, &plan, &text(24, 24)).expect("a student");
                let found = divergence(&teacher, &student.model);
                assert!(found < 1e-6, "{folder}, {method:?}, refit {refit}: {found}");
            }
        }
    }
}

#[test]
fn fitting_brings_a_student_nearer_to_its_teacher() {
    let teacher = opened(&golden("llama-gqa-tied"));
    let near = |wanted: &Wanted, refit| {
        let plan = Plan { refit, ..plan(&teacher, wanted) };
        divergence(&teacher, &student(&teacher, &plan, &text(64, 24)).expect("a student").model)
    };
    let shapes = [
        Wanted { ffn: Some(24), ..Wanted::default() },
        Wanted { depth: Depth::Layers(vec![0, 2]), ..Wanted::default() },
        Wanted { ffn: Some(40), heads: Some(2), ..Wanted::default() },
    ];
    for wanted in shapes {
        let (fitted, plain) = (near(&wanted, true), near(&wanted, false));
        assert!(fitted < plain, "{wanted:?}: {fitted} is not below {plain}");
    }
}

#[test]
fn layers_are_chosen_by_what_their_removal_costs() {
    let teacher = opened(&golden("llama-gqa-tied"));
    // The layer in the middle adds nothing.
    let teacher = changed(&teacher, |id, values| {
        if let ParameterId::Linear(LinearId { layer: Some(1), role: Role::Output | Role::Down }, _) = id {
            values.fill(0.0);
        }
    });
    let (device, text) = (device("flex").expect("a device"), text(8, 20));
    let importance = measure(&teacher, &text, &device, &Silent).expect("it runs");
    let bench = Bench::new(&teacher, &importance, [&text, &text], &device).expect("it runs");
    let kept = depth::choose(&bench, 1, &Silent).expect("layers");
    assert_eq!(kept[&2].0, [0, 2]);
    assert!(kept[&2].1.is_some_and(|cost| cost < 1e-9), "{kept:?}");
    assert!(kept[&1].0 != [1], "{kept:?}");
}

#[test]
fn projections_of_a_student_begin_where_least_squares_puts_them() {
    let teacher = opened(&golden("llama-mha"));
    let wanted = Wanted { hidden: Some(40), ..Wanted::default() };
    let text = text(32, 24);
    let student = student(&teacher, &plan(&teacher, &wanted), &text).expect("a student").model;
    let device = device("flex").expect("a device");
    let pairs = hidden_pairs(3, 3, None).expect("pairs");
    let found = projection::projections(&teacher, &student, &pairs, &text, &device).expect("they are there");
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [40 * 64; 4]);
    // The embeddings are channels of the teacher's, and each of them is found again.
    let of = |model: &Model| model.matrix(LinearId::global(Role::TokenEmbedding)).expect("a table");
    let (own, other) = (of(&student), of(&teacher));
    let channel = |column: usize| (0..64).find(|&other_column| other.column(other_column) == own.column(column));
    for column in 0..40 {
        let channel = channel(column).expect("a channel of the teacher");
        let weight = found[0][column * 64 + channel];
        assert!((weight - 1.0).abs() < 0.1, "{column}: {weight}");
    }
}

#[test]
fn shapes_that_cannot_be_are_named() {
    let llama = opened(&golden("llama-gqa-tied")).spec;
    let bert = opened(&golden("bert-mlm")).spec;
    let bare = opened(&golden("bert-encoder")).spec;
    let narrow = opened(&golden("electra-small-classifier")).spec;
    let error = |spec, wanted: Wanted| wanted.widths(spec).map(|_| ()).expect_err("it cannot be").to_string();
    let base = Wanted::default;
    for (spec, wanted, expected) in [
        (&llama, Wanted { heads: Some(0), ..base() }, "--heads 0: the teacher has 4 heads; ask for 1 to 4"),
        (&llama, Wanted { ffn: Some(73), ..base() }, "--ffn 73: the teacher has 72 channels"),
        (&llama, Wanted { hidden: Some(usize::MAX), ..base() }, "the teacher has 40 hidden channels"),
        (&llama, Wanted { heads: Some(3), key_heads: Some(2), ..base() }, "3 heads cannot share 2 key heads evenly"),
        (
            &llama,
            Wanted { heads: Some(4), key_heads: Some(1), ..base() },
            "ask for at most 2 heads, or for at least 2 key heads",
        ),
        (&bert, Wanted { heads: Some(2), ..base() }, "ask for --hidden-width 20 too"),
        (&bert, Wanted { hidden: Some(24), ..base() }, "the heads of bert share the hidden width, 10 each"),
        (&bare, Wanted { hidden: Some(20), ..base() }, "the output of bert without a head is its hidden states"),
        (&narrow, Wanted { hidden: Some(20), ..base() }, "the tables of electra are narrower than its layers"),
    ] {
        let found = error(spec, wanted);
        assert!(found.contains(expected), "{found}");
    }
    let deep = Wanted { depth: Depth::Count(4), ..base() };
    assert!(matches!(deep.layers(&llama), Err(ShapeError::OutOfRange { option: "depth", found: 4, most: 3, .. })));
}

#[test]
fn hostile_options_are_refused_before_the_work() {
    let directory = fixture::workshop("chain.toml", "");
    let path = directory.path();
    for (options, expected) in [
        ("--heads 0", "ask for 1 to"),
        ("--ffn 99999999999999999999", "invalid value"),
        ("--ffn -1", "unexpected argument"),
        ("--depth 0", "ask for 1 to"),
        ("--depth 1 --layers 0", "cannot be used with"),
        ("--ffn 8 --student model", "cannot be used with"),
        ("--layers 0 --hidden-method pca", "how a student is cut"),
        ("--ffn 8 --hidden-method pca", "--hidden-method says how --hidden-width is cut"),
        ("--ffn 8 --shape-samples 0", "measures nothing"),
        ("--ffn 8 --budget 1MiB", "--fit"),
        ("--fit generic", "nothing bounds the student"),
        ("--fit nowhere --budget 1MiB", "unknown target"),
        ("--fit generic --budget 0", "a size of 0 bytes"),
        ("--fit generic --parameters 0", "leaves nothing"),
        ("--fit generic --parameters 1", "no student of the teacher's kind is within the bounds"),
        ("--init slice --layers 0", "--student"),
    ] {
        let line = format!("distill --teacher model --data text.txt --window 32 --tokens 64 {options} -o out");
        refused(path, &line, expected);
        assert!(!path.join("out").exists(), "{options}");
    }
}

#[test]
fn a_student_is_cut_trained_and_reported() {
    let directory = fixture::workshop("chain.toml", "");
    let path = directory.path();
    let settings = "--teacher model --data text.txt --window 32 --batch 4 --tokens 600 --shape-samples 16";
    let report = json_with_code(path, &format!("distill --depth 1 --ffn 16 {settings} -o narrow"), 0);
    assert_eq!((&report["schema"], &report["student"]["ffn"]), (&json!("slmc.train/1"), &json!(16)));
    assert_eq!(report["student"]["layers"].as_array().map(Vec::len), Some(1));
    assert!(report["student"]["divergence"].as_f64().is_some_and(f64::is_finite));
    let again = json_with_code(path, &format!("distill --depth 1 --ffn 16 --threads 1 {settings} -o again"), 0);
    let weights = |name: &str| std::fs::read(path.join(name).join("model.safetensors")).expect("weights");
    assert!(weights("narrow") == weights("again"), "threads change no bit");
    assert_eq!(without_cost(report), without_cost(again));
    // The configuration that was written asks for the same shape.
    let sliced =
        json_with_code(path, &format!("distill --student narrow/config.json --init slice {settings} -o sliced"), 0);
    assert_eq!(sliced["student"]["ffn"], 16);
    assert!(weights("narrow") == weights("sliced"), "it is the same student");
    // A shape that is chosen is within its bound, and so is the model that is written.
    let bound = 2 * parameters(path, "narrow");
    let fits = format!("distill --fit generic --parameters {bound} {settings} -o fits");
    let report = json_with_code(path, &fits, 0);
    let chosen = report["student"]["parameters"].as_u64().expect("a number");
    assert!(chosen <= bound && chosen == parameters(path, "fits"), "{chosen} of {bound}");
    let measured: Vec<f64> = report["student"]["candidates"]
        .as_array()
        .expect("candidates")
        .iter()
        .filter_map(|candidate| candidate["measured"].as_f64())
        .collect();
    assert!(!measured.is_empty() && measured.windows(2).all(|pair| pair[0] <= pair[1]), "{measured:?}");
}

fn parameters(directory: &Path, model: &str) -> u64 {
    open_model(&directory.join(model)).expect("it opens").spec.parameter_count()
}

fn without_cost(mut report: Value) -> Value {
    if let Some(map) = report.as_object_mut() {
        for key in ["seconds", "peak_memory_bytes"] {
            map.remove(key);
        }
    }
    report
}

/// The recipe of recipes/ with a few tokens, its inputs where they are.
#[test]
fn the_recipe_of_a_narrow_student_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let recipe = std::fs::read_to_string(root("recipes/narrow-student.toml")).expect("it can be read");
    let inputs = format!("\"{}/", root("recipes/quickstart").display());
    let recipe =
        recipe.replace("\"quickstart/", &inputs).replace("tokens = 300_000", "tokens = 2_000\nshape_samples = 16");
    std::fs::write(directory.path().join("narrow.toml"), recipe).expect("written");
    let plan = json_with_code(directory.path(), "plan narrow.toml", 0);
    assert_eq!(plan["schema"], "slmc.plan/2");
    let report = json_with_code(directory.path(), "run narrow.toml", 0);
    assert_eq!(states(&report), ["done"; 2]);
    let student = &report["stages"][0]["report"]["student"];
    assert!(student["parameters"].as_u64().is_some_and(|chosen| chosen <= 450_000), "{student}");
}
