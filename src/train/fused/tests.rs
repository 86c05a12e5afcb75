//! Fused operations against burn's own on both devices, and against finite differences, for every family.

use super::*;
use crate::formats::open_model;
use crate::model::device::device;
use crate::model::forward::DenseWeights;
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::{Head, ModelSpec};
use crate::model::transform::{Identity, Sparsity};
use crate::model::weights::Model;
use crate::progress::Silent;
use crate::train::data::Samples;
use crate::train::loss::schedule::Schedule;
use crate::train::loss::table::LOSSES;
use crate::train::optimizer::global_norm;
use crate::train::parameters::normals;
use crate::train::plain::OnWorkers;
use crate::train::privacy::samplewise::Samplewise;
use crate::train::scope::{LoraSettings, Scope, ScopeSettings};
use crate::train::settings::Settings;
use crate::train::student::state_pairs;
use crate::train::trainer::Teacher;
use crate::workers::pool::Workers;
use slm_runtime::sample::random_u64;
use std::path::{Path, PathBuf};

/// Largest difference of a gradient from that of burn's own operations, as a part of the tensor's largest. ndarray's slope of
/// GELU differs from flex's by 5e-4.
const TOLERANCES: [(&str, f32); 2] = [("flex", 3e-5), ("ndarray", 1e-3)];

fn golden_folders() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(golden)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("model.safetensors").exists() || path.join("model.safetensors.index.json").exists())
        .collect();
    folders.sort();
    folders
}

fn sequences(vocabulary: usize, lengths: &[usize]) -> Vec<Vec<u32>> {
    let tokens = |(stream, &length): (usize, &usize)| {
        (0..length as u64).map(|index| (random_u64(stream as u64, index) % vocabulary as u64) as u32).collect()
    };
    lengths.iter().enumerate().map(tokens).collect()
}

/// A model with what it is trained on and by whom.
struct Case {
    model: Model,
    values: Parameters,
    other: BTreeMap<ParameterId, Vec<f32>>,
    /// The teacher's, where its table is padded to another size, and the tokens that both have.
    padded: Option<(ModelSpec, usize)>,
    samples: Samples,
    settings: Settings,
    scope: Scope,
    /// The teacher's parts; it may be there several times.
    parts: Vec<f64>,
}

impl Case {
    fn new(folder: &Path, causal: bool, loss: LossWeights) -> Self {
        let model = open_model(folder).unwrap();
        let longest = model.spec.context.min(17);
        let samples = if causal {
            Samples::Causal(sequences(model.spec.vocabulary, &[longest; 4]))
        } else {
            Samples::Compared(sequences(model.spec.vocabulary, &[longest, longest - 5, 3, longest - 1]))
        };
        let ids: Vec<ParameterId> = model.spec.parameters().iter().map(|parameter| parameter.id).collect();
        let own = |id: &ParameterId| model.values_f32(*id).unwrap();
        let values = ids.iter().map(|id| (TrainedId::Parameter(*id), own(id))).collect();
        let noisy = |(seed, id): (usize, &ParameterId)| {
            let values = own(id);
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let noise = normals(seed as u64, values.len(), f64::from(largest) * 0.05);
            (*id, values.iter().zip(noise).map(|(value, noise)| value + noise).collect())
        };
        let other = ids.iter().enumerate().map(noisy).collect();
        let settings = Settings { batch: 4, pieces: 2, loss, ..Settings::TRAIN };
        Case { model, values, other, padded: None, samples, settings, scope: Scope::default(), parts: vec![1.0] }
    }

