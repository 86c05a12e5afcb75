//! A layer's structure, once for whatever computes it: norms, what mixes positions (attention or a short convolution), the
//! feed-forward network and the residual sums, in four steps, each from the input of some linears to the next such input.
//!
//! ```text
//! hidden ─ norm ─> [query, key, value] ─ attention ─> [output] ─ sum, norm ─> [gate, up] ─ product ─> [down] ─ sum ─> hidden
//!         enter    Mix                                MixOutput               Ffn                     FfnOutput
//! ```
//!
//! A decoder's layer of an encoder-decoder has two steps more before the network: attention to the encoder's states and its output.
//!
//! A layer may halt before every step, with values of its own changed in between: calibration does, for many sequences.

use super::Observer;
use crate::model::id::{LinearId, NormSite, Role};
use crate::model::spec::{AttentionSpec, LayerSpec, Mixer, ModelSpec, Norm, NormPlacement};

/// A part of a layer, named for the linears whose input it begins with. In the order of [`Step::ALL`] they are the inputs
/// of a layer of [`crate::model::graph::Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Linears before positions are mixed: query, key and value, or the input of a convolution.
    Mix,
    /// The linear after.
    MixOutput,
    /// The query of attention to the encoder's states, whose keys and values are read from those.
    Cross,
    /// The linear after.
    CrossOutput,
    /// Up, and gate.
    Ffn,
    /// Down.
    FfnOutput,
}

impl Step {
    /// A layer of a model with one stack, or of an encoder.
    pub const ALL: [Step; 4] = [Step::Mix, Step::MixOutput, Step::Ffn, Step::FfnOutput];
    /// A layer that attends to an encoder's states.
    const ACROSS: [Step; 6] = [Step::Mix, Step::MixOutput, Step::Cross, Step::CrossOutput, Step::Ffn, Step::FfnOutput];
}

/// A layer computed up to the input of a step's linears. After the last step both are the layer's output.
#[derive(Clone, Debug)]
pub struct Halted<V> {
    /// The residual stream.
    pub hidden: V,
    /// What the linears of the next step read.
    pub input: V,
}

/// The operations of a layer.
pub(super) trait Operations {
    /// Activations, (batch, length, width).
    type Value: Clone;
    /// What the layers of a batch share.
    type Context;
    /// What a layer needs of earlier positions.
    type Past;

    /// The model.
    fn model(&self) -> &ModelSpec;

    /// The norm of a layer at a site.
    fn normed(&self, input: &Self::Value, norm: Norm, layer: u16, site: NormSite) -> Self::Value;

    /// a + b
    fn sum(&self, a: Self::Value, b: Self::Value) -> Self::Value;

    /// input · matrixᵀ + bias, added to `residual` where there is one.
    fn project(
        &self,
        id: LinearId,
        input: &Self::Value,
        residual: Option<Self::Value>,
        observer: &mut dyn Observer,
    ) -> Self::Value;

    /// The input of the linears that come before positions are mixed, made of the normed hidden states.
    fn mixer_input(&self, layer: usize, normed: Self::Value, context: &Self::Context) -> Self::Value;

    /// From that input to the one of the linear after: attention over the positions, and those of `past`; or a convolution.
    fn mix(
        &self,
        layer: usize,
        input: Self::Value,
        context: &Self::Context,
        past: Option<&mut Self::Past>,
        observer: &mut dyn Observer,
    ) -> Self::Value;

    /// From the query's input to that of the linear after: attention to the encoder's states, which the context has, or their keys
    /// and values, which `past` has kept.
    fn attend_across(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: Self::Value,
        context: &Self::Context,
        past: Option<&mut Self::Past>,
        observer: &mut dyn Observer,
    ) -> Self::Value;

    /// act(up(x)), or act(gate(x)) · up(x).
    fn widen(&self, layer: usize, input: Self::Value, observer: &mut dyn Observer) -> Self::Value;

    /// The beginning of a layer.
    fn enter(&self, layer: usize, hidden: Self::Value, context: &Self::Context) -> Halted<Self::Value> {
        let spec = &self.model().layers[layer];
        let normed = match spec.norm_placement.is_before_mixer() {
            true => self.layer_norm(spec, &hidden, layer, before(spec)),
            false => hidden.clone(),
        };
        Halted { input: self.mixer_input(layer, normed, context), hidden }
    }

