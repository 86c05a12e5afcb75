//! Options that several commands share, each declared once and flattened, and the headings of the help. A group sets
//! its own heading, so the order of the fields of a command's `Args` is the order of the sections of its help.

use super::{BackendName, DenseModel, ModelOrArtifact, ReadFile, TargetName, TokenizerDirectory};
use crate::compile::residency::{Resident, Streaming};
use crate::model::device::{Backend, backend, device};
use crate::model::error::NameError;
use crate::stages::numerics::NumericsClass;
use crate::text::constraint::Constraint;
use crate::text::form::{Separator, TextForm};
use crate::text::reasoning::ReasoningForm;
use crate::train::samples::Data;
use burn::tensor::Device;
use clap::Arg;
use std::path::PathBuf;

/// Inputs and outputs.
pub const MODEL_AND_OUTPUT: &str = "Model and output";
/// Bits of every matrix.
pub const SCHEMES: &str = "Schemes";
/// Solver of the integers.
pub const ROUNDING: &str = "Rounding";
/// Choice of the weights to set to zero.
pub const PATTERN: &str = "Pattern";
/// Text that inputs are measured on.
pub const CALIBRATION: &str = "Calibration";
/// Text to train or measure on.
pub const DATA: &str = "Data";
/// Settings of a training run.
pub const TRAINING: &str = "Training";
/// What a training run minimises.
pub const LOSSES: &str = "Losses";
/// Adapters of low rank.
pub const ADAPTERS: &str = "Adapters";
/// Differential privacy.
pub const PRIVACY: &str = "Privacy";
/// Heads before the last layer.
pub const EXITS: &str = "Early exit";
/// Federated rounds.
pub const ROUNDS: &str = "Rounds";
/// What outputs follow.
pub const GRAMMAR: &str = "Grammar";
/// What sequences begin with.
pub const PREFIX: &str = "Prefix";
/// Guesses of the next tokens.
pub const DRAFTS: &str = "Drafts";
/// The device that the result is for.
pub const TARGET: &str = "Target";
/// Backend of this machine.
pub const COMPUTATION: &str = "Computation on this machine";

/// Renames the section of the model, for commands that write nothing.
pub fn without_output(argument: Arg) -> Arg {
    match argument.get_help_heading() {
        Some(MODEL_AND_OUTPUT) => argument.help_heading("Model"),
        _ => argument,
    }
}

/// The model that `quantize` and `prune` start from.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArg {
    /// Hugging Face directory, or a GGUF file
    ///
    /// A directory has config.json, model.safetensors or its shards, and tokenizer.json. A GGUF file is decoded matrix by
    /// matrix; of a model in several files pass the first.
    #[arg(value_name = "DIR|FILE.gguf", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    pub model: DenseModel,
}

/// The model that `eval` and `generate` run.
#[derive(Clone, Debug, clap::Args)]
pub struct RunnableArg {
    /// Artifact, or model: a directory or a GGUF file
    ///
    /// An artifact runs with the integers of the device, a model in f32.
    #[arg(value_name = "FILE.slm|MODEL", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    pub model: ModelOrArtifact,
}

/// The artifact that `verify` looks at.
#[derive(Clone, Debug, clap::Args)]
pub struct ArtifactArg {
    /// Artifact written by `slmc compile`
    #[arg(value_name = "FILE.slm")]
    pub artifact: PathBuf,
}

/// The directory that a command writes.
#[derive(Clone, Debug, clap::Args)]
pub struct OutArg {
    /// Directory to write; replaced if slmc made it
    #[arg(short, long, value_name = "OUT", help_heading = MODEL_AND_OUTPUT)]
    pub out: PathBuf,
}

/// A tokenizer other than the model's own.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenizerArg {
    /// Directory with tokenizer.json [default: the model's]
    ///
    /// For a model without one: a configuration to train from, or an artifact that was compiled with --device-only.
    /// `generate --chat` takes the chat template from there too. `distill` looks beside the student, then beside the
    /// teacher.
    #[arg(long, value_name = "DIR", help_heading = MODEL_AND_OUTPUT)]
    pub tokenizer: Option<TokenizerDirectory>,
}