    /// Lets `work` do something with a run on a device, its view and its trained values.
    fn with_run<R>(
        &self,
        values: &Parameters,
        name: &str,
        work: impl FnOnce(&Run<'_>, &View<'_>, Parameters) -> R,
    ) -> R {
        let device = device(name).unwrap();
        let spec = &self.model.spec;
        let teacher = |id: ParameterId| Ok::<_, ()>(self.other[&id].clone());
        let (of_teacher, shared_tokens) = match &self.padded {
            Some((spec, shared)) => (spec, Some(*shared)),
            None => (spec, None),
        };
        let weights = DenseWeights::from_values(of_teacher, &device, teacher).unwrap();
        let pairs = state_pairs(spec, of_teacher, None).unwrap();
        let parts = &self.parts;
        let run = Run {
            spec,
            settings: &self.settings,
            scope: &self.scope,
            privacy: None,
            samples: &self.samples,
            teachers: parts
                .iter()
                .map(|&part| Teacher {
                    spec: of_teacher,
                    weights: &weights,
                    pairs: pairs.clone(),
                    part,
                    projections: Vec::new(),
                })
                .collect(),
            shared_tokens,
            cache: None,
            device: &device,
            workers: None,
            out: Path::new("unused"),
            fingerprint: String::new(),
            max_ram: None,
            read_bytes: 0,
            on_policy: None,
        };
        let start = values.iter().filter_map(|(id, values)| match id {
            TrainedId::Parameter(id) => Some((*id, values.clone())),
            _ => None,
        });
        let (view, mut trained) = View::new(start.collect(), &self.scope, &Identity, 5);
        // B is not zero, as it is after the first step.
        let of_b = trained.iter_mut().filter(|(id, _)| matches!(id, TrainedId::AdapterB(_)));
        for (number, (_, values)) in of_b.enumerate() {
            *values = normals(number as u64, values.len(), 0.1);
        }
        work(&run, &view, trained)
    }

    /// Loss and gradients on a device: fused, or by burn's own operations.
    fn gradients(&self, values: &Parameters, name: &str, fused: bool) -> (Gradients, LossParts) {
        let Settings { batch, pieces, loss, .. } = &self.settings;
        let pieces = self.samples.pieces(&self.model.spec, 1, 0, *batch, *pieces).unwrap();
        let now = &loss.at(0.0);
        self.with_run(values, name, |run, view, mut trained| {
            if !fused {
                let (gradients, parts) = run.gradients(&view.seen(&trained), &pieces, now).unwrap();
                return (view.pull_back(&trained, gradients).0, parts);
            }
            let mut fused = Fused::new(run).unwrap().unwrap();
            let before = trained.clone();
            let found = fused.gradients(run, &mut trained, view, &pieces, now).unwrap();
            fused.reuse(found.0);
            // Again in the memory of the first: it must not show.
            let (gradients, parts) = fused.gradients(run, &mut trained, view, &pieces, now).unwrap();
            assert!(trained == before, "what was lent is given back");
            (view.pull_back(&trained, gradients).0, parts)
        })
    }

    fn fused(&self, values: &Parameters) -> (Gradients, LossParts) {
        self.gradients(values, "flex", true)
    }
}

/// On workers, any number of them, sums are the same bits as here: devices of this process in their place.
#[test]
fn any_number_of_workers_gives_the_same_gradients() {
    for (name, causal) in [("llama-gqa-tied", true), ("bert-mlm", false)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
        let head = open_model(&folder).unwrap().spec.head;
        let mut case = Case::new(&folder, causal, every_loss(&head, 2.0));
        case.settings.pieces = 4;
        let (expected, parts) = case.gradients(&case.values, "flex", false);
        let Settings { batch, pieces, loss, .. } = &case.settings;
        let pieces = case.samples.pieces(&case.model.spec, 1, 0, *batch, *pieces).unwrap();
        for count in 1..=3 {
            let devices = (0..count).map(|number| (format!("here:{number}"), device("flex").unwrap()));
            let workers = Workers::new(devices);
            case.with_run(&case.values, "flex", |run, view, trained| {
                let on = OnWorkers::new(run, &workers, &Silent);
                let seen = view.seen(&trained);
                let found = run.gradients_on(&on, &seen, (&pieces, &loss.at(0.0)), 0).unwrap();
                assert!(view.pull_back(&trained, found.0).0 == expected, "{name}: {count} workers");
                assert_eq!(found.1.total.to_bits(), parts.total.to_bits(), "{name}: {count} workers");
            });
        }
    }
}

fn every_loss(head: &Head, temperature: f64) -> LossWeights {
    let mut loss = LossWeights { temperature, ..LossWeights::NONE }.with(LossKind::Hidden, 0.5);
    if !matches!(head, Head::Hidden) {
        loss = loss.with(LossKind::CrossEntropy, 1.0).with(LossKind::Divergence, 0.7);
    }
    loss
}

fn compare(folder: &Path, causal: bool, loss: LossWeights) {
    let case = Case::new(folder, causal, loss);
    let found = case.fused(&case.values);
    for (name, tolerance) in TOLERANCES {
        let expected = case.gradients(&case.values, name, false);
        same(&found, &expected, tolerance, &format!("{} and {name}, causal {causal}, {loss:?}", folder.display()));
    }
}

