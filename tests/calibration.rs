//! The pass over layers that halts at every group's input against the whole forward, for every golden checkpoint on both
//! devices: the moments of each group while matrices change one group after the other, statistics, gradients by looked-up
//! rows; and the same bits for any number of threads.

use crate::support::golden_folders;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use ndarray::{Array2, ArrayView2};
use slm_runtime::sample::random_u64;
use slmc::calibrate::layerwise::{Change, Changed, Layerwise};
use slmc::calibrate::moments::Moments;
use slmc::calibrate::{CalibrateError, collect};
use slmc::formats::open_model;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Observer, Unobserved};
use slmc::model::graph::Graph;
use slmc::model::id::{LinearId, Role};
use slmc::model::spec::{Head, ModelKind};
use slmc::model::weights::Model;
use slmc::progress::Silent;
use std::collections::BTreeMap;

/// Largest difference, as a part of the largest value.
const TOLERANCE: f64 = 3e-5;

/// Sequences of several lengths, two of each.
fn sequences(model: &Model) -> Vec<Vec<u32>> {
    let token = |index: u64| (random_u64(3, index) % model.spec.vocabulary as u64) as u32;
    [9, 5, 14, 9, 5, 14]
        .iter()
        .zip(0..)
        .map(|(length, n)| (0..*length).map(|at| token(100 * n + at)).collect())
        .collect()
}

/// Inputs of linears, and queries and keys by layer, (rows, width).
#[derive(Default)]
struct Seen {
    inputs: BTreeMap<LinearId, Vec<Vec<f32>>>,
    keys: BTreeMap<usize, Vec<f32>>,
}

impl Observer for Seen {
    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        let width = input.dims()[1];
        let values: Vec<f32> = input.to_data().try_to_vec().expect("f32");
        self.inputs.entry(id).or_default().extend(values.chunks(width).map(<[f32]>::to_vec));
    }

    fn attention(&mut self, layer: usize, _query: &Tensor<4>, key: &Tensor<4>) {
        self.keys.entry(layer).or_default().extend(key.to_data().try_to_vec::<f32>().expect("f32"));
    }
}

/// The whole forward, a sequence at a time.
fn seen(model: &Model, weights: &DenseWeights, device: &Device) -> Seen {
    let mut seen = Seen::default();
    for sequence in sequences(model) {
        let batch = Batch::new(&model.spec, sequence, 1).expect("its tokens");
        Forward::new(&model.spec, weights, device).run(&batch, &mut seen);
    }
    seen
}

/// Σ x yᵀ, (columns, columns).
fn products(x: &[Vec<f32>], y: &[Vec<f32>]) -> Array2<f64> {
    let columns = x[0].len();
    let mut sums = Array2::zeros((columns, columns));
    for (x, y) in x.iter().zip(y) {
        for i in 0..columns {
            for j in 0..columns {
                sums[[i, j]] += f64::from(x[i]) * f64::from(y[j]);
            }
        }
    }
    sums
}

fn worst(found: ArrayView2<'_, f64>, expected: ArrayView2<'_, f64>, size: f64) -> f64 {
    found.iter().zip(expected).fold(0.0f64, |most, (a, b)| most.max((a - b).abs())) / size
}

fn largest(values: &Array2<f64>) -> f64 {
    values.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()))
}

/// Changes every matrix, and compares the moments it is given with those of the whole forward with the matrices before
/// changed, and without.
struct Compare<'a> {
    model: &'a Model,
    device: &'a Device,
    original: Seen,
    changed: DenseWeights,
    seen: Vec<LinearId>,
    wrong: Vec<String>,
}

