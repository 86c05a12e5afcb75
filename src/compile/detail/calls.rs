//! The kernels that one token of an artifact calls, with their sizes: the runtime's own executor runs once with a table
//! whose entries count and compute nothing, so what a layer does is described once, in the executor. Attention is counted
//! over one position and set to as many as are seen.

use super::DetailError;
use crate::artifact::host::SessionMemory;
use slm_runtime::format::artifact::{ArtifactView, Matrix};
use slm_runtime::format::spec::{Block, LayerCacheFormat, NormPlacement, Output};
use slm_runtime::format::tensor::{NO_LAYER, TensorKey, TensorPart, TensorRole};
use slm_runtime::kernels::columns::Columns;
use slm_runtime::kernels::{Activations, Factors, Kernels, Rows, Sums, Width};
use slm_runtime::layout::{BLOCK_COLUMNS, Coding, Storage};
use slm_runtime::numerics::{Curve, F32Bytes, NumericRange, Rotary};
use slm_runtime::session::Session;
use std::cell::RefCell;
use std::ops::Range;

/// The class that a call counts under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Embedding,
    Norms,
    Rounding,
    Linears8,
    Linears4,
    Attention,
    Softmax,
    Activation,
    Sums,
    Head8,
    Head4,
    Choice,
    Executor,
}

impl Class {
    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Embedding => "embedding",
            Class::Norms => "norms",
            Class::Rounding => "rows to integers",
            Class::Linears8 => "linears, 8 bits",
            Class::Linears4 => "linears, 4 bits",
            Class::Attention => "attention",
            Class::Softmax => "softmax",
            Class::Activation => "activation",
            Class::Sums => "sums",
            Class::Head8 => "head, 8 bits",
            Class::Head4 => "head, 4 bits",
            Class::Choice => "choice",
            Class::Executor => "executor",
        }
    }
}

/// Calls of one unit of work; its cost is linear in the two numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// `None`: embedding, head and choice.
    pub(super) layer: Option<usize>,
    pub(super) class: Class,
    /// As the probe of tests/cross names it.
    pub(super) unit: String,
    pub(super) first: u64,
    pub(super) second: u64,
}

/// What the counting table saw.
#[derive(Clone, Copy)]
enum Seen {
    /// Address of the matrix, storage, width, rows and columns with their padding.
    Multiply(usize, Storage, Width, u64, u64),
    Quantize(Width, u64),
    RmsNorm(u64),
    LayerNorm(u64),
    Activate(u64),
    Gate(u64),
    Rotate(u64),
    Add(u64),
    /// Width of the head.
    Scores(u64),
    Weights,
    Mix(u64),
}

thread_local! {
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
}

fn see(seen: Seen) {
    SEEN.with_borrow_mut(|all| all.push(seen));
}

fn multiply(matrix: &Matrix<'_>, input: &Activations<'_>, tiles: Range<usize>, _: &mut Columns<'_>) {
    let (rows, columns) = (tiles.len() * matrix.shape.layout.rows(), matrix.shape.blocks * BLOCK_COLUMNS);
    let address = matrix.bytes.as_ptr().addr();
    see(Seen::Multiply(address, matrix.shape.storage, input.width, rows as u64, columns as u64));
}

fn quantize(x: &[f32], _: &mut [i8], _: &mut [i32]) -> Result<f32, NumericRange> {
    see(Seen::Quantize(Width::Bits8, x.len() as u64));
    Ok(1.0)
}

fn quantize_a16(x: &[f32], _: &mut [i8], _: &mut [i32]) -> Result<f32, NumericRange> {
    see(Seen::Quantize(Width::Bits16, x.len() as u64));
    Ok(1.0)
}

fn rms_norm(x: &mut [f32], _: F32Bytes<'_>, _: f32) -> Result<(), NumericRange> {
    see(Seen::RmsNorm(x.len() as u64));
    Ok(())
}

fn layer_norm(x: &mut [f32], _: F32Bytes<'_>, _: F32Bytes<'_>, _: f32) -> Result<(), NumericRange> {
    see(Seen::LayerNorm(x.len() as u64));
    Ok(())
}

fn activate(_: &Curve<'_>, x: &mut [f32]) {
    see(Seen::Activate(x.len() as u64));
}

fn gate(_: &Curve<'_>, x: &mut [f32], _: &[f32]) {
    see(Seen::Gate(x.len() as u64));
}

fn rotate(_: &Rotary<'_>, head: &mut [f32], _: usize) {
    see(Seen::Rotate(head.len() as u64));
}

fn add(x: &mut [f32], _: &[f32]) {
    see(Seen::Add(x.len() as u64));
}

fn scores(_: Rows<'_>, query: &[i8], _: f32, _: &mut [u32]) -> f32 {
    see(Seen::Scores(query.len() as u64));
    0.0
}

