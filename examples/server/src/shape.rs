//! The bodies of answers in the shape of the OpenAI API: whole, and in the pieces of a stream.

use crate::model::Model;
use crate::worker::Summary;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// What all pieces of an answer have in common.
pub struct Shape {
    /// Whether it answers a conversation.
    pub chat: bool,
    /// Number of the answer, unique.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: String,
    /// Its weights.
    pub fingerprint: String,
}

fn usage(summary: &Summary) -> Value {
    let Summary { prompt, cached, completion, .. } = *summary;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}

impl Shape {
    fn around(&self, object: &str, choices: Value) -> Value {
        let Shape { id, created, model, fingerprint, .. } = self;
        json!({
            "id": id,
            "object": object,
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
            "choices": choices,
        })
    }

    fn piece(&self, content: Value, finish: Option<&str>) -> Value {
        let key = if self.chat { "delta" } else { "text" };
        let object = if self.chat { "chat.completion.chunk" } else { "text_completion" };
        self.around(object, json!([{"index": 0, key: content, "logprobs": null, "finish_reason": finish}]))
    }

    /// The first piece of a stream, where there is one before any text.
    pub fn opening(&self) -> Option<Value> {
        self.chat.then(|| self.piece(json!({"role": "assistant", "content": ""}), None))
    }

    /// A piece of text.
    pub fn text(&self, text: String) -> Value {
        self.piece(if self.chat { json!({"content": text}) } else { json!(text) }, None)
    }

    /// The pieces at the end, with the number of tokens if that was asked for.
    pub fn closing(&self, summary: &Summary, with_usage: bool) -> Vec<Value> {
        let content = if self.chat { json!({}) } else { json!("") };
        let mut pieces = vec![self.piece(content, Some(summary.finish))];
        if with_usage {
            let object = if self.chat { "chat.completion.chunk" } else { "text_completion" };
            let mut last = self.around(object, json!([]));
            last["usage"] = usage(summary);
            pieces.push(last);
        }
        pieces
    }

    /// The whole answer.
    pub fn whole(&self, text: String, summary: &Summary) -> Value {
        let key = if self.chat { "message" } else { "text" };
        let content = if self.chat { json!({"role": "assistant", "content": text}) } else { json!(text) };
        let object = if self.chat { "chat.completion" } else { "text_completion" };
        let choice = json!({"index": 0, key: content, "logprobs": null, "finish_reason": summary.finish});
        let mut whole = self.around(object, json!([choice]));
        whole["usage"] = usage(summary);
        whole
    }
}

/// The list of models.
pub fn models(model: &Model, created: u64) -> Value {
    json!({"object": "list", "data": [self::model(model, created)]})
}

/// One model.
pub fn model(model: &Model, created: u64) -> Value {
    json!({
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "slmc",
        "context": model.context(),
        "target": model.view.target(),
    })
}

/// Embeddings, in the order of their texts.
pub fn embeddings(model: &Model, rows: &[Vec<f32>], tokens: usize, base64: bool) -> Value {
    let written = |row: &Vec<f32>| match base64 {
        true => json!(BASE64_STANDARD.encode(row.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())),
        false => json!(row),
    };
    let one = |(index, row)| json!({"object": "embedding", "index": index, "embedding": written(row)});
    let data: Vec<Value> = rows.iter().enumerate().map(one).collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    json!({"object": "list", "data": data, "model": model.name, "usage": usage})
}

/// Labels with their probabilities: the largest, and all in the model's order.
pub fn classes(model: &Model, rows: &[Vec<f32>], tokens: usize) -> Value {
    let one = |(index, row): (usize, &Vec<f32>)| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = row.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let probabilities: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let label = row.iter().position(|&logit| logit == largest).and_then(|label| model.labels.get(label));
        json!({"index": index, "label": label, "probs": probabilities, "labels": model.labels})
    };
    let data: Vec<Value> = rows.iter().enumerate().map(one).collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    json!({"object": "list", "data": data, "model": model.name, "usage": usage})
}
