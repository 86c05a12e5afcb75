//! Configurations of models that are narrower than another: heads, key heads, the width of the feed-forward network and the
//! hidden width under the keys of the family. The width of a head stays. Where the heads no longer share the hidden width
//! among them, it is stated; a family whose configuration cannot state it must keep hidden = heads · head width.

use super::Family;
use super::exits::without_exits;
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, LayerSpec, Mixer, ModelSpec};
use serde_json::{Map, Value, json};

/// Widths that every layer has alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Widths {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub key_heads: usize,
    /// Width of the feed-forward network.
    pub ffn: usize,
    /// Width of the residual stream.
    pub hidden: usize,
}

/// Keys of the widths of a family.
#[derive(Clone, Copy, Debug)]
pub struct WidthKeys {
    /// Number of query heads.
    pub heads: &'static str,
    /// Number of key heads; `None` where there are as many as query heads.
    pub key_value_heads: Option<&'static str>,
    /// Width of a head; `None` where it is always the hidden width over the heads.
    pub head_dim: Option<&'static str>,
    /// Width of the feed-forward network.
    pub ffn: &'static str,
    /// Hidden width.
    pub hidden: &'static str,
    /// Keys that say the hidden width again, where they are stated.
    pub hidden_copies: &'static [&'static str],
    /// Keys that say the width of the network again, where they are stated.
    pub ffn_copies: &'static [&'static str],
    /// A flag by which the network's width is another than stated; it becomes false.
    pub ffn_adjusted: Option<&'static str>,
}

impl WidthKeys {
    /// As many key heads as query heads, for a family whose heads share the hidden width.
    pub const fn shared(heads: &'static str, ffn: &'static str, hidden: &'static str) -> Self {
        WidthKeys {
            heads,
            key_value_heads: None,
            head_dim: None,
            ffn,
            hidden,
            hidden_copies: &[],
            ffn_copies: &[],
            ffn_adjusted: None,
        }
    }
}

impl Widths {
    /// The widths of a model: of its first layer with attention, and of its first network. Every family has them alike in
    /// all layers. A model of convolutions alone counts as one head.
    pub fn of(spec: &ModelSpec) -> Self {
        let attention = attention_of(spec);
        Widths {
            heads: attention.map_or(1, |attention| attention.heads),
            key_heads: attention.map_or(1, |attention| attention.key_value_heads),
            ffn: spec.layers.first().map_or(0, |layer| layer.ffn.width),
            hidden: spec.hidden,
        }
    }

    /// The specification with these widths; the width of a head, its scale and everything else stay.
    pub fn applied(self, spec: &ModelSpec) -> ModelSpec {
        let layer = |layer: &LayerSpec| {
            let mut layer = *layer;
            layer.ffn.width = self.ffn;
            if let Mixer::Attention(attention) = &mut layer.mixer {
                (attention.heads, attention.key_value_heads) = (self.heads, self.key_heads);
            }
            layer
        };
        // Tables that are narrower than the layers stay as they are.
        let embedding_width = if spec.projects_embeddings() { spec.embedding_width } else { self.hidden };
        let layers = spec.layers.iter().map(layer).collect();
        ModelSpec { hidden: self.hidden, embedding_width, layers, ..spec.clone() }
    }
}

/// The attention of the first layer that has one.
fn attention_of(spec: &ModelSpec) -> Option<&AttentionSpec> {
    spec.layers.iter().find_map(LayerSpec::attention)
}

/// The configuration with other widths, under the keys of its family.
///
/// # Errors
/// A refused configuration, experts of another width, and [`ConfigError::HeadWidth`].
pub fn with_widths(config: &Config, widths: Widths) -> Result<Config, ConfigError> {
    let family = Family::of(config)?;
    let before = family.read(config)?;
    let own = Widths::of(&before);
    if widths == own {
        return Ok(config.clone());
    }
    let keys = family.widths;
    if before.has_experts() && widths.ffn != own.ffn {
        return Err(config.unsupported(keys.ffn, family.model_type, "students that keep the width of their experts"));
    }
    let of_one = widths.ffn / before.layers.first().map_or(1, |layer| layer.ffn.experts());
    let mut map = config.map().clone();
    without_exits(&mut map);
    let head_dim = attention_of(&before).map(|attention| attention.head_dim);
    if let (None, Some(head_dim)) = (keys.head_dim, head_dim)
        && widths.heads * head_dim != widths.hidden
    {
        let (file, heads, hidden) = (config.file().to_owned(), widths.heads, widths.hidden);
        return Err(ConfigError::HeadWidth { file, family: family.model_type, heads, head_dim, hidden });
    }
    put(&mut map, family, keys.hidden, widths.hidden);
    if !before.projects_embeddings() {
        copies(&mut map, keys.hidden_copies, widths.hidden);
    }
    put(&mut map, family, keys.heads, widths.heads);
    put(&mut map, family, keys.ffn, of_one);
    copies(&mut map, keys.ffn_copies, of_one);
    if let Some(flag) = keys.ffn_adjusted {
        // The width that is stated is the one before the adjustment.
        map.insert(flag.to_owned(), json!(false));
        map.insert(keys.ffn.to_owned(), json!(widths.ffn));
    }
    if let Some(key) = keys.key_value_heads {
        map.insert(key.to_owned(), json!(widths.key_heads));
    }
    let config = Config::from_map(config.file(), map);
    match (keys.head_dim, head_dim) {
        // Stated where what is not stated would be another width.
        (Some(key), Some(width)) if stated_head_dim(family, &config) != Some(width) => {
            let mut map = config.map().clone();
            map.insert(key.to_owned(), json!(width));
            Ok(Config::from_map(config.file(), map))
        }
        _ => Ok(config),
    }
}

fn stated_head_dim(family: &Family, config: &Config) -> Option<usize> {
    let spec = family.read(config).ok()?;
    attention_of(&spec).map(|attention| attention.head_dim)
}

/// Writes a width under its key, and under the other names that the family has for it where these are stated.
fn put(map: &mut Map<String, Value>, family: &Family, key: &str, width: usize) {
    map.insert(key.to_owned(), json!(width));
    let others: Vec<&str> = family.aliases.iter().filter(|(_, of)| *of == key).map(|(alias, _)| *alias).collect();
    copies(map, &others, width);
}

fn copies(map: &mut Map<String, Value>, keys: &[&str], width: usize) {
    for key in keys {
        if let Some(value) = map.get_mut(*key).filter(|value| !value.is_null()) {
            *value = json!(width);
        }
    }
}
