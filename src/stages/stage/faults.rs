//! What comes of checking the options of a stage: options for the work, or every fault in them, with what is known before the
//! work in any case.

use crate::stages::known::KnownModel;
use crate::stages::prediction::Prediction;

/// One fault in the options of a stage.
#[derive(Debug)]
pub struct Fault {
    /// Long name of the option, or of the positional argument its identifier; empty where the fault concerns several.
    pub option: &'static str,
    /// The reason.
    pub error: anyhow::Error,
}

/// All faults in the options of a stage.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault of an option.
    pub fn add(&mut self, option: &'static str, error: impl Into<anyhow::Error>) {
        self.0.push(Fault { option, error: error.into() });
    }

    /// The value, or a fault of the option.
    pub fn check<T, E: Into<anyhow::Error>>(&mut self, option: &'static str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(option, error)).ok()
    }

    /// As one error: the first, as on a command line.
    pub fn first(self) -> anyhow::Error {
        let first = self.0.into_iter().next().map(|fault| fault.error);
        first.unwrap_or_else(|| anyhow::anyhow!("the options cannot be used, which is a defect of slmc"))
    }
}

impl IntoIterator for Faults {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Options of a stage after their check.
#[derive(Debug)]
pub struct Resolved<O> {
    /// For the work; absent where they cannot be made.
    options: Option<O>,
    /// The model that is made, as far as it is known before the work: also where there are faults, so that the stages
    /// after this one are checked as well.
    pub makes: Option<KnownModel>,
    /// Faults found.
    pub(super) faults: Faults,
    /// What the work will take, as far as it can be told.
    pub predicted: Prediction,
    /// Numbers of [`super::Stage::MEASURES`] that its report will not have, by these options and models.
    pub lacks: Vec<&'static str>,
}

impl<O> Resolved<O> {
    /// Options, the model that is made, and the faults.
    pub fn new(options: Option<O>, makes: Option<KnownModel>, faults: Faults) -> Self {
        Resolved { options, makes, faults, predicted: Prediction::default(), lacks: Vec::new() }
    }

    /// Likewise, with what the work will take.
    pub fn predicting(self, predicted: Prediction) -> Self {
        Resolved { predicted, ..self }
    }

    /// Likewise, with the numbers that its report will not have.
    pub fn lacking(self, lacks: Vec<&'static str>) -> Self {
        Resolved { lacks, ..self }
    }

    /// The options.
    ///
    /// # Errors
    /// All faults.
    pub fn checked(self) -> Result<O, Faults> {
        match self.options {
            Some(options) if self.faults.0.is_empty() => Ok(options),
            _ => Err(self.faults),
        }
    }

    pub(super) fn map<P>(self, change: impl FnOnce(O) -> P) -> Resolved<P> {
        let Resolved { options, makes, faults, predicted, lacks } = self;
        Resolved { options: options.map(change), makes, faults, predicted, lacks }
    }
}
