//! The report of an allocation: every item with its choice and the costs of its codings alone, and the cost of the assignment.

use super::improve::Swap;
use crate::report::{Align, Table, grouped};
use serde::Serialize;

/// One coding of an item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodingReport {
    /// Scheme.
    pub scheme: String,
    /// Bytes of the item.
    pub bytes: u64,
    /// From the gradients: the item alone in this coding, everything else f32.
    pub predicted: f64,
    /// The same by running it; the largest coding is not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Cost>,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ItemReport {
    /// `layers.3.attn.{q,k,v}`
    pub name: String,
    /// The scheme it got.
    pub chosen: String,
    /// The schemes it could have had.
    pub codings: Vec<CodingReport>,
}

/// A cost with its error bar.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Mean over predictions or texts.
    pub mean: f64,
    /// Its standard error, over sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<f64>,
}

/// Which linears were given 16-bit activations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WidthReport {
    /// Cost of the artifact with 8 bits wherever nothing else was asked for.
    pub before: Cost,
    /// Cost of the artifact that was written.
    pub after: Cost,
    /// Trials of an item, or of one kind of them.
    pub tried: usize,
    /// Those that paid for their time.
    pub widened: Vec<String>,
}

/// What an assignment takes on its target, by the plan of `compile` and the rates that the target states.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TargetPlan {
    /// Positions planned for.
    pub context: usize,
    /// Bytes of RAM: arena, cache and stack, and where the target has no flash the device part of the artifact.
    pub ram_bytes: u64,
    /// Most of them, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_limit_bytes: Option<u64>,
    /// Milliseconds of a token, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Most of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_limit_ms: Option<f64>,
}

impl TargetPlan {
    fn rows(&self, sums: &mut Table) {
        let of = |limit: String| format!(", at most {limit}");
        let ram = self.ram_limit_bytes.map_or_else(String::new, |limit| of(grouped(limit)));
        sums.row(["ram_bytes", &format!("{}{ram}, at a context of {}", grouped(self.ram_bytes), self.context)]);
        if let (Some(taken), Some(limit)) = (self.latency_ms, self.latency_limit_ms) {
            sums.row(["latency_ms", &format!("{taken:.4}{}, by the rates of the target", of(limit.to_string()))]);
        }
    }
}

/// How schemes were allocated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AllocationReport {
    /// Most bytes of weights.
    pub budget_bytes: u64,
    /// Bytes of the chosen assignment.
    pub chosen_bytes: u64,
    /// Fewest that any allocation takes.
    pub smallest_bytes: u64,
    /// Most that any allocation takes.
    pub largest_bytes: u64,
    /// Unit of all costs.
    pub unit: &'static str,
    /// Text the costs were measured on.
    pub measured_on: String,
    /// Tokens of it.
    pub measured_tokens: u64,
    /// Sequences of it.
    pub measured_sequences: u64,
    /// Rank correlation of predicted and measured costs of items alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_correlation: Option<f64>,
    /// The costs of the items in the knapsack's selection alone, added up.
    pub added_up: f64,
    /// Cost of the knapsack's selection run whole: f32 activations, every matrix rounded on its own.
    pub knapsack: Cost,
    /// Swaps taken from there.
    pub swaps: Vec<Swap>,
    /// Mixes that were run for them.
    pub trials: u64,
    /// Cost of the selection after the swaps, measured in the same way.
    pub improved: Cost,
    /// 16-bit activations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activations: Option<WidthReport>,
    /// Cost of the model that was written, run on the runtime's integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Cost>,
    /// What it takes on the target, where that was bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<TargetPlan>,
    /// Every item, in forward order.
    pub items: Vec<ItemReport>,
}

