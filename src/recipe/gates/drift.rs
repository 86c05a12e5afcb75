//! Gates on what logged requests are like, by the counts and sizes in the report of a stage that watches them.

use super::definition::{Definition, Measure};
use crate::statistics::Interval;
use crate::statistics::shift::{ks_bounds, psi};
use serde_json::Value;

/// The value with its bounds, and how many requests there are. `None` where the report lacks something.
pub(super) fn measured(report: &Value, definition: &Definition, confidence: f64) -> Option<(Interval, usize)> {
    let (quantity, _) = definition.stated.rsplit_once('_')?;
    let shift = report.get("shifts")?.as_array()?.iter().find(|shift| shift["quantity"] == quantity)?;
    let counts = |key: &str| -> Option<Vec<u64>> {
        shift.pointer(&format!("/bins/{key}"))?.as_array()?.iter().map(Value::as_u64).collect()
    };
    let (reference, log) = (counts("reference")?, counts("log")?);
    let sizes: (u64, u64) = (reference.iter().sum(), log.iter().sum());
    let interval = match definition.measure {
        Measure::Distance => ks_bounds(shift.pointer("/ks/value")?.as_f64()?, sizes, confidence)?,
        // One bin for all of both: nothing changed.
        _ if reference.len() == 1 && log.len() == 1 => {
            Interval { value: 0.0, lower: 0.0, upper: 0.0, error: 0.0, draws: sizes.0.min(sizes.1) as usize }
        }
        _ => psi(&reference, &log, confidence)?,
    };
    Some((interval, sizes.1 as usize))
}
