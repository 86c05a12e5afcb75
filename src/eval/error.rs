//! Why a model was not opened, judged, or asked to continue a text.

use super::forward::ForwardError;
use crate::artifact::host::ArtifactError;
use crate::artifact::streamed::StreamError;
use crate::formats::ModelFormatError;
use crate::model::forward::CacheError;
use crate::model::size::SizeError;
use crate::model::weights::ModelError;
use crate::text::chat_template::ChatTemplateError;
use crate::text::constraint::ConstraintError;
use crate::text::tokenizer::TokenizerError;
use slm_runtime::format::FormatError;
use slm_runtime::session::SessionError;
use std::fmt;
use std::path::PathBuf;

/// Which of the two models an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that is judged.
    Model,
    /// The one it is compared with.
    Reference,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Model => "model",
            Side::Reference => "reference",
        })
    }
}

/// Why a model cannot be opened, evaluated, or made to generate.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The model's files cannot be read.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// The model's values cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The artifact cannot be read, or is damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The artifact cannot be streamed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The tokenizer cannot be opened or used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The bytes of its weights cannot be counted.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A grammar is refused.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The grammar of the artifact cannot be read.
    #[error("the grammar of the artifact: {0}; compile it again")]
    Grammar(FormatError),
    /// No token follows: a defect of slmc.
    #[error("the grammar allows no token and no end, which is a defect of slmc; please report it with the grammar")]
    GrammarStuck,
    /// The system starts no more threads.
    #[error("cannot start as many threads: {0}; pass a smaller --threads")]
    Threads(std::io::Error),
    /// What the artifact's sequences begin with cannot be taken up.
    #[error("the prefix of the artifact: {0}; compile it again")]
    Prefix(slm_runtime::session::SnapshotError),
    /// A model cannot draft for another.
    #[error("{}: cannot draft for this model: it {reason}; a draft model has the same tokenizer, see docs/speculation.md", path.display())]
    DraftModel {
        /// The artifact of the draft model.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// So is streaming.
    #[error("a directory runs in f32, and nothing of it is streamed; leave --streamed out, or pass an artifact")]
    StreamedDirectory,
    /// Drafts are for artifacts.
    #[error("{}: a directory runs in f32, where nothing is drafted; leave --draft out, or pass an artifact", path.display())]
    DraftOfDirectory {
        /// The artifact of the draft model.
        path: PathBuf,
    },
    /// The artifact ends after its device part.
    #[error(
        "{}: holds no tokenizer, since it was written for a device only; pass the directory it was made from (--tokenizer DIR)",
        path.display()
    )]
    NoTokenizer {
        /// The artifact.
        path: PathBuf,
    },
    /// The chat template is refused.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// The model has no chat template.
    #[error(
        "{}: holds no chat template, so it has no way to be asked; pass the whole text with --prompt, or, for an artifact, \
         the directory it was made from with --tokenizer DIR",
        path.display()
    )]
    NoChatTemplate {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The artifact's labels do not parse.
    #[error("{}: the labels section is not a list of names; compile it again", path.display())]
    Labels {
        /// The artifact.
        path: PathBuf,
    },
    /// The model does not continue text.
    #[error("this model is an encoder: it does not continue text; use `slmc eval` with --task embed or classify")]
    NotADecoder,
    /// A conversation with a model that writes one text of another.
    #[error(
        "this model is an encoder-decoder: it writes one text of another and holds no conversation; use `slmc generate --prompt`"
    )]
    NoConversation,
    /// Only classifiers give labels.
    #[error(
        "the model gives no labels: only classifiers do; pass one that `slmc train --task classify` made, one of tokens or of answers, or its artifact"
    )]
    NotAClassifier,
    /// A question that the model has no use for.
    #[error("the model gives {output}, and answers no question; leave --question out")]
    QuestionUnused {
        /// What it gives.
        output: &'static str,
    },
    /// A model that finds answers, without a question.
    #[error("the model finds answers in texts: pass what is asked with --question TEXT")]
    NoQuestion,
    /// A bound on the confidence of labels of whole texts.
    #[error("--route-below is about the labels of texts, and the model gives {output}; leave it out")]
    BoundUnused {
        /// What it gives.
        output: &'static str,
    },
    /// The prompt has no tokens and the model no opening one.
    #[error("the prompt is empty, and the model has no token that opens a text; pass --prompt TEXT")]
    EmptyPrompt,
    /// The template wrote nothing.
    #[error("{}: the chat template makes an empty text of this conversation; correct it, or pass --prompt TEXT", path.display())]
    EmptyRendering {
        /// Where the template is.
        path: PathBuf,
    },
    /// The prompt alone is too long.
    #[error(
        "the prompt has {tokens} tokens, the context holds {context}; shorten it, or, for an artifact, compile with a larger --context"
    )]
    PromptTooLong {
        /// Tokens of the prompt, those that open a text included.
        tokens: usize,
        /// Positions there are.
        context: usize,
    },
    /// The f32 forward failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The runtime failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A model could not be run.
    #[error("cannot run the {side} on sequences {first} to {last}")]
    Forward {
        /// Model or reference.
        side: Side,
        /// First sequence of the batch, from 0.
        first: usize,
        /// Last sequence of the batch.
        last: usize,
        /// The reason.
        source: ForwardError,
    },
    /// An output has the wrong size.
    #[error("the {side} returned {found} values for sequence {sequence}; expected {rows} rows of {width}")]
    Shape {
        /// Model or reference.
        side: Side,
        /// Which sequence, from 0.
        sequence: usize,
        /// Rows that were expected.
        rows: usize,
        /// Columns that were expected.
        width: usize,
        /// Values that came.
        found: usize,
    },
    /// A batch came back with the wrong number of outputs.
    #[error("the {side} returned {found} outputs for {expected} sequences")]
    Count {
        /// Model or reference.
        side: Side,
        /// Sequences of the batch.
        expected: usize,
        /// Outputs that came.
        found: usize,
    },
    /// An output is NaN or infinite.
    #[error(
        "the {side} computed {value} at position {position} of sequence {sequence}; the model is damaged or overflows"
    )]
    NotFinite {
        /// Model or reference.
        side: Side,
        /// Which sequence, from 0.
        sequence: usize,
        /// Which position, from 0.
        position: usize,
        /// The first such value.
        value: f32,
    },
    /// Model and reference cannot be compared.
    #[error("the model has {model} outputs and the reference {reference}; compare models with the same {what}")]
    WidthsDiffer {
        /// Columns of the model.
        model: usize,
        /// Columns of the reference.
        reference: usize,
        /// Name of a column, plural.
        what: &'static str,
    },
    /// There is nothing to evaluate.
    #[error("there is nothing to evaluate: expected at least one sequence{with}")]
    Nothing {
        /// Further requirement of the sequence, with a space before it, or nothing.
        with: &'static str,
    },
    /// A target is not among the model's outputs.
    #[error(
        "token {token} of sequence {sequence} is outside the model's {width} outputs; use the model's own tokenizer"
    )]
    TokenOutside {
        /// The id.
        token: u32,
        /// Which sequence, from 0.
        sequence: usize,
        /// Columns of the output.
        width: usize,
    },
    /// The model's outputs and its label names do not match.
    #[error("the model has {width} outputs and its config names {labels} labels; correct `id2label`")]
    LabelCount {
        /// Columns of the output.
        width: usize,
        /// Labels of the config.
        labels: usize,
    },
    /// A text's label is not among the model's.
    #[error("line {line}: the model's config has no label `{label}`; expected one of {known}")]
    UnknownLabel {
        /// Line of the text's file, from 1.
        line: usize,
        /// The label.
        label: String,
        /// The first labels of the config, joined by commas.
        known: String,
    },
    /// An embedding has no direction.
    #[error("the {side}'s embedding of sequence {sequence} is zero and has no direction")]
    ZeroEmbedding {
        /// Model or reference.
        side: Side,
        /// Which sequence, from 0.
        sequence: usize,
    },
}
