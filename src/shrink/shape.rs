//! The shape that is asked of a student, checked against its teacher: which layers, how many heads and key heads, how wide the
//! feed-forward network and the residual stream. What is not asked for stays as it is in the teacher.

use crate::model::families::Widths;
use crate::model::spec::{Head, LayerSpec, Mixture, ModelSpec};
use crate::train::student::{LayerError, take_layers};
use serde::Serialize;

/// Layers of the teacher that a student keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// All.
    #[default]
    All,
    /// These, ascending.
    Layers(Vec<usize>),
    /// So many, chosen by what their removal costs.
    Count(usize),
}

/// A shape as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// Layers.
    pub depth: Depth,
    /// Query heads.
    pub heads: Option<usize>,
    /// Key heads.
    pub key_heads: Option<usize>,
    /// Width of the feed-forward network.
    pub ffn: Option<usize>,
    /// Width of the residual stream.
    pub hidden: Option<usize>,
}

/// A shape that no student of the teacher can have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    /// Experts keep their width.
    #[error(
        "--ffn {ffn}: the teacher's feed-forward networks are mixtures, whose {experts} experts keep their width, {width}; leave \
         --ffn out"
    )]
    Experts {
        /// Asked for.
        ffn: usize,
        /// The teacher's experts.
        experts: usize,
        /// The width of each.
        width: usize,
    },
    /// Nothing, or more than the teacher has.
    #[error("--{option} {found}: the teacher has {most} {what}; ask for 1 to {most}")]
    OutOfRange {
        /// The option.
        option: &'static str,
        /// Asked for.
        found: usize,
        /// The teacher's.
        most: usize,
        /// What is counted, in the plural.
        what: &'static str,
    },
    /// Query heads that key heads cannot share evenly.
    #[error("{heads} heads cannot share {key_heads} key heads evenly; ask for a multiple of --key-heads as --heads")]
    Uneven {
        /// Query heads.
        heads: usize,
        /// Key heads.
        key_heads: usize,
    },
    /// More query heads on a key head than in the teacher.
    #[error(
        "{heads} heads on {key_heads} key heads: a key head of the teacher serves {group} heads and cannot serve more; \
         ask for at most {} heads, or for at least {} key heads",
        key_heads * group,
        heads.div_ceil(*group)
    )]
    Crowded {
        /// Query heads.
        heads: usize,
        /// Key heads.
        key_heads: usize,
        /// Query heads on a key head of the teacher.
        group: usize,
    },
    /// Heads of a model without attention.
    #[error("--{option}: no layer of the teacher has attention; leave it out")]
    NoAttention {
        /// The option.
        option: &'static str,
    },
    /// A hidden width of heads that share it.
    #[error(
        "--hidden-width {hidden}: the heads of {family} share the hidden width, {head_dim} each; ask for a multiple of \
         {head_dim}, and for as many --heads as that makes, or for none"
    )]
    SharedHeads {
        /// `model_type`.
        family: &'static str,
        /// Asked for.
        hidden: usize,
        /// Width of a head.
        head_dim: usize,
    },
    /// Fewer heads of the same hidden width, which the family cannot say.
    #[error(
        "--heads {heads}: the heads of {family} share the hidden width, {head_dim} each; ask for --hidden-width {} too",
        heads * head_dim
    )]
    SharedWidth {
        /// `model_type`.
        family: &'static str,
        /// Asked for.
        heads: usize,
        /// Width of a head.
        head_dim: usize,
    },
    /// A bare encoder is its hidden states.
    #[error(
        "--hidden-width: the output of {family} without a head is its hidden states, which the teacher's are compared \
         with; leave it out, or distil a teacher that has a head"
    )]
    BareEncoder {
        /// `model_type`.
        family: &'static str,
    },
    /// The tables are narrower than the layers.
    #[error(
        "--hidden-width: the tables of {family} are narrower than its layers, which are then not cut; leave it out"
    )]
    NarrowTables {
        /// `model_type`.
        family: &'static str,
    },
    /// The layers are invalid.
    #[error(transparent)]
    Layers(#[from] LayerError),
}

impl Wanted {
    /// Whether it is the teacher's own shape, whatever that is.
    pub fn is_whole(&self) -> bool {
        *self == Wanted::default()
    }

