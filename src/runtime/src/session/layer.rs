//! One layer over rows of the residual stream: keys and values into the cache, attention, feed-forward network. Norms
//! are applied before a part, after its residual sum, before it and to the rows it adds, or to these alone. Where both
//! parts read the same residual rows, what they add is kept until both are done.

use super::linear::{Destination, Failure, Finish, Input};
use super::{Placed, Session, SessionError, range};
use crate::attention::{Cap, Scoring};
use crate::cache::Cache;
use crate::format::spec::{CurveId, LayerRecord, NormPlacement};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::kernels::parallel::{Rows, each};
use crate::numerics::{map_key, map_query, quantize_nibbles};

/// Multiply-accumulates of attention below which waking other workers does not pay.
const ALONE: usize = 48 * 1024;
/// Fixed cost of a query (norm, rotation, quantization), in units of positions.
const OF_QUERY: usize = 32;

impl Session<'_, '_> {
    /// Writes keys and values of residual rows to the cache, and a decoder's queries, which have the same input, to
    /// `scratch_a`.
    pub(super) fn read_keys(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        cache_start: usize,
        Placed { row, count, first }: Placed,
    ) -> Result<(), SessionError> {
        let width = layer.key_value_heads as usize * layer.head_dim as usize;
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        let input = Input::Residual(self.norm_before(index, layer, TensorRole::AttentionNorm)?, row);
        let products = [
            self.product(key(TensorRole::Key), Destination::B)?,
            self.product(key(TensorRole::Value), Destination::AfterB(width))?,
            self.product(key(TensorRole::Query), Destination::A)?,
        ];
        let products = if self.is_decoder() { &products[..] } else { &products[..2] };
        self.linear(input, products, count, Finish::None).map_err(|stop| stop.at(index))?;
        self.keep_keys(index, layer, cache_start, Placed { row, count, first })
    }

