//! Which tensors of a streamed artifact stay in RAM: the section that docs/streaming.md describes, from shapes alone. What a
//! token reads of a tensor is what a resident tensor saves, so that the choice is a knapsack: the most bytes a token that
//! need not be read, within a number of bytes of RAM.
//!
//! ```text
//! always resident   tensors in f32 (norms, biases, key maps, kernels of convolutions) and the table of token types
//! a token reads     all of a matrix that it is multiplied with; a tile of a table that it is looked up in
//! ```

use super::lower::Lowered;
use crate::model::id::{ParameterId, Part, Role};
use crate::model::size::StoredTensor;
use crate::model::spec::ModelSpec;
use slm_runtime::format::residency::{ResidencyRecord, STREAMED};
use slm_runtime::format::spec::Block;
use slm_runtime::format::tensor::{NO_LAYER, TensorPart, TensorRole};
use slm_runtime::layout::{ALIGNMENT, Layout, Storage, TileShape};
use slm_runtime::streaming::least_buffer;
use std::fmt;
use std::str::FromStr;

/// Bytes of the leaves that buffers are planned for unless a person says otherwise: the smallest of a signature.
const LEAF_BYTES: u64 = 4096;
/// Steps into which the knapsack divides its bytes, at most.
const STEPS: u64 = 1 << 13;

/// How many bytes of weights may stay in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resident {
    /// At most these.
    Bytes(u64),
    /// Those that must.
    Least,
    /// As many as the target's RAM leaves.
    Auto,
}

impl FromStr for Resident {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "least" => Ok(Resident::Least),
            "auto" => Ok(Resident::Auto),
            _ => text.replace('_', "").parse().map(Resident::Bytes).map_err(|_| {
                format!("`{text}` is not a number of bytes; expected bytes (65536, 65_536), `least` or `auto`")
            }),
        }
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resident::Bytes(bytes) => write!(f, "{bytes}"),
            Resident::Least => f.write_str("least"),
            Resident::Auto => f.write_str("auto"),
        }
    }
}

/// What a person asks of a streamed artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streaming {
    /// Bytes of weights in RAM.
    pub resident: Resident,
    /// Bytes of each buffer; by default as few as take a tile with leaves of 4 KiB.
    pub buffer_bytes: Option<u64>,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidencyPlan {
    /// Where each tensor lies in the resident memory, in units of 64 bytes, or [`STREAMED`].
    places: Vec<u32>,
    /// The streamed tensors in the order in which a token reads them.
    order: Vec<u32>,
    /// Bytes of the resident tensors.
    pub resident_bytes: u64,
    /// Bytes of each buffer.
    pub buffer_bytes: u64,
    /// Bytes that a token reads, those of a look-up as a whole tile.
    pub bytes_per_token: u64,
}

/// Why streaming cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResidencyError {
    /// Some tensors are never streamed.
    #[error(
        "--resident {given}: norms, biases, other small tensors and the experts of mixtures always stay in RAM and take \
         {least} bytes; pass --resident {least} or more, or --resident least"
    )]
    TooFew {
        /// Bytes asked for.
        given: u64,
        /// Bytes that they take.
        least: u64,
    },
    /// A buffer holds no tile.
    #[error(
        "--stream-buffer {given}: a buffer takes a tile of every streamed matrix, which are up to {least} bytes; \
         pass --stream-buffer {least} or more, or leave it out"
    )]
    Buffer {
        /// Bytes asked for.
        given: u64,
        /// Bytes of the largest tile.
        least: u64,
    },
    /// Nobody knows how much RAM there is.
    #[error("--resident auto needs the target's `ram_bytes`, which {target} does not state; pass a number of bytes")]
    NoRam {
        /// The target.
        target: String,
    },
}

/// What is known of a tensor, or of both parts of a split one.
struct Item {
    /// Positions in the table.
    tensors: std::ops::Range<usize>,
    bytes: u64,
    tile_bytes: u64,
    /// Bytes that a token reads of it.
    read: u64,
    /// Whether it always stays.
    stays: bool,
}

/// The bytes of the section for a number of tensors, of which `streamed` are in its order.
pub fn section_bytes(tensors: usize, streamed: usize) -> u64 {
    (ResidencyRecord::BYTES + 4 * (tensors + streamed)) as u64
}

/// The least bytes of weights that stay in RAM.
pub fn least_resident(tensors: &[StoredTensor], layout: Layout, spec: &ModelSpec) -> u64 {
    items(tensors, layout, spec).iter().filter(|item| item.stays).map(|item| item.bytes).sum()
}