fn weights(_: &[f32], _: f32, _: &mut [u32]) -> (u64, f32) {
    see(Seen::Weights);
    // Not 0, after which values would not be mixed.
    (1, 1.0)
}

fn mix(_: Rows<'_>, _: &[u32], _: Factors, _: Sums<'_>, out: &mut [f32]) {
    see(Seen::Mix(out.len() as u64));
}

/// Heads below this width are units of their own: vectors of 16 bytes do not fit into them.
const NARROW: u64 = 16;

/// Counts, and leaves every output as it is.
static COUNTING: Kernels = Kernels {
    name: "counting",
    layout: None,
    multiply,
    quantize,
    quantize_a16,
    rms_norm,
    layer_norm,
    activate,
    gate,
    rotate,
    add,
    scores,
    weights,
    mix,
};

/// The calls of the token at a position, with what is done outside of kernels and measured by itself: rows of tables, key
/// maps, the choice of the likeliest token.
///
/// # Errors
/// [`DetailError`]: a part of the model has no measured costs, or the runtime refuses it.
pub(super) fn calls(view: &ArtifactView<'_>, position: usize) -> Result<Vec<Call>, DetailError> {
    let spec = view.spec();
    refuse(view)?;
    SEEN.with_borrow_mut(Vec::clear);
    let mut memory = SessionMemory::for_artifact(view);
    Session::new(view, &COUNTING, memory.as_mut_slice())?.step(&[0])?;
    let seen = SEEN.take();

    let tensors: Vec<(Range<usize>, TensorKey)> = (0..view.tensor_count())
        .filter_map(|index| {
            let bytes = view.tensor_bytes(&view.tensor_record(index))?.as_ptr_range();
            Some((bytes.start.addr()..bytes.end.addr(), view.tensor_key(index)?))
        })
        .collect();
    let tensor = |address: usize| tensors.iter().find(|(range, _)| range.contains(&address)).map(|(_, key)| *key);
    let mut all = Assigned { view, position, calls: lookups(view)?, pending: Vec::new(), previous: None };
    for (at, &one) in seen.iter().enumerate() {
        let next_is_add = matches!(seen.get(at + 1), Some(Seen::Add(_)));
        let after_add = at > 0 && matches!(seen[at - 1], Seen::Add(_));
        match one {
            Seen::Multiply(address, storage, width, rows, columns) => {
                let key = tensor(address).ok_or(DetailError::Unnamed)?;
                let layer = (key.layer != NO_LAYER).then_some(usize::from(key.layer));
                all.flush(layer);
                all.product(layer, storage, width, rows, rows * columns);
                let bias = TensorKey { part: TensorPart::Bias, ..key };
                let bias = if key.role == TensorRole::EmbedToken {
                    TensorKey::global(TensorRole::LmHead, TensorPart::Bias)
                } else {
                    bias
                };
                if view.tensor(bias).is_some() {
                    all.add(layer, Class::Sums, "add".to_owned(), rows, 0);
                }
                all.previous = Some(layer);
            }
            Seen::Add(_) | Seen::Activate(_) | Seen::Gate(_) => all.kernel(all.previous.flatten(), one),
            Seen::RmsNorm(_) | Seen::LayerNorm(_) if next_is_add || after_add && all.norms_after() => {
                all.kernel(all.previous.flatten(), one);
            }
            _ => all.pending.push(one),
        }
    }
    all.flush(None);
    let mut calls = all.calls;
    calls.extend(key_maps(view));
    calls.push(Call {
        layer: None,
        class: Class::Choice,
        unit: "choose".to_owned(),
        first: u64::from(spec.output_width),
        second: 0,
    });
    Ok(calls)
}

/// Parts that the tables do not have.
fn refuse(view: &ArtifactView<'_>) -> Result<(), DetailError> {
    if !view.spec().is_decoder() {
        return Err(DetailError::Unmeasured { what: "an encoder, which reads a text at once and not token by token" });
    }
    if view.spec().pooling().is_some() {
        return Err(DetailError::Unmeasured { what: "a model that pools its states" });
    }
    if view.spec().output != Output::LanguageModel as u8 {
        return Err(DetailError::Unmeasured { what: "a model whose output is not logits of tokens" });
    }
    for index in 0..view.spec().layers as usize {
        let layer = view.layer(index);
        if layer.block == Block::Conv as u8 {
            return Err(DetailError::Unmeasured { what: "short convolutions" });
        }
        if layer.is_mixture() {
            return Err(DetailError::Unmeasured { what: "mixtures of experts" });
        }
        if LayerCacheFormat::from_number(layer.cache_format).is_some_and(LayerCacheFormat::has_nibble_values) {
            return Err(DetailError::Unmeasured { what: "a cache with values in 4 bits (--kv v4)" });
        }
    }
    Ok(())
}