impl Change for Compare<'_> {
    type Error = CalibrateError;

    fn kept(&mut self, _ids: &[LinearId]) -> Result<Option<Changed>, CalibrateError> {
        Ok(None)
    }

    fn change(&mut self, ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, CalibrateError> {
        let table = ids[0].role == Role::TokenEmbedding;
        let read = if table { LinearId::global(Role::LmHead) } else { ids[0] };
        if let Some(moments) = moments {
            let now = seen(self.model, &self.changed, self.device);
            let (x, y) = (&self.original.inputs[&read], &now.inputs[&read]);
            let (gram, cross) = (products(y, y), products(x, y));
            let size = largest(&gram);
            let found = worst(moments.gram.view(), gram.view(), size);
            let missed = match &moments.difference {
                Some(difference) => worst(difference.view(), (&cross - &gram).view(), size),
                // The original's own, before anything was changed.
                None => f64::from(u8::from(!table)),
            };
            if !(found < TOLERANCE && missed < TOLERANCE) || moments.rows != y.len() as u64 {
                self.wrong.push(format!("{}: G {found:.1e}, D {missed:.1e}, {} rows", ids[0], moments.rows));
            }
            self.seen.extend(ids);
        }
        let mut out = Changed::new();
        for &id in ids {
            let values = self.model.matrix(id)?;
            let slope = |(row, column): (usize, usize)| 1.0 + 0.1 * ((row * 7 + column * 3) % 5) as f32 - 0.2;
            let new = Array2::from_shape_fn(values.dim(), |at| values[at] * slope(at));
            let data = TensorData::new(new.iter().copied().collect::<Vec<f32>>(), [new.nrows(), new.ncols()]);
            self.changed.replace(id, Tensor::from_data(data, self.device));
            out.push((id, new));
        }
        Ok(out)
    }
}

#[test]
fn groups_are_given_the_moments_of_the_whole_forward() {
    for folder in golden_folders() {
        let model = open_model(&folder).expect("a golden checkpoint opens");
        for name in ["flex", "ndarray"] {
            let device = device(name).expect("a device");
            let weights = DenseWeights::new(&model, &device).expect("it has weights");
            let original = seen(&model, &weights, &device);
            let mut compare = Compare {
                model: &model,
                device: &device,
                original,
                changed: weights,
                seen: Vec::new(),
                wrong: Vec::new(),
            };
            let sequences = sequences(&model);
            let (sequences, device) = (&sequences[..], &device);
            let pass = Layerwise { model: &model, sequences, device, with_original: true, with_lookups: false };
            let statistics = pass.run(&mut compare, &Silent, "changing").expect("it runs");
            let label = format!("{} on {name}", folder.display());
            assert!(compare.wrong.is_empty(), "{label}: {:#?}", compare.wrong);
            let graph = Graph::new(&model.spec);
            let mut expected: Vec<LinearId> = graph.linears().map(|linear| linear.weight).collect();
            expected.sort();
            compare.seen.sort();
            assert_eq!(compare.seen, expected, "{label}");
            // Statistics are those of the model as it was changed in the end.
            compare_statistics(&label, &statistics, &seen(&model, &compare.changed, device));
            let weights = DenseWeights::new(&model, device).expect("it has weights");
            let statistics = collect(&model, sequences, device, &Silent).expect("it runs");
            compare_statistics(&label, &statistics, &seen(&model, &weights, device));
        }
    }
}

fn compare_statistics(label: &str, statistics: &slmc::calibrate::Statistics, expected: &Seen) {
    assert!(statistics.linears.keys().eq(expected.inputs.keys()), "{label}");
    for (id, found) in &statistics.linears {
        let rows = &expected.inputs[id];
        assert_eq!(found.rows, rows.len() as u64, "{label}: {id}");
        for (column, found) in found.mean_square.iter().enumerate() {
            let mean = rows.iter().map(|row| f64::from(row[column]).powi(2)).sum::<f64>() / rows.len() as f64;
            assert!((found - mean).abs() <= 1e-4 * mean.max(1e-6), "{label}: {id} column {column}: {found}, {mean}");
        }
    }
    for (layer, keys) in &expected.keys {
        let found = &statistics.keys[*layer];
        // E x² = variance + mean², over channels of all heads and positions.
        let all: f64 = found.key_variance.iter().zip(&found.key_mean).map(|(v, m)| v + m * m).sum();
        let expected = keys.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / keys.len() as f64;
        let found = all / found.key_mean.len() as f64;
        assert!((found - expected).abs() < 1e-4 * expected, "{label}: keys of layer {layer}: {found}, {expected}");
    }
}

