//! What an artifact says of the embeddings that it makes of texts.

use crate::model::spec::{Embedding, Pooling};
use slm_runtime::format::spec::{self as format, ModelRecord};

/// How hidden states become the one row of output; `None` where every token has one.
pub fn of(spec: &ModelRecord) -> Option<Embedding> {
    let pooling = match spec.pooling()? {
        format::Pooling::First => Pooling::First,
        format::Pooling::Mean => Pooling::Mean,
        format::Pooling::Maximum => Pooling::Maximum,
        format::Pooling::Last => Pooling::Last,
    };
    Some(Embedding { pooling, normalize: spec.normalize == 1 })
}