/// Rows of the tables that are looked up.
fn lookups(view: &ArtifactView<'_>) -> Result<Vec<Call>, DetailError> {
    let spec = view.spec();
    let mut calls = Vec::new();
    let token = view.parts(TensorKey::global(TensorRole::EmbedToken, TensorPart::Weight))?;
    let mut storages = vec![token.first.shape.storage];
    if spec.learned_positions == 1 {
        storages.push(view.matrix(TensorKey::global(TensorRole::EmbedPosition, TensorPart::Weight))?.shape.storage);
    }
    for storage in storages {
        let unit = format!("lookup.{}", storage.def().name);
        calls.push(Call { layer: None, class: Class::Embedding, unit, first: u64::from(spec.hidden), second: 0 });
    }
    Ok(calls)
}

/// Keys and queries of layers whose keys are mapped.
fn key_maps(view: &ArtifactView<'_>) -> Vec<Call> {
    let of_layer = |index: usize| {
        let layer = view.layer(index);
        let heads = [("map_key", layer.key_value_heads), ("map_query", layer.heads)];
        let call = move |(unit, count): (&str, u32)| {
            let (unit, first) = (unit.to_owned(), u64::from(layer.head_dim));
            vec![Call { layer: Some(index), class: Class::Attention, unit, first, second: 0 }; count as usize]
        };
        heads.into_iter().filter(move |_| layer.key_map == 1).flat_map(call)
    };
    (0..view.spec().layers as usize).flat_map(of_layer).collect()
}

/// Calls with their layers: those before a product are of its layer, sums and curves of the product before them.
struct Assigned<'v, 'a> {
    view: &'v ArtifactView<'a>,
    position: usize,
    calls: Vec<Call>,
    pending: Vec<Seen>,
    /// Layer of the last product.
    previous: Option<Option<usize>>,
}

impl Assigned<'_, '_> {
    fn norms_after(&self) -> bool {
        let layer = self.previous.flatten().map(|index| self.view.layer(index));
        layer.is_some_and(|layer| layer.norm_placement == NormPlacement::After as u8)
    }

    fn flush(&mut self, layer: Option<usize>) {
        for seen in std::mem::take(&mut self.pending) {
            self.kernel(layer, seen);
        }
    }

    fn add(&mut self, layer: Option<usize>, class: Class, unit: String, first: u64, second: u64) {
        self.calls.push(Call { layer, class, unit, first, second });
    }

    fn product(&mut self, layer: Option<usize>, storage: Storage, width: Width, rows: u64, macs: u64) {
        let eight = storage.def().coding == Coding::Byte;
        let class = match (layer, eight) {
            (Some(_), true) => Class::Linears8,
            (Some(_), false) => Class::Linears4,
            (None, true) => Class::Head8,
            (None, false) => Class::Head4,
        };
        self.add(layer, class, format!("product.{}.a{}", storage.def().name, bits(width)), rows, macs);
    }

    fn kernel(&mut self, layer: Option<usize>, seen: Seen) {
        let window = layer.map_or(0, |index| self.view.layer(index).window as usize);
        let all = self.position + 1;
        let positions = if window > 0 { all.min(window) } else { all } as u64;
        let (class, unit, first, second) = match seen {
            Seen::Multiply(_, storage, width, rows, columns) => {
                return self.product(layer, storage, width, rows, rows * columns);
            }
            Seen::Quantize(Width::Bits8, length) => (Class::Rounding, "quantize.a8", length, 0),
            Seen::Quantize(Width::Bits16, length) => (Class::Rounding, "quantize.a16", length, 0),
            Seen::RmsNorm(length) => (Class::Norms, "rms_norm", length, 0),
            Seen::LayerNorm(length) => (Class::Norms, "layer_norm", length, 0),
            Seen::Activate(length) => (Class::Activation, "activate", length, 0),
            Seen::Gate(length) => (Class::Activation, "gate", length, 0),
            Seen::Rotate(length) => (Class::Attention, "rotate", length, 0),
            Seen::Add(length) => (Class::Sums, "add", length, 0),
            Seen::Scores(head) if head < NARROW => (Class::Attention, "scores.narrow", positions, positions * head),
            Seen::Scores(head) => (Class::Attention, "scores", positions, positions * head),
            Seen::Weights => (Class::Softmax, "weights", positions, 0),
            Seen::Mix(head) if head < NARROW => (Class::Attention, "mix.narrow", positions, positions * head),
            Seen::Mix(head) => (Class::Attention, "mix", positions, positions * head),
        };
        self.add(layer, class, unit.to_owned(), first, second);
        if let Seen::Mix(head) = seen
            && head >= NARROW
        {
            self.add(layer, class, "mix.head".to_owned(), head, 0);
        }
    }
}

fn bits(width: Width) -> u32 {
    match width {
        Width::Bits8 => 8,
        Width::Bits16 => 16,
    }
}