/// How the texts of a file are told apart, and where labels are.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = DATA)]
pub struct TextArgs {
    /// JSONL key of the text; plain text has none
    ///
    /// A file with one JSON object per line needs it. Where every text has a label it is `text` by default, and
    /// `prompt` for `eval --task generate`.
    #[arg(long, value_name = "KEY")]
    pub field: Option<String>,

    /// What stands between the documents of a text file
    ///
    /// For example '\n\n', or '<|endoftext|>'. \n, \r, \t and \\ are line feed, carriage return, tab and backslash. For
    /// decoders every document ends with the model's end token, as every record of JSONL does; encoders take each as one text.
    /// Without it a text file is one document, or for encoders one text a line.
    #[arg(long, value_name = "TEXT", conflicts_with = "field", allow_hyphen_values = true)]
    pub separator: Option<Separator>,

    /// JSONL key of the label or answer
    ///
    /// For classifiers; for `eval --task generate` the answer that the model should give.
    #[arg(long, value_name = "KEY", default_value = "label")]
    pub label_field: String,
}

impl TextArgs {
    /// As the library takes it.
    pub fn form(&self) -> TextForm {
        TextForm { field: self.field.clone(), separator: self.separator.clone() }
    }

    /// Files with labels, as the library takes them.
    pub fn data(&self, files: Vec<PathBuf>) -> Data {
        Data { files, form: self.form(), label_field: self.label_field.clone(), reasoning: ReasoningForm::default() }
    }
}

/// The keys of records with a prompt and an answer.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = DATA)]
pub struct RecordKeys {
    /// JSONL key of the prompt of records [default: prompt]
    #[arg(long, value_name = "KEY")]
    pub prompt_field: Option<String>,

    /// JSONL key of their answer [default: answer]
    #[arg(long, value_name = "KEY")]
    pub answer_field: Option<String>,
}

impl RecordKeys {
    /// How records are read, all of them learned.
    pub fn form(&self) -> ReasoningForm {
        let own = ReasoningForm::default();
        ReasoningForm {
            prompt: self.prompt_field.clone().unwrap_or(own.prompt),
            answer: self.answer_field.clone().unwrap_or(own.answer),
            ..own
        }
    }
}

/// The text that inputs are measured on.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = CALIBRATION)]
pub struct CalibrationArgs {
    /// Text to calibrate with; JSONL needs --field
    ///
    /// Without it a decoder samples text from itself, and an encoder uses the text that ships with slmc. Methods that
    /// do not look at inputs read nothing.
    #[arg(long, value_name = "TEXT")]
    pub calibration: Option<ReadFile>,
}

/// What outputs follow.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = GRAMMAR)]
pub struct ConstraintArgs {
    /// Rules that every output follows, like GBNF
    ///
    /// `root ::= "yes" | "no"`: literals, `[classes]`, (groups), | ? * + {m,n}, rules by name.
    #[arg(long, value_name = "FILE", group = "constraint")]
    pub grammar: Option<ReadFile>,

    /// JSON schema that every output is an instance of
    ///
    /// Members in the order of the schema, without white space. A keyword that is not supported is refused by name.
    #[arg(long, value_name = "FILE.json", group = "constraint")]
    pub json_schema: Option<ReadFile>,

    /// Regular expression that every output matches whole
    #[arg(long, value_name = "EXPRESSION", group = "constraint", allow_hyphen_values = true)]
    pub regex: Option<String>,

    /// Texts of which every output is one
    ///
    /// One a line, or a JSON list of strings.
    #[arg(long, value_name = "FILE", group = "constraint")]
    pub choices: Option<ReadFile>,
}

impl ConstraintArgs {
    /// As the library takes it; `None` where nothing is asked for.
    pub fn constraint(&self) -> Option<Constraint> {
        let file = |file: &Option<ReadFile>| file.as_ref().map(|file| file.to_path_buf());
        file(&self.grammar)
            .map(Constraint::Rules)
            .or_else(|| file(&self.json_schema).map(Constraint::Schema))
            .or_else(|| self.regex.clone().map(Constraint::Expression))
            .or_else(|| file(&self.choices).map(Constraint::Choices))
    }
}

