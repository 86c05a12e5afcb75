//! Which gates a recipe could have, and a limit for each from a measurement.

use super::definition::{Against, DEFINITIONS, Definition, Measure};
use super::judge::GateResult;
use super::{Gate, Other, REFERENCE};
use crate::recipe::stage::RecipeStage;
use crate::statistics::Side;

/// Gates that are proposed: one for every thing that can get worse, and not three for the same.
const PROPOSED: [&str; 9] = [
    "kld_max",
    "perplexity_ratio_max",
    "top1_min",
    "accuracy_min",
    "accuracy_drop_max",
    "exact_match_min",
    "cosine_min",
    "file_bytes_max",
    "ram_bytes_max",
];
/// Share of the distance from what would be perfect.
const SLACK: f64 = 0.1;
/// By which bytes may grow.
const GROWTH: f64 = 0.02;
/// The least slack of a ratio or a drop, which may be perfect.
const LEAST: f64 = 0.001;

/// A limit that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::recipe) struct Suggested {
    pub(in crate::recipe) limit: f64,
    pub(in crate::recipe) value: f64,
}

/// The gates that could be asked for: each on the last stage that measures it, of a stage with several targets on each.
pub(in crate::recipe) fn suggestible(stages: &[RecipeStage]) -> Vec<Gate> {
    let mut gates = Vec::new();
    let proposed = |definition: &&Definition| PROPOSED.contains(&definition.name);
    for definition in DEFINITIONS.iter().filter(proposed) {
        let Some(last) = stages.iter().rposition(|stage| definition.belongs_to(stage)) else { continue };
        for stage in (0..stages.len()).filter(|&stage| stages[stage].name == stages[last].name) {
            let has_reference = stages[stage].choices.iter().any(|choice| choice.flag == REFERENCE);
            let against = match definition.against {
                Against::Nothing => Other::Nothing,
                Against::Reference | Against::Either if has_reference => Other::Reference,
                _ => continue,
            };
            let place = stages[stage].place.clone();
            // Until there is a limit, one that every scale has.
            gates.push(Gate { definition, limit: 1.0, stage, against, place });
        }
    }
    gates
}

/// The limit that a measurement suggests; `None` where there are no bounds.
pub(in crate::recipe) fn limit_of(gate: &Gate, measured: &GateResult) -> Option<Suggested> {
    let value = measured.value?;
    let limit = match (gate.definition.measure, gate.definition.side) {
        (Measure::Count, _) => (value * (1.0 + GROWTH)).ceil(),
        (Measure::PerplexityRatio, _) => {
            let upper = measured.upper?;
            outward(upper + (SLACK * (upper - 1.0).abs()).max(LEAST), Side::Max)
        }
        (Measure::ShareDrop, _) => {
            let upper = measured.upper?;
            outward(upper + (SLACK * upper.abs()).max(LEAST), Side::Max)
        }
        (_, Side::Max) => {
            let upper = measured.upper?;
            outward(upper * (1.0 + SLACK), Side::Max)
        }
        (_, Side::Min) => {
            let lower = measured.lower?;
            outward((lower - SLACK * (1.0 - lower)).max(0.0), Side::Min)
        }
    };
    Some(Suggested { limit, value })
}

/// Three digits, on the side that is easier to hold.
fn outward(value: f64, side: Side) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits);
    let scaled = match side {
        Side::Max => (value * scale).ceil(),
        Side::Min => (value * scale).floor(),
    };
    scaled / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_three_digits_on_the_easier_side() {
        for (value, side, expected) in [
            (0.065_81, Side::Max, 0.0659),
            (1.083_49, Side::Max, 1.09),
            (0.853_9, Side::Min, 0.853),
            (12.341, Side::Max, 12.4),
            (-0.001_239, Side::Max, -0.00123),
            (0.0, Side::Min, 0.0),
        ] {
            assert!((outward(value, side) - expected).abs() < 1e-12, "{value}: {}", outward(value, side));
        }
    }
}
