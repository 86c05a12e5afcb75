//! `slmc compile`

use super::global::Global;
use super::{check_memory, device};
use crate::compile::CompileError;
use crate::compile::directory::{DirectoryError, Options, compile_directory};
use crate::model::weights::Outline;
use crate::quantize::policy::{not_sparse, unsupported};
use crate::recipe::target::Target;
use crate::shell::{ExitStatus, Shell};
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

    /// Leave out what only a build machine reads: tokenizer.json, names, provenance
    #[arg(long)]
    device_only: bool,

    /// Artifact to write; an existing artifact is replaced
    #[arg(short, long, value_name = "FILE.slm")]
    out: PathBuf,
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let target = Target::named(&self.target)?;
        let outline = Outline::open(&self.model)?;
        check_memory(global, 4 * outline.spec.parameter_count() + (64 << 20), "compiling")?;
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
        if let Some(max) = &target.max {
            let context = self.context.unwrap_or(outline.spec.context);
            let limits = [
                ("vocabulary", outline.spec.vocabulary, max.vocabulary),
                ("context", context, max.context),
                ("layers", outline.spec.layers.len(), max.layers),
            ];
            for (name, value, limit) in limits {
                if let Some(limit) = limit.filter(|&limit| value as u64 > limit) {
                    bail!("target {} takes a {name} of at most {limit}, this is {value}", target.name);
                }
            }
        }
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
                shell.result(&report)?;
                Ok(ExitStatus::Success)
            }
            Err(DirectoryError::Compile(CompileError::DoesNotFit(answer))) => {
                shell.result(answer.as_ref())?;
                Ok(ExitStatus::Failure)
            }
            Err(error) => Err(error.into()),
        }
    }
}
