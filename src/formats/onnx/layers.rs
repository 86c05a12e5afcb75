//! The layers of a graph: norms, attention, feed-forward network and residual sums, as [`crate::model::forward`] computes them.
//!
//! ```text
//! Pre     x + f(norm(x))         Post    norm(x + f(x))         Around    x + norm(f(norm(x)))
//! Added   x + norm(f(x))         Beside  x + attention(norm(x)) + network(norm(x))
//!                                Common  x + attention(n) + network(n), n = norm(x)
//! ```

use super::attention::Context;
use super::composer::Composer;
use crate::formats::error::ModelFormatError;
use crate::model::id::{LinearId, NormSite, Role};
use crate::model::spec::{LayerSpec, NormPlacement};

impl Composer<'_> {
    /// A layer on hidden states (batch, length, hidden).
    pub(super) fn layer(&mut self, layer: usize, hidden: &str, context: &Context) -> Result<String, ModelFormatError> {
        let spec = self.spec().layers[layer];
        let input = self.before(layer, &spec, NormSite::Attention, hidden)?;
        let mixed = self.attention(layer, &input, context)?;
        let output = self.linear(LinearId::layer(layer, Role::Output), &mixed)?;
        let sites = [NormSite::Attention, NormSite::AttentionOutput];
        let residual = self.onto_residual(layer, &spec, [hidden, &output], sites, "attn.residual")?;
        let input = match spec.norm_placement {
            // The network reads what attention has read.
            NormPlacement::Common => input,
            NormPlacement::Beside => self.before(layer, &spec, NormSite::Ffn, hidden)?,
            _ => self.before(layer, &spec, NormSite::Ffn, &residual)?,
        };
        let hidden = residual;
        let inner = self.widen(layer, &spec, &input)?;
        let output = self.linear(LinearId::layer(layer, Role::Down), &inner)?;
        self.onto_residual(layer, &spec, [&hidden, &output], [NormSite::Ffn, NormSite::FfnOutput], "ffn.residual")
    }

    /// The input of a part of a layer, normed where its norms stand before it.
    fn before(
        &mut self,
        layer: usize,
        spec: &LayerSpec,
        site: NormSite,
        hidden: &str,
    ) -> Result<String, ModelFormatError> {
        let before = match site {
            NormSite::Ffn => spec.norm_placement.is_before_network(),
            _ => spec.norm_placement.is_before_mixer(),
        };
        match before {
            true => self.norm(spec.norm, Some(layer as u16), site, hidden),
            false => Ok(hidden.to_owned()),
        }
    }

    /// The output of a part of a layer added to the hidden states; norms of the sum or of the output stand at the sites.
    fn onto_residual(
        &mut self,
        layer: usize,
        spec: &LayerSpec,
        [hidden, output]: [&str; 2],
        [of_sum, of_output]: [NormSite; 2],
        name: &str,
    ) -> Result<String, ModelFormatError> {
        let (name, number) = (format!("layers.{layer}.{name}"), Some(layer as u16));
        match spec.norm_placement {
            NormPlacement::Pre | NormPlacement::Beside | NormPlacement::Common | NormPlacement::Network => {
                Ok(self.sum(&name, hidden, output))
            }
            NormPlacement::Post => {
                let sum = self.sum(&name, hidden, output);
                self.norm(spec.norm, number, of_sum, &sum)
            }
            NormPlacement::Around | NormPlacement::Added => {
                let normed = self.norm(spec.norm, number, of_output, output)?;
                Ok(self.sum(&name, hidden, &normed))
            }
        }
    }

    /// act(up(x)), or act(gate(x)) · up(x).
    fn widen(&mut self, layer: usize, spec: &LayerSpec, input: &str) -> Result<String, ModelFormatError> {
        let [gate, up] = [Role::Gate, Role::Up].map(|role| LinearId::layer(layer, role));
        let name = format!("layers.{layer}.ffn.inner");
        let activation = spec.ffn.activation;
        if !spec.ffn.gated {
            let up = self.linear(up, input)?;
            return Ok(self.activate(activation, &up, &name));
        }
        let gate = self.linear(gate, input)?;
        let gate = self.activate(activation, &gate, &format!("layers.{layer}.ffn.gated"));
        let up = self.linear(up, input)?;
        Ok(self.graph.node("Mul", &name, &[&gate, &up], Vec::new()))
    }
}