/// Weights in slow storage.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = TARGET)]
pub struct StreamingArgs {
    /// Stream weights from slow storage, and keep this much of them in RAM: BYTES, least, auto
    ///
    /// For devices that cannot address the storage: the file is read through two buffers, matrix by matrix, with the same
    /// results. The tensors that save a token the most reading stay in RAM, within BYTES; least: those alone that must; auto:
    /// as many as the target's RAM leaves beside arena, cache, buffers and stack.
    #[arg(long, value_name = "BYTES|least|auto")]
    pub resident: Option<Resident>,

    /// Bytes of each of the two buffers [default: the least that take leaves of 4096]
    #[arg(long, value_name = "BYTES", requires = "resident", value_parser = clap::value_parser!(u64).range(64..=1 << 30))]
    pub stream_buffer: Option<u64>,
}

impl StreamingArgs {
    /// As the library takes it; `None` where weights are read where they lie.
    pub fn streaming(&self) -> Option<Streaming> {
        self.resident.map(|resident| Streaming { resident, buffer_bytes: self.stream_buffer })
    }
}

/// The device that sizes are counted for.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = TARGET)]
pub struct TargetArg {
    /// Name of `slmc targets`, or a file
    ///
    /// The device whose packing sizes are counted for.
    #[arg(long, value_name = "NAME", default_value = "generic")]
    pub target: TargetName,
}

/// The backend that the f32 model computes with.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = COMPUTATION)]
pub struct BackendArg {
    /// Backend of the f32 model: flex, ndarray
    ///
    /// Calibration, training and models in directories run on it; artifacts do not. flex is the fast one, ndarray an
    /// independent second opinion. A build with the cargo feature cuda or wgpu has that too, with the number of the device or
    /// without: cuda:0. One with the feature workers has remote:HOST:PORT,…, for training alone: the pieces of a step go to
    /// `slmc worker`s in turn, and remote by itself to those that SLMC_WORKERS names. `slmc doctor` names what this build
    /// has.
    #[arg(long, alias = "device", value_name = "NAME", default_value = "flex")]
    pub backend: BackendName,
}

/// The class of results that work must have.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = COMPUTATION)]
pub struct NumericsArg {
    /// Refuse work whose bits are not of CLASS: portable, x86-64-v3, …
    ///
    /// portable: the same bits on every CPU, which all work on the flex backend has except --scheme auto and --sweep of
    /// `quantize`. A class of CPUs, x86-64-v2, x86-64-v3, x86-64-v4 or aarch64-neon: portable, or made on such a machine. The
    /// class of a result is in its slmc.json, under `numerics`. No option makes results slower or faster.
    #[arg(long, value_name = "CLASS")]
    pub numerics: Option<NumericsClass>,
}

impl BackendArg {
    /// The device of that backend, as burn has it, for work that workers do not do.
    ///
    /// # Errors
    /// A name that no backend of this build has, or that of workers.
    pub fn device(&self) -> Result<Device, NameError> {
        device(&self.backend)
    }

    /// The backend of a stage that trains.
    ///
    /// # Errors
    /// A name that no backend of this build has, or an address that is none.
    pub fn training(&self) -> Result<Backend, NameError> {
        backend(&self.backend)
    }

    /// The backend of a stage that trains only where it is asked for.
    ///
    /// # Errors
    /// As [`BackendArg::training`], and workers where nothing is trained.
    pub fn training_if(&self, trains: bool) -> Result<Backend, NameError> {
        match self.training()? {
            Backend::Remote(_) if !trains => Err(NameError::OnlyTraining),
            backend => Ok(backend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        backend: BackendArg,
    }

    #[test]
    fn the_older_name_of_backend_goes_on_working() {
        let name = |arguments: &[&str]| {
            let program = Program::try_parse_from(["slmc"].iter().chain(arguments));
            program.map(|program| program.backend.backend.0)
        };
        assert_eq!(name(&[]).as_deref().ok(), Some("flex"));
        assert_eq!(name(&["--backend", "ndarray"]).as_deref().ok(), Some("ndarray"));
        assert_eq!(name(&["--device", "ndarray"]).as_deref().ok(), Some("ndarray"));
        assert!(name(&["--device", "ndarray", "--backend", "flex"]).is_err());
    }
}