    /// Norms, rotates and maps keys in `scratch_b` and writes them to the cache with the values after them. Never inlined:
    /// what it has on the stack is gone when products are computed.
    #[inline(never)]
    fn keep_keys(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        cache_start: usize,
        Placed { count, first, .. }: Placed,
    ) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let shape = self.cache_shape(layer);
        let (heads, head_dim) = (layer.key_value_heads as usize, layer.head_dim as usize);
        let width = heads * head_dim;
        let rotary = artifact.rotary(layer.rotary);
        let norm = self.head_norm(index, layer, TensorRole::KeyNorm)?;
        let joint = self.joint_norm(index, layer, TensorRole::KeyNorm)?;
        let part = |part| self.vector(TensorKey::layer(index, TensorRole::Key, part));
        let map = match layer.key_map {
            1 => Some((part(TensorPart::KeyMean)?, part(TensorPart::KeyBalance)?)),
            _ => None,
        };
        let end = cache_start + self.cache_bytes(layer);
        let kernels = self.kernels;
        let cache = Cache::new(&mut self.cache[cache_start..end], shape).ok_or(range(index))?;
        let (keys, values) = self.buffers.scratch_b[..2 * count * width].split_at_mut(count * width);
        let scratch = &mut self.scratch[..self.seats];
        let failure = Failure::default();
        if let Some(norm) = &joint {
            each(self.workers, count == 1, scratch, Rows::new(keys, width), |_, row, _| {
                failure.note(norm.apply(kernels, row));
            });
        }
        let mut before = 0;
        for run in shape.runs(first..first + count).into_iter().filter(|run| !run.is_empty()) {
            // Units are (token, head) in the order of a product's columns; the cache is grouped by head.
            let (blocks, part) = ((heads, shape.slots), (run.start, run.len()));
            let of_run = before * width..(before + run.len()) * width;
            let rows = (
                Rows::new(&mut keys[of_run.clone()], head_dim),
                Rows::spread(cache.keys, head_dim, blocks, part),
                Rows::spread(cache.key_scales, 1, blocks, part),
            );
            let alone = count == 1;
            each(self.workers, alone, scratch, rows, |unit, (vector, integers, scale), _| {
                let (token, head) = (before + unit / heads, unit % heads);
                if let Some(norm) = &norm {
                    failure.note(norm.apply(kernels, vector));
                }
                if let Some(rotary) = &rotary {
                    (kernels.rotate)(rotary, vector, first + token);
                }
                if let Some((mean, balance)) = map {
                    let (start, length) = (head * head_dim, head_dim);
                    map_key(vector, mean.slice(start, length), balance.slice(start, length));
                }
                failure.note((kernels.quantize)(vector, integers, &mut []).map(|found| scale[0] = found));
            });
            let rows = (
                Rows::new(&mut values[of_run], head_dim),
                Rows::spread(cache.values, shape.value_bytes(), blocks, part),
                Rows::spread(cache.value_scales, 1, blocks, part),
            );
            each(self.workers, alone, scratch, rows, |_, (vector, integers, scale), _| {
                let result = match shape.nibbles() {
                    true => quantize_nibbles(vector, integers),
                    false => (kernels.quantize)(vector, integers, &mut []),
                };
                failure.note(result.map(|found| scale[0] = found));
            });
            before += run.len();
        }
        failure.result().map_err(|_| range(index))
    }

    /// Attention and feed-forward network of residual rows; a decoder's rows attend to positions up to their own, an
    /// encoder's to all `end`; both within the layer's window.
    pub(super) fn mix(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        cache_start: usize,
        Placed { row, count, first }: Placed,
        end: usize,
    ) -> Result<(), SessionError> {
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        // A decoder's queries were computed with its keys; an encoder has read the keys of other rows since.
        if !self.is_decoder() {
            let input = Input::Residual(self.norm_before(index, layer, TensorRole::AttentionNorm)?, row);
            let products = [self.product(key(TensorRole::Query), Destination::A)?];
            self.linear(input, &products, count, Finish::None).map_err(|stop| stop.at(index))?;
        }
        self.attend(index, layer, cache_start, Placed { row, count, first }, end)?;
        let output = [self.product(key(TensorRole::AttentionOutput), Destination::B)?];
        let width = layer.heads as usize * layer.head_dim as usize;
        self.linear(Input::ScratchA(width), &output, count, Finish::None).map_err(|stop| stop.at(index))?;
        if NormPlacement::from_number(layer.norm_placement).is_some_and(NormPlacement::is_side_by_side) {
            let hidden = self.scratch[0].row.len();
            self.network(index, layer, row, count, Destination::AfterB(hidden))?;
            self.add_both(row, count);
            return Ok(());
        }
        let sites = (TensorRole::AttentionNorm, TensorRole::AttentionOutputNorm);
        self.add_residual(index, layer, sites, row, count)?;
        self.feed_forward(index, layer, row, count)
    }

    /// Replaces queries in `scratch_a` by what they attend to. Never inlined, as [`Session::keep_keys`].
    #[inline(never)]
    fn attend(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        cache_start: usize,
        Placed { count, first, .. }: Placed,
        end: usize,
    ) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let (head_dim, heads) = (layer.head_dim as usize, layer.heads as usize);
        let share = heads / layer.key_value_heads as usize;
        let decoder = self.is_decoder();
        let rotary = artifact.rotary(layer.rotary);
        let norm = self.head_norm(index, layer, TensorRole::QueryNorm)?;
        let joint = self.joint_norm(index, layer, TensorRole::QueryNorm)?;
        let inverse = match layer.key_map {
            1 => Some(self.vector(TensorKey::layer(index, TensorRole::Key, TensorPart::KeyInverse))?),
            _ => None,
        };
        let cap = match layer.score_cap.to_bits() {
            0 => None,
            _ => Some(Cap::new(layer.score_cap, self.curve(CurveId::Silu as u8)?)),
        };
        let scoring = Scoring { scale: layer.score_scale, cap };
        let shape = self.cache_shape(layer);
        let cache_end = cache_start + self.cache_bytes(layer);
        let kernels = self.kernels;
        let cache = Cache::new(&mut self.cache[cache_start..cache_end], shape).ok_or(range(index))?;
        let failure = Failure::default();
        if let Some(norm) = &joint {
            let rows = Rows::new(&mut self.buffers.scratch_a[..count * heads * head_dim], heads * head_dim);
            each(self.workers, count == 1, &mut self.scratch[..self.seats], rows, |_, row, _| {
                failure.note(norm.apply(kernels, row));
            });
        }
        let queries = Rows::new(&mut self.buffers.scratch_a[..count * heads * head_dim], head_dim);
        let alone = count * heads * head_dim * (end + OF_QUERY) < ALONE;
        each(self.workers, alone, &mut self.scratch[..self.seats], queries, |unit, query, scratch| {
            let (position, head) = (first + unit / heads, unit % heads);
            let last = match layer.window {
                _ if decoder => position + 1,
                0 => end,
                window => end.min(position.saturating_add(window as usize)),
            };
            let seen = first_seen(layer, position)..last;
            if let Some(norm) = &norm {
                failure.note(norm.apply(kernels, query));
            }
            if let Some(rotary) = &rotary {
                (kernels.rotate)(rotary, query, position);
            }
            let key_head = head / share;
            if let Some(inverse) = inverse {
                map_query(query, inverse.slice(key_head * head_dim, head_dim));
            }
            failure.note(scratch.attention.attend(kernels, &cache, key_head, seen, scoring, query));
        });
        failure.result().map_err(|_| range(index))
    }

    pub(super) fn feed_forward(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        row: usize,
        count: usize,
    ) -> Result<(), SessionError> {
        self.network(index, layer, row, count, Destination::B)?;
        self.add_residual(index, layer, (TensorRole::FfnNorm, TensorRole::FfnOutputNorm), row, count)
    }

    /// The rows that the feed-forward network adds; a mixture's are at the front of `scratch_b`, the only destination of gated
    /// networks.
    fn network(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        row: usize,
        count: usize,
        destination: Destination,
    ) -> Result<(), SessionError> {
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        let common = layer.norm_placement == NormPlacement::Common as u8;
        let of_network = if common { TensorRole::AttentionNorm } else { TensorRole::FfnNorm };
        let input = Input::Residual(self.norm_before(index, layer, of_network)?, row);
        #[cfg(feature = "mixtures")]
        if layer.is_mixture() {
            return self.mixture(index, layer, input, count);
        }
        let curve = self.curve(layer.activation)?;
        if layer.is_gated() {
            let gate = self.product(key(TensorRole::Gate), Destination::A)?;
            let up = self.product(key(TensorRole::Up), Destination::B)?;
            self.linear(input, &[gate, up], count, Finish::Gate(curve)).map_err(|stop| stop.at(index))?;
        } else {
            let up = self.product(key(TensorRole::Up), Destination::A)?;
            self.linear(input, &[up], count, Finish::Activate(curve)).map_err(|stop| stop.at(index))?;
        }
        let down = [self.product(key(TensorRole::Down), destination)?];
        let width = layer.ffn_width as usize;
        self.linear(Input::ScratchA(width), &down, count, Finish::None).map_err(|stop| stop.at(index))
    }
}

/// The first position that a token at `position` attends to.
fn first_seen(layer: &LayerRecord, position: usize) -> usize {
    if layer.window == 0 { 0 } else { (position + 1).saturating_sub(layer.window as usize) }
}