fn same(found: &(Gradients, LossParts), expected: &(Gradients, LossParts), tolerance: f32, label: &str) {
    let parts = |parts: &LossParts| LOSSES.each_ref().map(|def| parts.get(def.kind));
    assert!((found.1.total - expected.1.total).abs() <= 2e-5 * expected.1.total.abs() + 1e-6, "{label}");
    for (value, other) in parts(&found.1).into_iter().zip(parts(&expected.1)) {
        assert!((value - other).abs() <= 2e-5 * other.abs() + 1e-6, "{label}: {:?}, {:?}", found.1, expected.1);
    }
    let size = |values: &[f32]| values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let over_all = expected.0.values().fold(0f32, |largest, values| largest.max(size(values)));
    for (id, expected) in &expected.0 {
        // Where a gradient is nothing but the error of sums, as a key's bias, it is compared with the others.
        let largest = size(expected).max(1e-3 * over_all);
        let error = found.0[id].iter().zip(expected).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
        assert!(error <= tolerance * largest, "{label}: {id} differs by {error}, largest {largest}");
    }
    for (id, values) in found.0.iter().filter(|(id, _)| !expected.0.contains_key(id)) {
        assert!(values.iter().all(|value| *value == 0.0), "{label}: {id} has a gradient");
    }
}

#[test]
fn every_family_has_the_gradients_of_burns_own_operations() {
    let folders = golden_folders();
    assert!(folders.len() >= 12, "{folders:?}");
    for folder in folders {
        let spec = open_model(&folder).unwrap().spec;
        compare(&folder, false, every_loss(&spec.head, 1.0));
        if matches!(spec.head, Head::LanguageModel { .. }) {
            compare(&folder, true, every_loss(&spec.head, 2.0));
        }
    }
}

#[test]
fn each_loss_alone_has_the_gradients_of_burns_own_operations() {
    let folder = golden_folders().into_iter().find(|path| path.ends_with("llama-gqa-tied")).unwrap();
    let none = LossWeights::NONE;
    let warm = LossWeights { temperature: 1.5, skew: 0.2, ..none };
    for loss in [
        none.with(LossKind::CrossEntropy, 1.5),
        LossWeights { smoothing: 0.2, ..none }.with(LossKind::CrossEntropy, 1.5),
        none.with(LossKind::Divergence, 1.0),
        warm.with(LossKind::SkewDivergence, 1.0),
        warm.with(LossKind::ReverseDivergence, 0.8),
        none.with(LossKind::Logits, 0.1),
    ] {
        compare(&folder, true, loss);
    }
    compare(&folder, false, LossWeights { temperature: 0.5, ..none }.with(LossKind::Divergence, 0.3));
    for hidden_form in [HiddenForm::Raw, HiddenForm::Cosine] {
        compare(&folder, false, LossWeights { hidden_form, ..none }.with(LossKind::Hidden, 2.0));
    }
}

#[test]
fn all_losses_together_have_the_gradients_of_burns_own_operations() {
    for name in ["llama-gqa-tied", "bert-mlm", "gpt2"] {
        let folder = golden_folders().into_iter().find(|path| path.ends_with(name)).unwrap();
        let mut loss = LossWeights { temperature: 2.0, smoothing: 0.1, ..LossWeights::NONE };
        for (number, def) in
            LOSSES.iter().filter(|def| !matches!(def.against, Against::Projections | Against::LastHead)).enumerate()
        {
            loss.set(def.kind, Schedule::constant(0.2 + 0.1 * number as f64));
        }
        compare(&folder, name != "bert-mlm", loss);
    }
}