/// The largest buffer that any choice could need.
pub fn largest_buffer(tensors: &[StoredTensor], layout: Layout, spec: &ModelSpec) -> u64 {
    let items = items(tensors, layout, spec);
    let tiles = items.iter().filter(|item| !item.stays).map(|item| item.tile_bytes);
    tiles.max().map_or(0, |tile| least_buffer(tile, LEAF_BYTES))
}

/// Plans for `budget` bytes of weights in RAM.
///
/// # Errors
/// [`ResidencyError`].
pub fn plan(
    tensors: &[StoredTensor],
    layout: Layout,
    spec: &ModelSpec,
    lowered: &Lowered,
    (budget, buffer): (u64, Option<u64>),
) -> Result<ResidencyPlan, ResidencyError> {
    let items = items(tensors, layout, spec);
    let least: u64 = items.iter().filter(|item| item.stays).map(|item| item.bytes).sum();
    if budget < least {
        return Err(ResidencyError::TooFew { given: budget, least });
    }
    let chosen = choose(&items, budget - least);
    let mut places = vec![STREAMED; tensors.len()];
    let (mut end, mut bytes_per_token, mut largest_tile) = (0, 0, 0);
    for (item, chosen) in items.iter().zip(chosen) {
        if !chosen {
            bytes_per_token += item.read;
            largest_tile = largest_tile.max(item.tile_bytes);
            continue;
        }
        for index in item.tensors.clone() {
            places[index] = (end / ALIGNMENT as u64) as u32;
            end += tensors[index].bytes;
        }
    }
    let buffer_bytes = match (largest_tile, buffer) {
        (0, _) => 0,
        (tile, None) => least_buffer(tile, LEAF_BYTES),
        (tile, Some(given)) if given < tile => return Err(ResidencyError::Buffer { given, least: tile }),
        (_, Some(given)) => given.next_multiple_of(ALIGNMENT as u64),
    };
    let order = order(tensors, spec, lowered).into_iter().filter(|&index| places[index as usize] == STREAMED).collect();
    Ok(ResidencyPlan { places, order, resident_bytes: end, buffer_bytes, bytes_per_token })
}

impl ResidencyPlan {
    /// The section.
    pub fn to_section(&self) -> Vec<u8> {
        let record = ResidencyRecord {
            resident_bytes: self.resident_bytes,
            buffer_bytes: self.buffer_bytes as u32,
            order_count: self.order.len() as u32,
            reserved: [0; 16],
        };
        let entries = self.places.iter().chain(&self.order).flat_map(|entry| entry.to_le_bytes());
        record.to_bytes().into_iter().chain(entries).collect()
    }

    /// Its length.
    pub fn section_bytes(&self) -> u64 {
        section_bytes(self.places.len(), self.order.len())
    }
}

fn items(tensors: &[StoredTensor], layout: Layout, spec: &ModelSpec) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        let tile = TileShape::new(tensor.storage, layout, tensor.rows, tensor.columns).map_or(0, |tile| tile.stride);
        let tile = tile as u64;
        let (stays, looked_up) = match tensor.id {
            _ if tensor.storage == Storage::F32 => (true, false),
            // Which experts a token has is not known beforehand.
            ParameterId::Linear(id, Part::Weight) => {
                (id.role == Role::TypeEmbedding || spec.mixture(id).is_some(), !spec.multiplies(id))
            }
            _ => (false, false),
        };
        let read = if looked_up { tile } else { tensor.bytes };
        match items.last_mut() {
            Some(item) if index > 0 && tensors[index - 1].key == tensor.key => {
                item.tensors.end = index + 1;
                item.bytes += tensor.bytes;
                item.tile_bytes = item.tile_bytes.max(tile);
                item.read = if looked_up { item.read.max(read) } else { item.read + read };
            }
            _ => items.push(Item { tensors: index..index + 1, bytes: tensor.bytes, tile_bytes: tile, read, stays }),
        }
    }
    items
}