    /// The layers, where they are named or all are kept; `None` where they are to be chosen.
    ///
    /// # Errors
    /// Layers that the teacher does not have.
    pub fn layers(&self, teacher: &ModelSpec) -> Result<Option<Vec<usize>>, ShapeError> {
        let most = teacher.layers.len();
        match &self.depth {
            Depth::All => Ok(Some((0..most).collect())),
            Depth::Layers(layers) => {
                take_layers(teacher, layers)?;
                Ok(Some(layers.clone()))
            }
            Depth::Count(count) => {
                in_range("depth", *count, most, "layers")?;
                Ok((*count == most).then(|| (0..most).collect()))
            }
        }
    }

    /// The widths of the student.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn widths(&self, teacher: &ModelSpec) -> Result<Widths, ShapeError> {
        let own = Widths::of(teacher);
        let attention = teacher.layers.iter().find_map(LayerSpec::attention);
        for (option, asked) in [("heads", self.heads), ("key-heads", self.key_heads)] {
            if asked.is_some() && attention.is_none() {
                return Err(ShapeError::NoAttention { option });
            }
        }
        for (option, asked, most, what) in [
            ("heads", self.heads, own.heads, "heads"),
            ("key-heads", self.key_heads, own.key_heads, "key heads"),
            ("ffn", self.ffn, own.ffn, "channels in its feed-forward network"),
            ("hidden-width", self.hidden, own.hidden, "hidden channels"),
        ] {
            asked.map_or(Ok(()), |asked| in_range(option, asked, most, what))?;
        }
        let mixture = teacher.layers.iter().find_map(|layer| layer.ffn.mixture);
        if let (Some(ffn), Some(Mixture { experts, .. })) = (self.ffn, mixture)
            && ffn != own.ffn
        {
            return Err(ShapeError::Experts { ffn, experts, width: own.ffn / experts });
        }
        let family = teacher.family;
        let hidden = self.hidden.unwrap_or(own.hidden);
        if hidden != own.hidden && teacher.head == Head::Hidden {
            return Err(ShapeError::BareEncoder { family });
        }
        if hidden != own.hidden && teacher.projects_embeddings() {
            return Err(ShapeError::NarrowTables { family });
        }
        let mut asked = self.heads;
        if let Some(attention) = attention.filter(|_| shares_width(family)) {
            let head_dim = attention.head_dim;
            if let Some(heads) = asked.filter(|heads| self.hidden.is_none() && *heads != own.heads) {
                return Err(ShapeError::SharedWidth { family, heads, head_dim });
            }
            if !hidden.is_multiple_of(head_dim) || asked.is_some_and(|heads| heads * head_dim != hidden) {
                return Err(ShapeError::SharedHeads { family, hidden, head_dim });
            }
            asked = Some(hidden / head_dim);
        }
        let group = own.heads / own.key_heads;
        let (heads, key_heads) = match (asked, self.key_heads) {
            (None, None) => (own.heads, own.key_heads),
            (None, Some(key_heads)) => (key_heads * group, key_heads),
            (Some(heads), Some(key_heads)) => (heads, key_heads),
            // As many to a key head as in the teacher, or fewer on all of its key heads.
            (Some(heads), None) if heads.is_multiple_of(group) => (heads, heads / group),
            (Some(heads), None) => (heads, own.key_heads),
        };
        if !heads.is_multiple_of(key_heads) {
            return Err(ShapeError::Uneven { heads, key_heads });
        }
        if heads / key_heads > group {
            return Err(ShapeError::Crowded { heads, key_heads, group });
        }
        Ok(Widths { heads, key_heads, ffn: self.ffn.unwrap_or(own.ffn), hidden })
    }
}

/// Whether the heads of a family always share the hidden width.
pub(super) fn shares_width(family: &str) -> bool {
    let row = crate::model::families::FAMILIES.iter().find(|row| row.model_type == family);
    row.is_some_and(|row| row.widths.head_dim.is_none())
}

fn in_range(option: &'static str, found: usize, most: usize, what: &'static str) -> Result<(), ShapeError> {
    if (1..=most).contains(&found) { Ok(()) } else { Err(ShapeError::OutOfRange { option, found, most, what }) }
}
