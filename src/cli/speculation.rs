//! How an artifact continues a sequence faster, for `slmc generate` and `slmc chat`: drafts of the next tokens, confirmed
//! several at a time. The tokens stay the same.

use crate::artifact::host::{ArtifactError, ArtifactFile};
use crate::eval::speculation::{DRAFTS, Means, SpeculationReport};
use crate::shell::Shell;
use std::path::PathBuf;

/// Heading of the options that make it faster.
const SPEED: &str = "Speed";

/// Options of speculative decoding.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = SPEED)]
pub(super) struct SpeculationArgs {
    /// Most tokens to guess and read together, 0: none
    ///
    /// An artifact's next tokens are guessed from what the text repeats, and from what `compile --continuations` and
    /// `--draft` put into it; one pass over the weights confirms several. Tokens are the same with and without, greedy
    /// or drawn. Guesses are made where they pay: that is measured, and said at the end.
    #[arg(long, value_name = "N", default_value_t = DRAFTS)]
    drafts: usize,

    /// Artifact of a smaller model that guesses
    ///
    /// With the same tokenizer, such as a student of the model. In place of the one the artifact carries.
    #[arg(long, value_name = "FILE.slm")]
    draft: Option<PathBuf>,
}

impl SpeculationArgs {
    /// As the library takes them.
    pub(super) fn means(&self, streamed: bool) -> Result<Means, ArtifactError> {
        let draft_model = self.draft.as_deref().map(ArtifactFile::open).transpose()?;
        Ok(Means { drafts: self.drafts, draft_model, streamed })
    }
}

/// Says what drafts did, where any were made.
pub(super) fn say(report: Option<&SpeculationReport>, shell: &Shell) {
    if let Some(sentence) = report.and_then(SpeculationReport::sentence) {
        shell.detail("Drafts", sentence);
    }
}
