//! Digests of what the operations compute forward and backward, recorded once: whatever runs these tests (vectors of AVX-512,
//! AVX2, NEON, or none) gives these bits.

use crate::activation::{Activation, activate, tanh};
use crate::attention::{Shape, attention};
use crate::convolution::{Kernel, convolve};
use crate::embedding::{Embedding, embed};
use crate::head::{Answers, SampledRows, TeacherRows, Weighting, losses};
use crate::hidden::{Comparison, Form, distance};
use crate::linear::{Linear, linear};
use crate::mixture::weigh;
use crate::node::{Value, slice, tensor};
use crate::norm::{Norm, NormKind, Segment, norm};
use crate::relations::{Layout, Related, relations};
use crate::weights::{GradientSum, Weight};
use burn::tensor::{Device, Tensor, TensorData};
use slm_runtime::sample::random_u64;
use slm_runtime::sha256::Sha256;
use std::sync::Arc;

/// Sequences and tokens of each.
const DIMS: [usize; 2] = [2, 70];

/// Even draws from [−1, 1).
fn random(stream: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}

/// Trained weights, whose gradients belong to what is digested.
#[derive(Default)]
struct Trained(Vec<Arc<GradientSum>>);

impl Trained {
    fn weight(&mut self, count: usize) -> Weight {
        let sum = Arc::new(GradientSum::default());
        self.0.push(sum.clone());
        Weight::trained(Arc::new(random(100 + self.0.len() as u64, count)), sum)
    }
}