/// Which items stay: all that must, and of the others those that save the most bytes a token within `room`. Sizes are
/// rounded up to steps of the room, and what that leaves is filled with what still fits, most saved first.
fn choose(items: &[Item], room: u64) -> Vec<bool> {
    let mut chosen: Vec<bool> = items.iter().map(|item| item.stays).collect();
    let others: Vec<usize> = (0..items.len()).filter(|&index| !items[index].stays).collect();
    let all: u64 = others.iter().map(|&index| items[index].bytes).sum();
    if all <= room {
        return vec![true; items.len()];
    }
    let step = room.div_ceil(STEPS).max(ALIGNMENT as u64);
    let steps = (room / step) as usize;
    // best[s]: the most that is saved with s steps; taken[i][s]: whether the i-th of the others is among them.
    let mut best = vec![0u64; steps + 1];
    let mut taken = vec![vec![false; steps + 1]; others.len()];
    for (taken, &index) in taken.iter_mut().zip(&others) {
        let item = &items[index];
        let weight = item.bytes.div_ceil(step) as usize;
        for at in (weight..=steps).rev() {
            let with = best[at - weight] + item.read;
            if with > best[at] {
                (best[at], taken[at]) = (with, true);
            }
        }
    }
    let (mut at, mut left) = (steps, room);
    for (taken, &index) in taken.iter().zip(&others).rev() {
        if taken[at] {
            chosen[index] = true;
            at -= items[index].bytes.div_ceil(step) as usize;
            left -= items[index].bytes;
        }
    }
    let mut rest: Vec<usize> = others.into_iter().filter(|&index| !chosen[index]).collect();
    rest.sort_by_key(|&index| (std::cmp::Reverse(items[index].read), index));
    for index in rest {
        if items[index].bytes <= left {
            chosen[index] = true;
            left -= items[index].bytes;
        }
    }
    chosen
}

/// The matrices of a model in the order in which a session multiplies with them: of those that read the same input first
/// those of 8-bit activations, then those of 16.
fn order(tensors: &[StoredTensor], spec: &ModelSpec, lowered: &Lowered) -> Vec<u32> {
    use TensorRole as R;
    let mut order = Vec::new();
    let mut add = |layer: Option<usize>, roles: &[TensorRole]| {
        for wide in [false, true] {
            for &role in roles {
                let layer = layer.map_or(NO_LAYER, |layer| layer as u16);
                let of_role = |tensor: &StoredTensor| {
                    let key = tensor.key;
                    (key.layer, key.role, key.part) == (layer, role, TensorPart::Weight)
                        && (tensor.activation_bits == 16) == wide
                };
                let found = tensors.iter().enumerate().filter(|(_, tensor)| of_role(tensor));
                order.extend(found.map(|(index, _)| index as u32));
            }
        }
    };
    for (index, layer) in lowered.layers.iter().enumerate() {
        let at = Some(index);
        if layer.block == Block::Conv as u8 {
            add(at, &[R::ConvIn]);
            add(at, &[R::ConvOut]);
        } else {
            match lowered.model.is_decoder() {
                true => add(at, &[R::Key, R::Value, R::Query]),
                false => {
                    add(at, &[R::Key, R::Value]);
                    add(at, &[R::Query]);
                }
            }
            add(at, &[R::AttentionOutput]);
        }
        add(at, if layer.is_gated() { &[R::Gate, R::Up] } else { &[R::Up] });
        add(at, &[R::Down]);
    }
    add(None, &[R::MlmTransform]);
    let tied = lowered.model.has_tied_head();
    let table_is_head = tied && spec.multiplies(crate::model::id::LinearId::global(Role::TokenEmbedding));
    add(None, if table_is_head { &[R::EmbedToken] } else { &[R::LmHead] });
    add(None, &[R::Pooler]);
    add(None, &[R::Classifier]);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(bytes: u64, read: u64) -> Item {
        Item { tensors: 0..1, bytes, tile_bytes: 64, read, stays: false }
    }

    proptest! {
        /// Against every subset.
        #[test]
        fn the_choice_saves_the_most(
            sizes in proptest::collection::vec((1u64..40, 0u64..4), 1..10),
            room in 0u64..200,
        ) {
            let items: Vec<Item> = sizes.iter().map(|&(units, less)| item(units * 64, units * 64 / (1 + less))).collect();
            let room = room * 64;
            let sum = |subset: u32, of: &dyn Fn(&Item) -> u64| -> u64 {
                items.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1).map(|(_, item)| of(item)).sum()
            };
            let fitting = (0..1u32 << items.len()).filter(|&subset| sum(subset, &|item| item.bytes) <= room);
            let best = fitting.map(|subset| sum(subset, &|item| item.read)).max();
            let chosen = choose(&items, room);
            let chosen = (0..items.len()).filter(|&n| chosen[n]).fold(0, |subset, n| subset | 1 << n);
            prop_assert!(sum(chosen, &|item| item.bytes) <= room);
            prop_assert_eq!(Some(sum(chosen, &|item| item.read)), best);
        }
    }
}
