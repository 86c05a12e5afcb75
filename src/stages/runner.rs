//! Models as artifacts for this machine, for the rooms that may not compile: assignments are measured as they would ship, but in the
//! layout of this machine's kernels: the logits are the same in all.

use crate::artifact::runner::{ModelRunner, RunnerError};
use crate::compile::{HostSections, TextSection, compile};
use crate::machine::kernels::layout;
use crate::model::spec::ModelSpec;
use crate::model::weights::Model;
use crate::progress::Silent;
use crate::target::Target;

/// Compiles in memory.
pub struct Compiled;

impl ModelRunner for Compiled {
    fn artifact(&self, model: &Model, name: &str, context: Option<usize>) -> Result<Vec<u8>, RunnerError> {
        let of_every_token;
        let model = match model.spec.embedding {
            None => model,
            Some(_) => {
                of_every_token = Model { spec: ModelSpec { embedding: None, ..model.spec.clone() }, ..model.clone() };
                &of_every_token
            }
        };
        let text = TextSection { vocabulary: vec![Vec::new(); model.spec.vocabulary], ..TextSection::default() };
        let device = Target::unlimited(name, layout());
        let compiled = compile(model, &device, context, &text, &HostSections::default(), &Silent);
        Ok(compiled.map_err(RunnerError::new)?.bytes)
    }
}