/// Keeps the moments of the token table.
#[derive(Default)]
struct Table(Option<Moments>);

impl Change for Table {
    type Error = CalibrateError;

    fn kept(&mut self, ids: &[LinearId]) -> Result<Option<Changed>, CalibrateError> {
        Ok((ids[0].role != Role::TokenEmbedding).then(Changed::new))
    }

    fn change(&mut self, _ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, CalibrateError> {
        self.0 = moments;
        Ok(Changed::new())
    }
}

/// Σ g gᵀ through the whole model at once, and Σ x xᵀ of a tied head.
fn of_table(model: &Model, device: &Device) -> Array2<f64> {
    let (spec, recording) = (&model.spec, device.clone().autodiff());
    let weights = DenseWeights::new(model, &recording).expect("it has weights");
    let forward = Forward::new(spec, &weights, &recording);
    let mut rows = Vec::new();
    for sequence in sequences(model) {
        let batch = Batch::new(spec, sequence.clone(), 1).expect("its tokens");
        let context = forward.context(&batch);
        let embedded = Tensor::from_inner(forward.embed(&batch).inner()).require_grad();
        let layers = 0..spec.layers.len();
        let hidden =
            layers.fold(embedded.clone(), |hidden, layer| forward.block(layer, hidden, &context, &mut Unobserved));
        let logits = forward.head(forward.finish(hidden), &mut Unobserved);
        let count = sequence.len() - 1;
        let logits = logits.reshape([sequence.len(), spec.vocabulary]).narrow(0, 0, count);
        let next: Vec<i32> = sequence[1..].iter().map(|token| token.cast_signed()).collect();
        let next = Tensor::<2, Int>::from_data(TensorData::new(next, [count, 1]), &recording);
        let gradients = log_softmax(logits, 1).gather(1, next).sum().backward();
        let gradient = embedded.grad(&gradients).expect("a gradient") * f64::from(spec.embedding_scale);
        let values: Vec<f32> = gradient.into_data().try_to_vec().expect("f32");
        rows.extend(values.chunks(spec.hidden).map(<[f32]>::to_vec));
    }
    let mut sums = products(&rows, &rows);
    if spec.tied_head() {
        let weights = DenseWeights::new(model, device).expect("it has weights");
        let inputs = &seen(model, &weights, device).inputs[&LinearId::global(Role::LmHead)];
        sums += &products(inputs, inputs);
    }
    sums
}

fn moments_of_table(model: &Model, device: &Device) -> Option<Moments> {
    let sequences = sequences(model);
    let pass = Layerwise { model, sequences: &sequences, device, with_original: false, with_lookups: true };
    let mut table = Table::default();
    pass.run(&mut table, &Silent, "looking").expect("it runs");
    table.0
}

#[test]
fn gradients_layer_by_layer_are_those_of_the_whole_model() {
    for folder in golden_folders() {
        let model = open_model(&folder).expect("a golden checkpoint opens");
        let decoder = model.spec.kind == ModelKind::Decoder && matches!(model.spec.head, Head::LanguageModel { .. });
        for name in ["flex", "ndarray"].into_iter().filter(|_| decoder) {
            let device = device(name).expect("a device");
            let (found, expected) = (moments_of_table(&model, &device).expect("moments"), of_table(&model, &device));
            let worst = worst(found.gram.view(), expected.view(), largest(&expected));
            assert!(worst < TOLERANCE, "{} on {name}: {worst:.1e}", folder.display());
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let device = device("flex").expect("a device");
    for folder in golden_folders() {
        let model = open_model(&folder).expect("a golden checkpoint opens");
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let statistics = collect(&model, &sequences(&model), &device, &Silent).expect("it runs");
                (moments_of_table(&model, &device), statistics)
            })
        };
        assert_eq!(of(1), of(2), "{}", folder.display());
    }
}