#[test]
fn exit_heads_have_the_gradients_of_burns_own_operations() {
    for name in ["bert-classifier", "distilbert-classifier", "electra-classifier", "roberta-classifier"] {
        let folder = golden_folders().into_iter().find(|path| path.ends_with(name)).unwrap();
        let model = open_model(&folder).unwrap();
        let exits: Vec<usize> = (1..model.spec.layers.len()).collect();
        assert!(!exits.is_empty(), "{name} has one layer");
        let model = crate::train::start::with_exits(&model, &exits).unwrap();
        let loss = LossWeights { temperature: 2.0, smoothing: 0.1, ..LossWeights::NONE };
        for loss in [
            loss.with(LossKind::CrossEntropy, 1.0).with(LossKind::Exits, 0.7),
            loss.with(LossKind::Divergence, 1.0).with(LossKind::Exits, 1.3),
        ] {
            let mut case = Case::new(&folder, false, loss);
            for (number, id) in model.spec.parameters().into_iter().map(|parameter| parameter.id).enumerate() {
                let mut values = model.values_f32(id).unwrap();
                // No longer copies of the last head.
                let noise = normals(1000 + number as u64, values.len(), 0.02);
                if matches!(id, ParameterId::Linear(linear, _) if linear.role.class() == crate::model::id::Class::Exit)
                {
                    values.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
                }
                case.values.insert(TrainedId::Parameter(id), values);
            }
            // The teacher has no exits, and all labels.
            case.padded = Some((case.model.spec.clone(), model.spec.output_width()));
            case.model = model.clone();
            let found = case.fused(&case.values);
            assert!(found.1.get(LossKind::Exits) > 0.0, "{name}");
            for (backend, tolerance) in TOLERANCES {
                same(&found, &case.gradients(&case.values, backend, false), tolerance, &format!("{name} on {backend}"));
            }
        }
    }
}

#[test]
fn several_teachers_have_the_gradients_of_burns_own_operations() {
    let folder = golden_folders().into_iter().find(|path| path.ends_with("llama-gqa-tied")).unwrap();
    let loss = LossWeights { temperature: 1.5, ..LossWeights::DISTILL }.with(LossKind::Divergence, 1.0);
    let mut case = Case::new(&folder, true, loss.with(LossKind::ReverseDivergence, 0.5));
    let single = case.fused(&case.values);
    // Two teachers that say the same are one.
    case.parts = vec![0.3, 0.7];
    let twice = case.fused(&case.values);
    same(&twice, &single, 1e-4, "the same teacher twice");
    for (name, tolerance) in TOLERANCES {
        same(&twice, &case.gradients(&case.values, name, false), tolerance, name);
    }
}

/// A table longer than the student's, and one shorter: neither the tokens that one has alone nor padding are compared.
#[test]
fn tables_padded_to_different_sizes_have_the_gradients_of_burns_own_operations() {
    let folder = golden_folders().into_iter().find(|path| path.ends_with("llama-gqa-tied")).unwrap();
    let loss = LossWeights { temperature: 2.0, ..LossWeights::RECOVER };
    for (rows, shared, cross_entropy) in [(300i64, -3i64, 1.0), (-40, -45, 1.0), (-40, -45, 0.0), (0, -9, 0.5)] {
        let mut case = Case::new(&folder, true, loss.with(LossKind::CrossEntropy, cross_entropy));
        let mut spec = case.model.spec.clone();
        let own = spec.vocabulary as i64;
        spec.vocabulary = (own + rows) as usize;
        let table = case.other.get_mut(&ParameterId::weight(LinearId::global(Role::TokenEmbedding))).unwrap();
        table.extend(normals(1, rows.max(0) as usize * spec.hidden, 0.5));
        table.truncate(spec.vocabulary * spec.hidden);
        // Tokens that only one table has no text has either.
        let most = (own + shared) as usize;
        case.samples = Samples::Causal(sequences(most, &[12; 4]));
        case.padded = Some((spec, most));
        let found = case.fused(&case.values);
        let expected = case.gradients(&case.values, "flex", false);
        same(&found, &expected, 3e-5, &format!("{rows} rows more, {shared} shared"));
    }
}

/// Pairs of uneven lengths, with padding on either side; the tables of positions and the encoder, which the decoder's layers all
/// read, have gradients too.
#[test]
fn encoder_decoders_have_the_gradients_of_burns_own_operations() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden-pairs");
    for folder in ["t5", "t5-gated-untied"] {
        let loss = LossWeights::NONE.with(LossKind::CrossEntropy, 1.0).with(LossKind::Divergence, 0.5);
        let loss = loss.with(LossKind::Hidden, 0.3);
        let mut case = Case::new(&golden.join(folder), false, loss);
        let texts = sequences(case.model.spec.vocabulary - 3, &[9, 4, 12, 7, 17, 6, 3, 11]);
        let pairs = texts.chunks_exact(2).map(|pair| {
            let text = |text: &Vec<u32>| text.iter().map(|token| token + 3).collect::<Vec<u32>>();
            let source = text(&pair[0]);
            let said: Vec<bool> = (0..=source.len() + pair[1].len()).map(|place| place > source.len()).collect();
            ([&source[..], &[0], &text(&pair[1])].concat(), said)
        });
        let (sequences, said) = pairs.unzip();
        case.samples = Samples::Answers { sequences, said };
        let found = case.fused(&case.values);
        assert!(found.0.values().all(|gradient| gradient.iter().any(|value| *value != 0.0)), "{folder}");
        for (name, tolerance) in TOLERANCES {
            same(&found, &case.gradients(&case.values, name, false), tolerance, &format!("{folder} on {name}"));
        }
    }
}

