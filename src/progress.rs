//! Progress of long work, as a trait at the bottom of the crate: libraries report to it, `shell` draws it, tests and
//! library users pass [`Silent`].

/// Receives the progress of one piece of work at a time.
pub trait Progress: Sync {
    /// A piece of work begins: what it is (lower case, no full stop), how many units, and the unit's plural name.
    fn begin(&self, what: &str, total: u64, unit: &'static str);
    /// More units are done.
    fn advance(&self, units: u64);
    /// The latest figures of the work, such as a loss: replaces the ones before.
    fn figures(&self, figures: &dyn std::fmt::Display);
    /// The piece of work is over.
    fn finish(&self);
    /// The state that a killed run resumes from is on disk up to `step`: steps of training, or groups of matrices
    /// rounded by GPTQ, counted from the first of the run.
    fn saved(&self, step: u64);
    /// The memory that work will need at its peak, said before it begins.
    fn needs(&self, work: &str, bytes: u64);
    /// What is waited for, where that takes long: said, so that a silent run is not taken for a dead one.
    fn waits(&self, _for_what: &dyn std::fmt::Display) {}
    /// Something the user should know that is not an error; shown at once, above any bar.
    fn warn(&self, warning: &dyn std::fmt::Display);
}

/// Discards all progress.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: u64, _unit: &'static str) {}
    fn advance(&self, _units: u64) {}
    fn figures(&self, _figures: &dyn std::fmt::Display) {}
    fn finish(&self) {}
    fn saved(&self, _step: u64) {}
    fn needs(&self, _work: &str, _bytes: u64) {}
    fn warn(&self, _warning: &dyn std::fmt::Display) {}
}
