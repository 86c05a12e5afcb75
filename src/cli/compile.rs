//! `slmc compile`

use super::global::Global;
use super::{check_memory, device};
use crate::compile::CompileError;
use crate::compile::fit::DoesNotFit;
use crate::formats;
use crate::model::spec::ModelSpec;
use crate::quantize::policy::{not_sparse, unsupported};
use crate::recipe::Known;
use crate::shell::{ExitStatus, Shell};
use crate::stages::compile::{CompileReport, DirectoryError, Options, compile_directory};
use crate::target::Target;
use anyhow::bail;
use std::path::PathBuf;

/// Pack a quantized directory into one artifact for a target
///
/// Plans the memory the device needs (arena, key-value cache at the context, stack), checks it and the file against the
/// target's RAM and flash, and runs a few prompts whose logits `slmc verify` and the device's self-test compare with.
/// A model that does not fit is exit code 1, with what would fit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  slmc compile out/mixed --target cortex-m55 --context 256 -o out/mixed.slm")]
pub(super) struct Args {
    /// Directory written by `slmc quantize`
    #[arg(value_name = "DIR")]
    model: PathBuf,

    /// A name of `slmc targets`, or a target file
    #[arg(long, value_name = "NAME")]
    target: String,

    /// Positions to plan memory for [default: the model's maximum]
    #[arg(long, value_name = "N")]
    context: Option<usize>,

    /// Leave out what only a build machine reads: tokenizer.json, names, labels, provenance
    #[arg(long)]
    device_only: bool,

    /// Artifact to write; an existing artifact is replaced
    #[arg(short, long, value_name = "FILE.slm")]
    out: PathBuf,
}

/// How a compilation ends where nothing failed.
pub(super) enum Compiled {
    /// With an artifact.
    Fits(Box<CompileReport>),
    /// Without one.
    DoesNotFit(Box<DoesNotFit>),
}

impl Args {
    /// What is wrong as far as configurations tell, and what the output will be.
    pub(super) fn check(&self, known: &Known) -> anyhow::Result<Option<ModelSpec>> {
        let Some(spec) = known.at(&self.model) else { return Ok(None) };
        self.check_limits(&Target::named(&self.target)?, spec)?;
        let mut spec = spec.clone();
        spec.context = self.context.unwrap_or(spec.context);
        Ok(Some(spec))
    }

    /// Refuses a model that is larger than the target takes, whatever its memory.
    fn check_limits(&self, target: &Target, spec: &ModelSpec) -> anyhow::Result<()> {
        let Some(max) = &target.max else { return Ok(()) };
        let limits = [
            ("vocabulary", spec.vocabulary, max.vocabulary),
            ("context", self.context.unwrap_or(spec.context), max.context),
            ("layers", spec.layers.len(), max.layers),
        ];
        for (name, value, limit) in limits {
            if let Some(limit) = limit.filter(|&limit| value as u64 > limit) {
                bail!("target {} takes a {name} of at most {limit}, this is {value}", target.name);
            }
        }
        Ok(())
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        match self.execute(global, shell)? {
            Compiled::Fits(report) => {
                shell.result(report.as_ref())?;
                Ok(ExitStatus::Success)
            }
            Compiled::DoesNotFit(answer) => {
                shell.result(answer.as_ref())?;
                Ok(ExitStatus::Failure)
            }
        }
    }

    /// The work, its report handed back.
    pub(super) fn execute(&self, global: &Global, shell: &Shell) -> anyhow::Result<Compiled> {
        let target = Target::named(&self.target)?;
        let outline = formats::open_outline(&self.model)?;
        // The integers, one byte each, and the packed weights twice: by tensor, and in the file that is emitted.
        check_memory(global, 3 * outline.spec.parameter_count() + (64 << 20), "compiling")?;
        if let (Some(required), Some(schemes)) = (&target.required, &outline.schemes) {
            if let Some(sparsity) = &required.sparsity
                && let Some(id) = not_sparse(&outline.spec, &outline.sparsity, sparsity.parse()?)
            {
                bail!(
                    "target {} runs only feed-forward networks that are {sparsity}, and `{id}` is not; prune the dense \
                     checkpoint (slmc prune DIR --pattern {sparsity} --only ffn), then quantize and compile it again",
                    target.name
                );
            }
            if let Some((id, scheme)) = unsupported(schemes, &required.schemes) {
                let runs: Vec<String> = required.schemes.iter().map(ToString::to_string).collect();
                bail!(
                    "target {} does not run {scheme}, the scheme of `{id}`; quantize it to {}",
                    target.name,
                    runs.join(" or ")
                );
            }
        }
        self.check_limits(&target, &outline.spec)?;
        let options = Options {
            model: self.model.clone(),
            out: self.out.clone(),
            device: device(&target),
            context: self.context,
            device_only: self.device_only,
        };
        shell.status("Compiling", format_args!("{} for {}", self.model.display(), target.name));
        match compile_directory(&options, shell) {
            Ok(report) => {
                shell.status("Wrote", self.out.display());
                Ok(Compiled::Fits(Box::new(report)))
            }
            Err(DirectoryError::Compile(CompileError::DoesNotFit(answer))) => Ok(Compiled::DoesNotFit(answer)),
            Err(error) => Err(error.into()),
        }
    }
}
