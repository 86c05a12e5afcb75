//! What a student lacks of its teacher: the teacher is run once over some sequences that nothing was fitted on, and every
//! student's outputs are compared with it. Language models and classifiers by KL(teacher ‖ student) in nats a prediction, bare
//! encoders by 1 − cosine.

use super::{Plan, ShrinkError, Student, cut, describe};
use crate::calibrate::probe::Probe;
use crate::divergence::mean_and_error;
use crate::model::spec::ModelSpec;
use crate::model::weights::Model;
use crate::progress::Silent;
use crate::shrink::importance::Importance;
use crate::train::start::layers_of;
use burn::tensor::Device;

/// A teacher, the text that students are fitted on and the text that they are measured on.
pub struct Bench<'b> {
    pub(super) teacher: &'b Model,
    pub(super) importance: &'b Importance,
    pub(super) fitted_on: &'b [Vec<u32>],
    probe: Probe<'b>,
    pub(super) device: &'b Device,
}

impl<'b> Bench<'b> {
    /// Runs the teacher over the sequences to measure on.
    ///
    /// # Errors
    /// [`ShrinkError`].
    pub fn new(
        teacher: &'b Model,
        importance: &'b Importance,
        [fitted_on, measured_on]: [&'b [Vec<u32>]; 2],
        device: &'b Device,
    ) -> Result<Self, ShrinkError> {
        let mut probe = Probe::new(teacher, measured_on, device)?;
        probe.keep_outputs()?;
        Ok(Bench { teacher, importance, fitted_on, probe, device })
    }

    /// The teacher's specification.
    pub fn teacher_spec(&self) -> &ModelSpec {
        &self.teacher.spec
    }

    /// Mean divergence of a model from the teacher.
    ///
    /// # Errors
    /// [`ShrinkError`].
    pub fn divergence(&self, student: &Model) -> Result<f64, ShrinkError> {
        Ok(mean_and_error(&self.probe.other(student)?).0)
    }

    /// The divergence without the other layers, nothing fitted.
    pub(super) fn without(&self, kept: &[usize]) -> Result<f64, ShrinkError> {
        self.divergence(&layers_of(self.teacher, kept)?)
    }

    /// Cuts and fits a student on `share` of the text, and measures it.
    pub(super) fn measured(&self, plan: &Plan, share: f64) -> Result<(Student, f64), ShrinkError> {
        let count = ((self.fitted_on.len() as f64 * share).ceil() as usize).clamp(1, self.fitted_on.len().max(1));
        let text = &self.fitted_on[..count.min(self.fitted_on.len())];
        let description = describe(self.teacher, plan)?;
        let student = cut(self.teacher, self.importance, (plan, description), text, self.device, &Silent)?;
        let divergence = self.divergence(&student.model)?;
        Ok((student, divergence))
    }
}