impl AllocationReport {
    /// As text: items, then the cost of the assignment.
    pub fn text(&self) -> String {
        let right = Align::Right;
        let mut table = Table::new([
            ("item", Align::Left),
            ("chosen", Align::Left),
            ("bytes", right),
            ("smallest saves", right),
            ("costs, predicted", right),
            ("measured", right),
            ("error", right),
        ]);
        for item in &self.items {
            let chosen = item.codings.iter().find(|coding| coding.scheme == item.chosen);
            let bytes = chosen.map_or(0, |coding| coding.bytes);
            let (Some(first), Some(last)) = (item.codings.first(), item.codings.last()) else { continue };
            let number = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$e}"))
            };
            let several = item.codings.len() > 1;
            table.row([
                item.name.as_str(),
                &item.chosen,
                &grouped(bytes),
                &grouped(first.bytes - last.bytes),
                &number(several.then_some(last.predicted), 2),
                &number(last.measured.map(|cost| cost.mean), 2),
                &number(last.measured.and_then(|cost| cost.stderr), 0),
            ]);
        }
        let mut sums = Table::pairs();
        sums.row(["budget_bytes", &grouped(self.budget_bytes)]);
        sums.row([
            "chosen_bytes",
            &format!(
                "{}; smallest possible {}, largest {}",
                grouped(self.chosen_bytes),
                grouped(self.smallest_bytes),
                grouped(self.largest_bytes)
            ),
        ]);
        self.plan.iter().for_each(|plan| plan.rows(&mut sums));
        sums.row([
            "measured on",
            &format!(
                "{}: {} tokens, {} sequences",
                self.measured_on,
                grouped(self.measured_tokens),
                self.measured_sequences
            ),
        ]);
        if let Some(correlation) = self.rank_correlation {
            sums.row(["ranks", &format!("predicted and measured correlate {correlation:.2}")]);
        }
        let cost = |cost: &Cost| match cost.stderr {
            Some(error) => format!("{:.6} ± {error:.6}", cost.mean),
            None => format!("{:.6}", cost.mean),
        };
        sums.row(["unit", self.unit]);
        sums.row(["knapsack", &format!("{}, its items added up {:.6}", cost(&self.knapsack), self.added_up)]);
        let swaps = self.swaps.iter().map(|swap| {
            let moves = swap.changes.iter().map(|(item, from, to)| format!("{item} {from} -> {to}"));
            format!("{}: -{:.2e} ± {:.0e}", moves.collect::<Vec<_>>().join(", "), swap.gain, swap.gain_stderr)
        });
        for swap in swaps {
            sums.row(["swap", &swap]);
        }
        sums.row(["after swaps", &format!("{}, {} assignments tried", cost(&self.improved), self.trials)]);
        if let Some(widths) = &self.activations {
            let which = match widths.widened.is_empty() {
                true => "none".to_owned(),
                false => format!("{}: {} to {}", widths.widened.join(", "), cost(&widths.before), cost(&widths.after)),
            };
            sums.row(["16-bit activations", &format!("{} tried, taken {which}", widths.tried)]);
        }
        if let Some(artifact) = &self.artifact {
            sums.row(["artifact", &format!("{}, on the runtime's integers", cost(artifact))]);
        }
        format!("{table}\n\n{sums}")
    }
}

/// Spearman's rank correlation; `None` for fewer than three pairs or where one side is constant.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        // Equal values share the mean of their ranks.
        let rank = |value: &f64| {
            let below = values.iter().filter(|other| *other < value).count() as f64;
            let equal = values.iter().filter(|other| *other == value).count() as f64;
            below + (equal - 1.0) / 2.0
        };
        values.iter().map(rank).collect()
    };
    let (a, b) = (ranks(pairs.iter().map(|pair| pair.0).collect()), ranks(pairs.iter().map(|pair| pair.1).collect()));
    let middle = (pairs.len() as f64 - 1.0) / 2.0;
    let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        product += (a - middle) * (b - middle);
        square_a += (a - middle).powi(2);
        square_b += (b - middle).powi(2);
    }
    let size = (square_a * square_b).sqrt();
    (size > 0.0).then(|| product / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_correlate_whatever_the_scale() {
        let rising = [(1.0, 10.0), (2.0, 1000.0), (3.0, 1001.0), (4.0, 1e9)];
        assert_eq!(rank_correlation(&rising), Some(1.0));
        let falling = rising.map(|(a, b)| (a, -b));
        assert_eq!(rank_correlation(&falling), Some(-1.0));
        assert_eq!(rank_correlation(&rising.map(|(a, _)| (a, 7.0))), None);
        let tied = [(1.0, 1.0), (1.0, 2.0), (2.0, 3.0)];
        assert!(rank_correlation(&tied).is_some_and(|value| (value - 0.75f64.sqrt()).abs() < 1e-12));
    }
}