/// (L(w + εu) − L(w − εu)) / 2ε against g · u, u along each tensor's gradient.
#[test]
fn gradients_are_slopes() {
    for name in ["llama-gqa-tied", "gpt2", "bert-mlm", "gemma3-text", "lfm2-short-conv"] {
        let folder = golden_folders().into_iter().find(|path| path.ends_with(name)).unwrap();
        let spec = open_model(&folder).unwrap().spec;
        let mut loss = every_loss(&spec.head, 1.0);
        if spec.layers.last().is_some_and(|layer| layer.attention().is_some()) {
            loss = loss.with(LossKind::Relations, 3.0);
        }
        let case = Case::new(&folder, false, loss);
        let (gradients, _) = case.fused(&case.values);
        for (id, gradient) in &gradients {
            let norm = gradient.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
            if norm < 1e-3 {
                continue;
            }
            let size = case.values[id].iter().map(|w| f64::from(w * w)).sum::<f64>().sqrt();
            let step = 3e-3 * size.max(0.1);
            let moved = |way: f64| {
                let mut values = case.values.clone();
                let own = values.get_mut(id).unwrap().iter_mut().zip(gradient);
                own.for_each(|(w, g)| *w += (way * step / norm) as f32 * g);
                case.fused(&values).1.total
            };
            let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            assert!((slope - norm).abs() < 0.02 * norm + 1e-4, "{name}: {id} has slope {slope}, gradient {norm}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for folder in golden_folders() {
        let head = open_model(&folder).unwrap().spec.head;
        let case = Case::new(&folder, false, every_loss(&head, 1.0));
        let single = pool(1).install(|| case.fused(&case.values));
        for threads in [2, 3] {
            let found = pool(threads).install(|| case.fused(&case.values));
            assert!(found == single, "{} with {threads} threads", folder.display());
        }
    }
}

#[test]
fn recomputed_layers_change_no_bit() {
    for folder in golden_folders() {
        let spec = open_model(&folder).unwrap().spec;
        let causal = matches!(spec.head, Head::LanguageModel { .. });
        let mut case = Case::new(&folder, causal, every_loss(&spec.head, 1.5));
        let kept = case.fused(&case.values);
        case.settings.recompute = true;
        assert!(case.fused(&case.values) == kept, "{}", folder.display());
        // Without hidden states nothing but the next layer reads a layer's output.
        case.settings.loss = case.settings.loss.with(LossKind::Hidden, 0.0);
        if case.settings.loss.needs(Against::Logits) {
            let recomputed = case.fused(&case.values);
            case.settings.recompute = false;
            assert!(case.fused(&case.values) == recomputed, "{} without hidden states", folder.display());
        }
    }
}

/// What is left out changes no bit of the rest, wherever the graph begins; adapters have the gradients of burn's own operations.
#[test]
fn a_part_has_the_gradients_of_the_whole() {
    for folder in golden_folders() {
        let spec = open_model(&folder).unwrap().spec;
        if matches!(spec.head, Head::Hidden) {
            continue;
        }
        let loss = every_loss(&spec.head, 1.0).with(LossKind::Hidden, 0.0);
        let mut case = Case::new(&folder, matches!(spec.head, Head::LanguageModel { .. }), loss);
        let label = folder.display();
        let whole = case.fused(&case.values);
        let last = format!("layers.{}.*", spec.layers.len() - 1);
        for only in [&["attention"][..], &[&last], &["layers.1.ffn.down"], &["embed.token"], &["final.norm", &last]] {
            let settings = ScopeSettings { train_only: only.iter().map(|p| (*p).to_owned()).collect(), lora: None };
            // Encoders without a final norm, and models of one layer.
            let Ok(scope) = settings.of(&spec, &Sparsity::new()) else { continue };
            case.scope = scope;
            let part = case.fused(&case.values);
            assert_eq!(part.1, whole.1, "{label} {only:?}");
            assert!(!part.0.is_empty() && part.0.len() < whole.0.len(), "{label} {only:?}");
            assert!(part.0.iter().all(|(id, values)| whole.0[id] == *values), "{label} {only:?}");
        }
        let lora = LoraSettings { rank: 2, alpha: 3.0, targets: Vec::new() };
        let settings = ScopeSettings { train_only: vec!["*.norm".to_owned()], lora: Some(lora) };
        case.scope = settings.of(&spec, &Sparsity::new()).unwrap();
        let adapters = case.fused(&case.values);
        assert!(adapters.0.keys().any(|id| matches!(id, TrainedId::AdapterA(_))), "{label}");
        same(&adapters, &case.gradients(&case.values, "flex", false), 3e-5, &format!("adapters of {label}"));
    }
}

/// Norms of single samples and their sum, from one backward pass over all of them, are those of one pass for each; a table, whose
/// gradient is left by no terms, is seen.
#[test]
fn samples_together_have_the_gradients_of_each_alone() {
    let folder = golden_folders().into_iter().find(|path| path.ends_with("bert-classifier")).unwrap();
    let loss = LossWeights::NONE.with(LossKind::CrossEntropy, 1.0).with(LossKind::Divergence, 0.7);
    let mut case = Case::new(&folder, false, loss);
    let spec = case.model.spec.clone();
    let together = |case: &Case| {
        case.with_run(&case.values, "flex", |run, view, mut trained| {
            let piece = case.samples.piece_of(&spec, &[0, 1, 2, 3]).unwrap();
            let fused = Fused::new(run).unwrap().unwrap();
            let (terms, parts) = fused.terms(run, &mut trained, view, &piece, &case.settings.loss.at(0.0)).unwrap();
            Samplewise::new(terms, piece.batch.dims()).map(|samplewise| (samplewise, parts))
        })
    };
    assert!(together(&case).is_none(), "a table has no terms");
    let only = ["layers.*", "pooler*", "classifier*", "head*"].map(str::to_owned).to_vec();
    let only = only.into_iter().filter(|pattern| {
        let settings = ScopeSettings { train_only: vec![pattern.clone()], lora: None };
        settings.of(&spec, &Sparsity::new()).is_ok()
    });
    let settings = ScopeSettings { train_only: only.collect(), lora: None };
    case.scope = settings.of(&spec, &Sparsity::new()).unwrap();
    let (samplewise, parts) = together(&case).unwrap();
    let alone = |sample: usize| {
        case.with_run(&case.values, "flex", |run, view, mut trained| {
            let piece = [case.samples.piece_of(&spec, &[sample]).unwrap()];
            let mut fused = Fused::new(run).unwrap().unwrap();
            fused.gradients(run, &mut trained, view, &piece, &case.settings.loss.at(0.0)).unwrap()
        })
    };
    let each: Vec<(Gradients, LossParts)> = (0..4).map(alone).collect();
    let mean = each.iter().map(|(_, parts)| parts.total).sum::<f64>() / 4.0;
    assert!((parts.total / mean - 1.0).abs() < 1e-6, "{} and {mean}", parts.total);
    for (norm, (gradients, _)) in samplewise.norms().into_iter().zip(&each) {
        let expected = global_norm(gradients);
        assert!((norm / expected - 1.0).abs() < 1e-4, "{norm}, {expected}");
    }
    let zeros = |(id, values): (&TrainedId, &Vec<f32>)| (*id, vec![0.0; values.len()]);
    let mut sum: Gradients = each[0].0.iter().map(zeros).collect();
    let mut expected = sum.clone();
    let factors = [1.0, 0.5, 0.25, 2.0];
    samplewise.add_to(&mut sum, &factors);
    for ((gradients, _), factor) in each.iter().zip(factors) {
        for (id, values) in gradients {
            let sum = expected.get_mut(id).unwrap().iter_mut();
            sum.zip(values).for_each(|(sum, value)| *sum += factor * value);
        }
    }
    let parts = LossParts::default();
    same(&(sum, parts), &(expected, parts), 1e-4, "the sum of all samples");
}
