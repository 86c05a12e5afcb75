//! What the steps of a run are computed by: fused operations, burn's own ones on another device of this machine, or those on
//! workers.

use super::error::TrainError;
use super::fused::Fused;
use super::loss::table::LossKind;
use super::memory::ComputedBy;
use super::plain::OnWorkers;
use super::trainer::Run;
use crate::progress::Progress;

/// What the steps of a run are computed by.
pub(super) enum Operations<'o> {
    /// Fused ones, on flex.
    Fused(Box<Fused>),
    /// burn's, on the run's device.
    Plain,
    /// burn's, on workers.
    Workers(OnWorkers<'o>),
}

impl<'o> Operations<'o> {
    /// The fastest that the run's device has; those of its workers, where it has some.
    ///
    /// # Errors
    /// Settings that fused operations alone can follow.
    pub(super) fn new(run: &Run<'o>, progress: &'o dyn Progress) -> Result<Self, TrainError> {
        let fused = match run.workers {
            Some(_) => None,
            None => Fused::new(run)?,
        };
        if fused.is_none() {
            if run.settings.recompute {
                return Err(TrainError::Recompute);
            }
            if run.cache.is_some() {
                return Err(TrainError::PlainCache);
            }
            if run.settings.loss.uses(LossKind::Relations) {
                return Err(TrainError::PlainRelations);
            }
        }
        Ok(match (run.workers, fused) {
            (Some(_), _) if run.privacy.is_some() => return Err(TrainError::PrivateWorkers),
            (Some(workers), _) => Operations::Workers(OnWorkers::new(run, workers, progress)),
            (None, Some(fused)) => Operations::Fused(Box::new(fused)),
            (None, None) => Operations::Plain,
        })
    }

    /// The fused ones.
    pub(super) fn fused(&mut self) -> Option<&mut Fused> {
        match self {
            Operations::Fused(fused) => Some(fused),
            Operations::Plain | Operations::Workers(_) => None,
        }
    }

    /// For the need for memory.
    pub(super) fn computed_by(&self) -> ComputedBy {
        match self {
            Operations::Fused(_) => ComputedBy::Fused,
            Operations::Plain => ComputedBy::Plain,
            Operations::Workers(on) => ComputedBy::Workers(on.count()),
        }
    }
}