/// Digest of an operation's output, the gradient of its input of `width`, and those of its weights, where the output's
/// gradient is random.
fn digest(width: usize, operation: impl FnOnce(&Value, &mut Trained) -> Value) -> String {
    let device = Device::flex().autodiff();
    let [sequences, length] = DIMS;
    let data = TensorData::new(random(1, sequences * length * width), [sequences, length, width]);
    let input = Tensor::<3>::from_data(data, &device).require_grad();
    let mut trained = Trained::default();
    let output = operation(&Value::of(input.clone()).expect("the flex device"), &mut trained);
    let mut all = slice(&output.tensor()).to_vec();
    let gradients = match output.dims().len() {
        1 => output.into_tensor::<1>().backward(),
        _ => {
            let along = TensorData::new(random(2, all.len()), output.dims());
            (output.into_tensor::<3>() * Tensor::from_data(along, &device)).sum().backward()
        }
    };
    if let Some(gradient) = input.grad(&gradients) {
        all.extend(gradient.into_data().try_into_vec::<f32>().expect("f32"));
    }
    for sum in trained.0 {
        all.extend(Arc::try_unwrap(sum).expect("the graph is gone").into_values().1);
    }
    let bytes: Vec<u8> = all.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
    Sha256::digest(&bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn norm_of(kind: NormKind) -> String {
    digest(96, |input, trained| {
        let mut segment = |first, heads, width| Segment {
            first,
            heads,
            weight: trained.weight(width),
            bias: (kind == NormKind::Layer).then(|| trained.weight(width)),
        };
        // All of a row, or heads of it and a rest that stays.
        let segments =
            if kind == NormKind::Rms { vec![segment(0, 4, 16), segment(64, 1, 16)] } else { vec![segment(0, 1, 96)] };
        norm(input, Norm { kind, epsilon: 1e-5 }, segments)
    })
}

fn attention_of(causal: bool, window: Option<usize>, padded: bool) -> String {
    let [sequences, length] = DIMS;
    let (heads, key_value_heads, width) = (4, 2, 24);
    digest((heads + 2 * key_value_heads) * width, |input, _| {
        let angles: Vec<f64> =
            (0..length * width / 2).map(|n| (n / 12) as f64 * libm::pow(0.7, (n % 12) as f64)).collect();
        let table = |function: fn(f64) -> f64| angles.iter().map(|angle| function(*angle) as f32).collect();
        let present = (0..sequences * length).map(|n| n < length + 50).collect();
        let shape = Shape {
            sequences,
            length,
            heads,
            key_value_heads,
            width,
            scale: 0.2,
            cap: None,
            causal,
            window,
            rotary: causal.then(|| Arc::new([table(libm::cos), table(libm::sin)])),
            present: padded.then(|| Arc::new(present)),
        };
        attention(input, shape)
    })
}

fn losses_of(weighting: Weighting, teachers: usize, shared: Option<usize>) -> String {
    let tokens = DIMS[0] * DIMS[1];
    let (vocabulary, width, other_width) = (601, 40, 24);
    digest(width, |input, trained| {
        let head =
            Linear { matrix: trained.weight(vocabulary * width), bias: Some(trained.weight(vocabulary)), cap: None };
        let frozen = |stream, count| Weight::frozen(tensor(random(stream, count), &[count]));
        let teacher = |stream| TeacherRows {
            rows: tensor(random(stream, tokens * other_width), &[tokens, other_width]),
            head: Linear { matrix: frozen(stream + 1, (vocabulary + 7) * other_width), bias: None, cap: None },
            weight: 1.0 / teachers as f64,
        };
        let answers = if teachers == 0 {
            let ids = (0..8 * tokens as u64).map(|n| (random_u64(14, n) % vocabulary as u64) as u32).collect();
            let rows = SampledRows { ids, draws: 8, entropies: random(15, tokens) };
            Answers::Sampled { rows, shared }
        } else {
            let teachers = (0..teachers as u64).map(|number| teacher(11 + 40 * number)).collect();
            Answers::Computed { teachers, shared: shared.or(Some(vocabulary)) }
        };
        let targets: Vec<i32> = (0..tokens as u64).map(|n| (random_u64(13, n) % vocabulary as u64) as i32).collect();
        let weighting = Weighting { cross_entropy: 0.7, temperature: 1.5, ..weighting };
        losses(input, &head, &targets, Some(&answers), weighting).0
    })
}

fn hidden_of(form: Form) -> String {
    let [sequences, length] = DIMS;
    digest(40, |input, trained| {
        let tokens = sequences * length;
        let comparison = Comparison {
            teacher: tensor(random(21, tokens * 24), &[sequences, length, 24]),
            projection: Some(trained.weight(40 * 24)),
            rows: Some(Arc::new((0..tokens).filter(|row| row % 5 != 0).collect())),
            form,
            factor: 0.3,
        };
        distance(input, comparison).0
    })
}

#[test]
fn operations_have_the_recorded_bits() {
    let [sequences, length] = DIMS;
    let divergence = Weighting { divergence: 0.5, ..Weighting::NONE };
    let gated = |function| digest(80, move |input, _| activate(input, function, true));
    let found = [
        (
            "embedding",
            digest(1, |root, trained| {
                let tokens = (0..(sequences * length) as u64).map(|n| (random_u64(3, n) % 50) as u32).collect();
                let embedding = Embedding {
                    table: trained.weight(50 * 32),
                    scale: 1.7,
                    types: Some(trained.weight(2 * 32)),
                    type_of: None,
                    positions: Some(trained.weight(80 * 32)),
                    tokens,
                    dims: [sequences, length, 32],
                    start: 0,
                };
                embed(embedding, root)
            }),
        ),
        ("RMSNorm of heads", norm_of(NormKind::Rms)),
        ("RMSNorm from one", norm_of(NormKind::RmsOnePlus)),
        ("LayerNorm", norm_of(NormKind::Layer)),
        (
            "experts",
            digest(80, |input, trained| {
                let router = Linear { matrix: trained.weight(5 * 80), bias: None, cap: None };
                let scores = linear(input, vec![router], None);
                weigh(input, &scores, 2)
            }),
        ),
        (
            "linear",
            digest(70, |input, trained| {
                let mut of = |count: usize, bias: bool| Linear {
                    matrix: trained.weight(count * 70),
                    bias: bias.then(|| trained.weight(count)),
                    cap: None,
                };
                let linears = vec![of(90, true), of(33, false)];
                let residual = Value::Plain(tensor(random(4, sequences * length * 123), &[sequences, length, 123]));
                linear(input, linears, Some(&residual))
            }),
        ),
        ("causal attention", attention_of(true, None, false)),
        ("attention in a window", attention_of(true, Some(20), false)),
        ("padded attention", attention_of(false, None, true)),
        ("SiLU", gated(Activation::Silu)),
        ("GELU", gated(Activation::Gelu)),
        ("GELU by tanh", gated(Activation::GeluTanh)),
        ("tanh", digest(8, |input, _| tanh(input))),
        (
            "convolution",
            digest(96, |input, trained| {
                convolve(input, Kernel { taps: trained.weight(32 * 3), bias: Some(trained.weight(32)), length })
            }),
        ),
        ("cross entropy", losses_of(Weighting::NONE, 1, None)),
        ("smoothed cross entropy", losses_of(Weighting { smoothing: 0.1, ..Weighting::NONE }, 1, None)),
        ("divergence", losses_of(divergence, 1, None)),
        ("divergence of shared tokens", losses_of(divergence, 1, Some(590))),
        ("divergence of two teachers", losses_of(divergence, 2, None)),
        ("divergence of sampled tokens", losses_of(divergence, 0, None)),
        ("skew divergence", losses_of(Weighting { skew_divergence: 0.5, ..Weighting::NONE }, 1, Some(590))),
        ("reverse divergence", losses_of(Weighting { reverse_divergence: 0.5, ..Weighting::NONE }, 1, None)),
        ("logits", losses_of(Weighting { logits: 0.5, ..Weighting::NONE }, 1, None)),
        ("hidden states", hidden_of(Form::Relative)),
        ("hidden states by cosine", hidden_of(Form::Cosine)),
        (
            "relations",
            digest(80, |input, _| {
                let present = (0..sequences * length).map(|n| n < length + 50).collect();
                let layout =
                    Layout { widths: [40, 20, 20], sequences, length, present: Some(Arc::new(present)), causal: false };
                let related = Related {
                    teacher: tensor(random(31, sequences * length * 96), &[sequences, length, 96]),
                    widths: [48, 24, 24],
                    heads: 4,
                    factor: 0.3,
                };
                relations(input, layout, &related).0
            }),
        ),
    ];
    let found: Vec<String> = found.into_iter().map(|(name, digest)| format!("{name}: {digest}")).collect();
    assert_eq!(found.join("\n"), RECORDED.trim());
}

const RECORDED: &str = "
embedding: bf4beb2ca5db16f9
RMSNorm of heads: 2584eae79eafa5d0
RMSNorm from one: bfc222965578b992
LayerNorm: aff83defba92f1e7
experts: dc8ff32091c9432e
linear: 2d12ac8f1a1aaf62
causal attention: b03e1172d03ea30a
attention in a window: 97db18544b6b1bbc
padded attention: 7205739b34f3e4ac
SiLU: 18bad3b70c0e4670
GELU: 827e6d20a7173e80
GELU by tanh: a9186d3ddefee392
tanh: b4826dad0919e82d
convolution: 79393b1d91e02de1
cross entropy: f05f64ec8481e83b
smoothed cross entropy: 54902f25c005369e
divergence: bf7493a5fbeade15
divergence of shared tokens: 16b9d2e9def08d3f
divergence of two teachers: b3a1ebb4e06e35c0
divergence of sampled tokens: d64eba0b4ec6ff00
skew divergence: e66c6db2e1d32afe
reverse divergence: cded66f9a04d9c05
logits: ce89af79d2ae51af
hidden states: a4cd36ad5a6ca81c
hidden states by cosine: fe57f33a361be672
relations: 796ef711fdacdb03
";
