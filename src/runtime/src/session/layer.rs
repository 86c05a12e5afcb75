//! What one layer does to rows of the residual stream: keys and values into the cache, attention, feed-forward network.
//! Norms stand before a part, after its residual sum, or before it and on what it adds.

use super::linear::{Norm, Wide};
use super::{Session, SessionError, range};
use crate::attention::Cache;
use crate::format::spec::LayerRecord;
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::numerics::{map_key, map_query};

impl Session<'_, '_> {
    /// Keys and values of `count` residual rows from `row` into the cache, at positions `first..`.
    pub(super) fn read_keys(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        cache_start: usize,
        row: usize,
        count: usize,
        first: usize,
    ) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let out_of_range = |_| range(index);
        self.quantize_input(index, layer, TensorRole::AttentionNorm, row, count)?;
        let context = artifact.spec().context as usize;
        let (heads, head_dim) = (layer.key_value_heads as usize, layer.head_dim as usize);
        let width = heads * head_dim;
        let rotary = artifact.rotary(layer.rotary);
        let part = |part| artifact.vector(TensorKey::layer(index, TensorRole::Key, part));
        let norm = Norm::of_heads(&artifact, index, layer, TensorRole::KeyNorm)?;
        let map = match layer.key_map {
            1 => Some((part(TensorPart::KeyMean)?, part(TensorPart::KeyBalance)?)),
            _ => None,
        };
        for role in [TensorRole::Key, TensorRole::Value] {
            self.linear(TensorKey::layer(index, role, TensorPart::Weight), count, Wide::B)?;
            let end = cache_start + self.cache_bytes(layer);
            let mut cache = Cache::new(&mut self.cache[cache_start..end], layer, context).ok_or(range(index))?;
            for (token, rows) in self.buffers.wide_b[..count * width].chunks_exact_mut(width).enumerate() {
                for (head, vector) in rows.chunks_exact_mut(head_dim).enumerate() {
                    let position = first + token;
                    if role == TensorRole::Value {
                        cache.write_value(head, position, vector).map_err(out_of_range)?;
                        continue;
                    }
                    if let Some(norm) = &norm {
                        norm.apply(vector).map_err(out_of_range)?;
                    }
                    if let Some(rotary) = &rotary {
                        rotary.rotate(vector, position);
                    }
                    if let Some((mean, balance)) = map {
                        let (start, length) = (head * head_dim, head_dim);
                        map_key(vector, mean.slice(start, length), balance.slice(start, length));
                    }
                    cache.write_key(head, position, vector).map_err(out_of_range)?;
                }
            }
        }
        Ok(())
    }

    /// Attention and feed-forward network of `count` residual rows from `row`, which stand at positions `first..`;
    /// a decoder's rows see the positions up to their own, an encoder's all `end`.
    #[expect(clippy::too_many_arguments, reason = "rows and positions differ for decoders and encoders")]
    pub(super) fn mix(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        cache_start: usize,
        row: usize,
        count: usize,
        first: usize,
        end: usize,
    ) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        let (head_dim, heads) = (layer.head_dim as usize, layer.heads as usize);
        let share = heads / layer.key_value_heads as usize;
        let decoder = self.is_decoder();
        // A decoder's activations still hold this chunk's input; an encoder has read the keys of others since.
        if !decoder {
            self.quantize_input(index, layer, TensorRole::AttentionNorm, row, count)?;
        }
        self.linear(key(TensorRole::Query), count, Wide::A)?;
        let rotary = artifact.rotary(layer.rotary);
        let norm = Norm::of_heads(&artifact, index, layer, TensorRole::QueryNorm)?;
        let inverse = match layer.key_map {
            1 => Some(artifact.vector(TensorKey::layer(index, TensorRole::Key, TensorPart::KeyInverse))?),
            _ => None,
        };
        let context = artifact.spec().context as usize;
        let cache_end = cache_start + self.cache_bytes(layer);
        let cache = Cache::new(&mut self.cache[cache_start..cache_end], layer, context).ok_or(range(index))?;
        let queries = &mut self.buffers.wide_a[..count * heads * head_dim];
        for (token, rows) in queries.chunks_exact_mut(heads * head_dim).enumerate() {
            let position = first + token;
            let seen = if decoder { first_seen(layer, position)..position + 1 } else { 0..end };
            for (head, query) in rows.chunks_exact_mut(head_dim).enumerate() {
                if let Some(norm) = &norm {
                    norm.apply(query).map_err(|_| range(index))?;
                }
                if let Some(rotary) = &rotary {
                    rotary.rotate(query, position);
                }
                let key_head = head / share;
                if let Some(inverse) = inverse {
                    map_query(query, inverse.slice(key_head * head_dim, head_dim));
                }
                self.buffers
                    .attention
                    .attend(self.kernels, &cache, key_head, seen.clone(), layer.score_scale, query)
                    .map_err(|_| range(index))?;
            }
        }
        self.quantize_wide_a(count, heads * head_dim).map_err(|_| range(index))?;
        self.linear(key(TensorRole::AttentionOutput), count, Wide::B)?;
        let sites = (TensorRole::AttentionNorm, TensorRole::AttentionOutputNorm);
        self.add_residual(index, layer, sites, row, count)?;
        self.feed_forward(index, layer, row, count)
    }

    pub(super) fn feed_forward(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        row: usize,
        count: usize,
    ) -> Result<(), SessionError> {
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        self.quantize_input(index, layer, TensorRole::FfnNorm, row, count)?;
        let curve = self.curve(layer.activation)?;
        let width = layer.ffn_width as usize;
        if layer.ffn == 2 {
            self.linear(key(TensorRole::Gate), count, Wide::A)?;
            self.linear(key(TensorRole::Up), count, Wide::B)?;
            let gates = &mut self.buffers.wide_a[..count * width];
            for (gate, &up) in gates.iter_mut().zip(&self.buffers.wide_b[..count * width]) {
                *gate = curve.apply(*gate) * up;
            }
        } else {
            self.linear(key(TensorRole::Up), count, Wide::A)?;
            for value in &mut self.buffers.wide_a[..count * width] {
                *value = curve.apply(*value);
            }
        }
        self.quantize_wide_a(count, width).map_err(|_| range(index))?;
        self.linear(key(TensorRole::Down), count, Wide::B)?;
        self.add_residual(index, layer, (TensorRole::FfnNorm, TensorRole::FfnOutputNorm), row, count)
    }
}

/// The first position that a decoder's token at `position` attends to.
fn first_seen(layer: &LayerRecord, position: usize) -> usize {
    if layer.window == 0 { 0 } else { (position + 1).saturating_sub(layer.window as usize) }
}