    /// One step.
    fn step(
        &self,
        layer: usize,
        step: Step,
        halted: Halted<Self::Value>,
        context: &Self::Context,
        past: Option<&mut Self::Past>,
        observer: &mut dyn Observer,
    ) -> Halted<Self::Value> {
        let Halted { hidden, input } = halted;
        let spec = &self.model().layers[layer];
        match step {
            Step::Mix => Halted { input: self.mix(layer, input, context, past, observer), hidden },
            Step::Cross => match &spec.mixer {
                Mixer::Attention(attention) => {
                    Halted { input: self.attend_across(layer, attention, input, context, past, observer), hidden }
                }
                Mixer::Conv(_) => Halted { input, hidden },
            },
            Step::Ffn => Halted { input: self.widen(layer, input, observer), hidden },
            Step::CrossOutput => {
                let sites = [NormSite::Cross; 2];
                let hidden = self.onto_residual(layer, Role::CrossOutput, Halted { hidden, input }, sites, observer);
                Halted { input: self.next_input(spec, &hidden, layer, NormSite::Ffn), hidden }
            }
            Step::MixOutput => {
                let (role, of_output) = match spec.mixer {
                    Mixer::Attention(_) => (Role::Output, NormSite::AttentionOutput),
                    Mixer::Conv(_) => (Role::ConvOut, NormSite::Conv),
                };
                let sites = [before(spec), of_output];
                let next = match self.model().attends_across(layer) {
                    true => NormSite::Cross,
                    false => spec.norm_placement.of_network(),
                };
                let of_network = |hidden: &Self::Value| self.next_input(spec, hidden, layer, next);
                // Side by side, the network reads what attention has read.
                let beside = spec.norm_placement.is_side_by_side().then(|| of_network(&hidden));
                let hidden = self.onto_residual(layer, role, Halted { hidden, input }, sites, observer);
                Halted { input: beside.unwrap_or_else(|| of_network(&hidden)), hidden }
            }
            Step::FfnOutput => {
                let sites = [NormSite::Ffn, NormSite::FfnOutput];
                let hidden = self.onto_residual(layer, Role::Down, Halted { hidden, input }, sites, observer);
                Halted { input: hidden.clone(), hidden }
            }
        }
    }

    /// The whole layer.
    fn layer(
        &self,
        layer: usize,
        hidden: Self::Value,
        context: &Self::Context,
        mut past: Option<&mut Self::Past>,
        observer: &mut dyn Observer,
    ) -> Self::Value {
        let mut halted = self.enter(layer, hidden, context);
        let steps: &[Step] = if self.model().attends_across(layer) { &Step::ACROSS } else { &Step::ALL };
        for &step in steps {
            halted = self.step(layer, step, halted, context, past.as_deref_mut(), observer);
        }
        halted.hidden
    }

    /// A linear whose output is added to the residual stream; norms of the sum or of the output stand at the sites.
    fn onto_residual(
        &self,
        layer: usize,
        role: Role,
        Halted { hidden, input }: Halted<Self::Value>,
        [of_sum, of_output]: [NormSite; 2],
        observer: &mut dyn Observer,
    ) -> Self::Value {
        let spec = &self.model().layers[layer];
        let id = LinearId::layer(layer, role);
        match spec.norm_placement {
            NormPlacement::Pre | NormPlacement::Beside | NormPlacement::Common | NormPlacement::Network => {
                self.project(id, &input, Some(hidden), observer)
            }
            NormPlacement::Post => {
                self.layer_norm(spec, &self.project(id, &input, Some(hidden), observer), layer, of_sum)
            }
            NormPlacement::Around | NormPlacement::Added => {
                let output = self.project(id, &input, None, observer);
                self.sum(hidden, self.layer_norm(spec, &output, layer, of_output))
            }
        }
    }

    /// What the next part reads of the residual stream.
    fn next_input(&self, spec: &LayerSpec, hidden: &Self::Value, layer: usize, site: NormSite) -> Self::Value {
        match spec.norm_placement.is_before_network() {
            true => self.layer_norm(spec, hidden, layer, site),
            false => hidden.clone(),
        }
    }

    /// The layer's norm at a site.
    fn layer_norm(&self, spec: &LayerSpec, input: &Self::Value, layer: usize, site: NormSite) -> Self::Value {
        self.normed(input, spec.norm, layer as u16, site)
    }
}

/// The norm before positions are mixed, or after their sum.
fn before(spec: &LayerSpec) -> NormSite {
    match spec.mixer {
        Mixer::Attention(_) => NormSite::Attention,
        Mixer::Conv(_) => NormSite::Conv,
    }
}
