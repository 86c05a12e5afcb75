//! Why a stage has no result: one error for all of them. Errors of other rooms pass through with their texts; the rest
//! only a stage can see, since it has the models, the text and the options together.

use super::rounds::ClientError;
use super::synthesize::SynthesisError;
use crate::allocate::error::AllocationError;
use crate::artifact::host::ArtifactError;
use crate::audit::AuditError;
use crate::calibrate::CalibrateError;
use crate::compile::CompileError;
use crate::data::DataError;
use crate::disk::ConfigError;
use crate::disk::atomic::AtomicError;
use crate::disk::hash::HashError;
use crate::eval::EvalError;
use crate::firmware::FirmwareError;
use crate::formats::ModelFormatError;
use crate::formats::export::ExportError;
use crate::model::size::SizeError;
use crate::model::transform::MaskError;
use crate::model::weights::ModelError;
use crate::page::PageError;
use crate::prune::{PruneError, SelectionError};
use crate::quantize::error::{CalibrationError, RoundingError};
use crate::quantize::policy::PolicyError;
use crate::shrink::ShrinkError;
use crate::text::chat_template::ChatTemplateError;
use crate::text::constraint::ConstraintError;
use crate::text::conversations::ConversationsError;
use crate::text::records::TextError;
use crate::text::tokenizer::TokenizerError;
use crate::text::trimming::TrimError;
use crate::text::windows::WindowError;
use crate::train::checkpoint::CheckpointError;
use crate::train::error::TrainError;
use crate::train::retrain::RetrainError;
use crate::train::rounds::RoundError;
use crate::train::samples::SamplesError;
use crate::train::scope::ScopeError;
use crate::train::start::StartError;
use crate::train::student::LayerError;
use std::path::PathBuf;

