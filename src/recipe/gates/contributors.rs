//! Which matrices carry most of the error of a quantized model, by the report of the stage that quantized it: the cost
//! of each item alone where bits were allocated, else the relative error of rounding each matrix.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Most that are named.
const MOST: usize = 5;

/// A matrix, or several with one scheme.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Contributor {
    /// Such as `layers.2.ffn.down`.
    pub name: String,
    /// How it is stored.
    pub scheme: String,
    /// Its share of all costs added up, or of all relative errors.
    pub share: f64,
    /// Whether the costs of items are known; else it is the relative error of rounding, which says less.
    pub by_cost: bool,
}

/// The largest, the largest first.
pub(in crate::recipe) fn of(quantize: &Json) -> Vec<Contributor> {
    let mut all = allocated(quantize).or_else(|| rounded(quantize)).unwrap_or_default();
    let sum: f64 = all.iter().map(|contributor| contributor.share).sum();
    all.retain(|contributor| contributor.share > 0.0);
    all.iter_mut().for_each(|contributor| contributor.share /= sum);
    // Stable, so that equals stay in forward order.
    all.sort_by(|a, b| b.share.total_cmp(&a.share));
    all.truncate(MOST);
    all
}

/// By the costs of the codings that were chosen.
fn allocated(quantize: &Json) -> Option<Vec<Contributor>> {
    let items = quantize.pointer("/allocation/items")?.as_array()?;
    let of_item = |item: &Json| {
        let (name, chosen) = (item.get("name")?.as_str()?, item.get("chosen")?.as_str()?);
        let coding = item.get("codings")?.as_array()?.iter().find(|coding| coding["scheme"] == *chosen)?;
        let cost = coding.pointer("/measured/mean").or_else(|| coding.get("predicted"))?.as_f64()?;
        Some(Contributor { name: name.to_owned(), scheme: chosen.to_owned(), share: cost.max(0.0), by_cost: true })
    };
    Some(items.iter().filter_map(of_item).collect())
}

/// By the errors of rounding.
fn rounded(quantize: &Json) -> Option<Vec<Contributor>> {
    let of_matrix = |matrix: &Json| {
        let (name, scheme) = (matrix.get("name")?.as_str()?, matrix.get("scheme")?.as_str()?);
        let share = matrix.get("relative_error")?.as_f64()?.max(0.0);
        Some(Contributor { name: name.to_owned(), scheme: scheme.to_owned(), share, by_cost: false })
    };
    Some(quantize.get("matrices")?.as_array()?.iter().filter_map(of_matrix).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn costs_of_items_are_preferred_to_errors_of_rounding() {
        let matrices = json!([
            {"name": "a", "scheme": "w8", "relative_error": 0.01},
            {"name": "b", "scheme": "w4.g32", "relative_error": 0.03},
            {"name": "c", "scheme": "w8", "relative_error": 0.0},
        ]);
        let found = of(&json!({"matrices": matrices}));
        assert_eq!(
            found.iter().map(|one| (one.name.as_str(), one.share)).collect::<Vec<_>>(),
            [("b", 0.75), ("a", 0.25)]
        );
        let coding = |scheme: &str, predicted: f64| json!({"scheme": scheme, "bytes": 1, "predicted": predicted});
        let items = json!([
            {"name": "x", "chosen": "w4.g32", "codings": [coding("w4.g32", 0.3), coding("w8", 0.0)]},
            {"name": "y", "chosen": "w8", "codings": [
                coding("w4.g32", 0.5), {"scheme": "w8", "bytes": 2, "predicted": 9.0, "measured": {"mean": 0.1}},
            ]},
        ]);
        let found = of(&json!({"matrices": matrices, "allocation": {"items": items}}));
        let found: Vec<(&str, f64)> = found.iter().map(|one| (one.name.as_str(), one.share)).collect();
        assert!(found[0].0 == "x" && (found[0].1 - 0.75).abs() < 1e-12 && found[1].0 == "y", "{found:?}");
        assert!(of(&json!({})).is_empty());
    }
}
