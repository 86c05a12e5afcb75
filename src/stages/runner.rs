//! Models run on this machine as artifacts, for the rooms that may not compile: a decoder's samples of itself, and mixes
//! measured as they would ship.

use crate::artifact::host::sample_sequences;
use crate::artifact::runner::{ModelRunner, RunnerError};
use crate::compile::{HostSections, TextSection, compile};
use crate::model::scheme::Preset;
use crate::model::spec::ModelSpec;
use crate::model::weights::Model;
use crate::progress::{Progress, Silent};
use crate::quantize::quantize;
use crate::target::Target;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;

/// Compiles in memory and runs with the runtime.
pub struct Compiled;

impl ModelRunner for Compiled {
    /// Rounded to w8 without calibration, and run by the runtime with its cache.
    fn sample(
        &self,
        model: &Model,
        tokens: usize,
        window: usize,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<u32>>, RunnerError> {
        let spec = &model.spec;
        let (quantized, _) = quantize(model, &Preset::W8.assign(spec), None, &Silent).map_err(RunnerError::new)?;
        let bytes = self.artifact(&quantized, "self", Layout::R8K4Offset8, Some(window))?;
        let view = ArtifactView::open(&bytes).map_err(RunnerError::new)?;
        sample_sequences(&view, &spec.opening, window, tokens.div_ceil(window), seed, progress)
            .map_err(RunnerError::new)
    }

    fn artifact(
        &self,
        model: &Model,
        name: &str,
        layout: Layout,
        context: Option<usize>,
    ) -> Result<Vec<u8>, RunnerError> {
        let of_every_token;
        let model = match model.spec.embedding {
            None => model,
            Some(_) => {
                of_every_token = Model { spec: ModelSpec { embedding: None, ..model.spec.clone() }, ..model.clone() };
                &of_every_token
            }
        };
        let text = TextSection { vocabulary: vec![Vec::new(); model.spec.vocabulary], ..TextSection::default() };
        let device = Target::unlimited(name, layout);
        let compiled = compile(model, &device, context, &text, &HostSections::default(), &Silent);
        Ok(compiled.map_err(RunnerError::new)?.bytes)
    }
}