/// Why a stage has no result.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A command that is for models of one stack of layers.
    #[error("{family} is an encoder-decoder, {lacks}; slmc trains, distills, evaluates and generates with it in f32")]
    EncoderDecoder {
        /// The model.
        family: &'static str,
        /// Why the command refuses it.
        lacks: &'static str,
    },
    /// A page that runs the artifact.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A grammar is refused.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The folder of firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// A log whose records are damaged, or that is something else.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A log of records without the texts that were asked.
    #[error("{}: is an audit log, which holds digests and not texts; pass the texts with --log-texts, rows with `sequence`", path.display())]
    LogTexts {
        /// The log.
        path: PathBuf,
    },
    /// Texts by numbers of records, and a log without records.
    #[error("{}: --log-texts joins texts to the records of an audit log, and this is none; pass the texts with --log", path.display())]
    NotALog {
        /// The log.
        path: PathBuf,
    },
    /// A text that no answered question of the log has.
    #[error("{}:{line}: {fault}; every row needs the `sequence` of an answered question", path.display())]
    LogRow {
        /// The file of the texts.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The fault.
        fault: String,
    },
    /// An artifact that is read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The model's files cannot be read or written.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// The model's values cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The input's slmc.json cannot be read.
    #[error(transparent)]
    Provenance(#[from] ConfigError),
    /// The output path cannot be written.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// A quantized directory in the place of a model to import.
    #[error("{}: is slmc's own quantized directory; `import` writes models that have floating-point weights", path.display())]
    ImportQuantized {
        /// The directory.
        path: PathBuf,
    },
    /// The format does not hold the model.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A format that nothing is exported to.
    #[error("--format {found}: slmc exports {known}")]
    ExportFormat {
        /// As it was asked for.
        found: String,
        /// Those that it has.
        known: String,
    },
    /// A quantized directory in the place of a model to trim.
    #[error("{}: is quantized; trim the dense model that it was made from, then quantize the result", path.display())]
    TrimQuantized {
        /// The directory.
        path: PathBuf,
    },
    /// Data cannot be prepared.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A limit that no number is within.
    #[error("--{name} is {value}; expected a number from 0 on")]
    Limit {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// A share that is none.
    #[error("--{name} is {value}; expected a share up to 1{}", if *name == "similarity" { ", from 0.1 on" } else { ", from 0 on" })]
    Share {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// As many weights as files are needed.
    #[error("--file-weights gives {weights} and --data {files} files; give one weight for each file, in their order")]
    FileWeights {
        /// Weights.
        weights: usize,
        /// Files.
        files: usize,
    },
    /// A weight that cannot be.
    #[error("--file-weights {value}: expected numbers from 0 to 1000")]
    FileWeight {
        /// The weight.
        value: f64,
    },
    /// The vocabulary cannot be trimmed.
    #[error(transparent)]
    Trim(#[from] TrimError),
    /// An input cannot be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The state of an interrupted run cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer cannot be read or does not fit the model.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template is refused.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// A text file cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Conversations cannot be used.
    #[error(transparent)]
    Conversations(#[from] ConversationsError),
    /// The text to calibrate with, or to train a changed model back on, cannot be read or sampled.
    #[error(transparent)]
    CalibrationText(#[from] CalibrationError),
    /// The calibration run failed.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// No student can be cut out of the teacher.
    #[error(transparent)]
    Shrink(#[from] ShrinkError),

    /// `quantize` was given integers.
    #[error("{}: is already quantized; quantize the dense checkpoint it was made from", path.display())]
    AlreadyQuantized {
        /// Path of the input.
        path: PathBuf,
    },
    /// `--method keep` of a model that holds no integers which fit.
    #[error("{}: --method keep takes over integers of the model, and of this one ({format}) none fit (the last matrix would be {reason}); take --method rtn, search or gptq", path.display())]
    NothingToKeep {
        /// Path of the input.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// Why the last matrix does not fit.
        reason: String,
    },
    /// `--method keep` with something that would change the weights or the schemes before.
    #[error(
        "--method keep takes the integers of the model as they are; without {0}, or with --method rtn, search or gptq"
    )]
    KeepOnly(&'static str),
    /// The schemes do not fit the model.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// No assignment fits the budget.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// The model has no size in these schemes.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Rounding, equalising or tuning failed.
    #[error(transparent)]
    Rounding(#[from] RoundingError),

    /// `prune` was given integers.
    #[error(
        "{}: is quantized; prune the dense checkpoint it was made from, then quantize the result",
        path.display()
    )]
    PruneQuantized {
        /// Path of the input.
        path: PathBuf,
    },
    /// `--only` selects nothing that can be pruned.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The pattern does not fit a matrix.
    #[error(transparent)]
    Mask(#[from] MaskError),

    /// The model to start from cannot be opened or made.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The layers of student and teacher cannot be paired.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// The training data cannot be read.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// The training run failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The part that is to be trained is not there.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// A client that does not belong to the round.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The updates of clients cannot be averaged.
    #[error(transparent)]
    Round(RoundError),
    /// Adapters that would stand on nothing.
    #[error(
        "--lora-output adapter writes what is added to a base, and this run starts from {0}; write it --lora-output merged, or train          adapters on the merged model afterwards"
    )]
    NoBase(&'static str),
    /// `--layers` without a teacher.
    #[error("--layers takes layers of the teacher, and there is none; pass --teacher DIR")]
    LayersWithoutTeacher,
    /// Tokens mean different things to student and teacher.
    #[error(
        "student and teacher have different {what}: {student} and {teacher}; they must share one for the comparison of what they predict; where they cannot, train the student on text of the teacher: slmc synthesize TEACHER --prompts FILE"
    )]
    StudentDiffers {
        /// The property in which they differ, plural.
        what: &'static str,
        /// The student's value.
        student: String,
        /// The teacher's value.
        teacher: String,
    },

    /// A model writes no text.
    #[error(transparent)]
    Synthesis(#[from] SynthesisError),

    /// The model cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),

    /// A model cannot be opened for evaluation, or cannot generate answers.
    #[error(transparent)]
    Evaluation(#[from] EvalError),
    /// The evaluation on a text failed.
    #[error("{}: {source}", path.display())]
    Eval {
        /// Path of the text.
        path: PathBuf,
        /// The reason.
        source: EvalError,
    },
    /// The text cannot be cut into windows.
    #[error("{}: {source}", path.display())]
    Window {
        /// Path of the text.
        path: PathBuf,
        /// The reason.
        source: WindowError,
    },
    /// The model's output is not that of the task.
    #[error("the model gives {output}, which --task {task} cannot measure; tasks that can: {can}")]
    Task {
        /// The output of the model.
        output: &'static str,
        /// The task asked for.
        task: &'static str,
        /// Tasks to ask for.
        can: &'static str,
    },
    /// The tokenizer has no token for hidden ones.
    #[error("the tokenizer has no [MASK] token, which --task mlm needs")]
    NoMask,
    /// Model and reference cannot be compared.
    #[error(
        "model and reference differ in {what}: {model} and {reference}; pass the checkpoint the model was made from"
    )]
    ReferenceDiffers {
        /// The property in which they differ.
        what: &'static str,
        /// The model's value.
        model: String,
        /// The reference's value.
        reference: String,
    },
}

impl From<PruneError> for StageError {
    fn from(error: PruneError) -> Self {
        match error {
            PruneError::Model(error) => error.into(),
            PruneError::Mask(error) => error.into(),
            PruneError::Calibrate(error) => error.into(),
        }
    }
}

impl From<RetrainError> for StageError {
    fn from(error: RetrainError) -> Self {
        match error {
            RetrainError::Model(error) => error.into(),
            RetrainError::Layers(error) => error.into(),
            RetrainError::Train(error) => error.into(),
        }
    }
}
