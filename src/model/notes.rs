//! What was found in the files of a model and decided about it, where a person may want to know: what was left out, and
//! what the files do not say themselves.

use super::families::ContextLimit;
use std::fmt;
use std::path::PathBuf;

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// `model_type` is absent and the tensors are those of one family.
    ModelType {
        /// The family.
        model_type: &'static str,
    },
    /// `architectures` is absent and the tensors are those of one class.
    Architecture {
        /// The class.
        architecture: &'static str,
    },
    /// What training or saving put before, or into, the names of tensors, and was taken off.
    Wrapped {
        /// As it stands in the files.
        wrappers: Vec<String>,
        /// How many names.
        tensors: usize,
    },
    /// A tied table is stored under the name of the other.
    TiedUnder {
        /// The tensor that is there.
        found: String,
        /// The usual one.
        usual: String,
    },
    /// Matrices that another tool has packed into integers.
    Packed {
        /// The method.
        method: &'static str,
        /// How many matrices.
        matrices: usize,
        /// Bits of an integer.
        bits: usize,
        /// Columns that share a scale; `None` where a whole row does.
        group: Option<usize>,
    },
    /// An adapter that stands on its base.
    Adapted {
        /// The base.
        base: PathBuf,
        /// How many tensors are not the base's.
        tensors: usize,
    },
    /// Matrices of which two of every four values are stored.
    Scattered {
        /// How many.
        matrices: usize,
    },
    /// Biases of zeros beside packed matrices of a model without biases.
    ZeroBiases {
        /// The method.
        method: &'static str,
        /// How many.
        matrices: usize,
    },
    /// Scales of inputs and caches beside packed matrices.
    InputScales {
        /// The method.
        method: &'static str,
        /// How many tensors.
        tensors: usize,
    },
    /// Special tokens that the model cannot have.
    OutsideVocabulary {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The ids.
        ids: Vec<i64>,
        /// Rows of the token table.
        vocabulary: usize,
    },
    /// A setting of generation_config.json that slmc does not follow.
    NotFollowed {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A module stands in another place than modules.json states.
    ModuleMoved {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// As stated.
        stated: String,
        /// The folder that was read.
        folder: String,
    },
    /// Modules of a sentence encoder beside a model with another output.
    ModulesUnused {
        /// The file.
        file: PathBuf,
        /// The output of the model.
        output: &'static str,
    },
    /// A pooling that no modules.json lists.
    PoolingNotListed {
        /// The file.
        file: PathBuf,
    },
    /// A prompt that sentence-transformers puts before every text.
    DefaultPrompt {
        /// The file.
        file: PathBuf,
        /// Its name.
        name: String,
        /// The prompt.
        text: String,
    },
    /// Tokens of prompts are to be left out of the pooling.
    PromptCounts {
        /// The file.
        file: PathBuf,
    },
    /// The model is another one beyond some position, and is read up to there.
    FewerPositions {
        /// The configuration.
        file: PathBuf,
        /// Positions that are read, those that are stated, and what changes beyond.
        limit: ContextLimit,
    },
    /// A tokenizer that could not be made of what the file says.
    NoTokenizer {
        /// The file.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// Something that the file does not say, or that was left out.
    Uncertain {
        /// The file.
        file: PathBuf,
        /// In words that follow the file's name.
        doubt: String,
    },
    /// Tokens of the tokenizer for which the model has no row.
    TokensWithoutRow {
        /// The tokenizer.
        file: PathBuf,
        /// Ids with their spellings.
        tokens: Vec<(u32, String)>,
        /// Rows of the token table.
        vocabulary: usize,
    },
}

impl Note {
    /// Whether something was left out that a person may miss.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Note::OutsideVocabulary { .. }
                | Note::TokensWithoutRow { .. }
                | Note::NotFollowed { .. }
                | Note::PoolingNotListed { .. }
                | Note::DefaultPrompt { .. }
                | Note::PromptCounts { .. }
                | Note::FewerPositions { .. }
                | Note::NoTokenizer { .. }
                | Note::Uncertain { .. }
        )
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::ModelType { model_type } => {
                write!(f, "config.json has no `model_type`; by its tensors the model is `{model_type}`")
            }
            Note::Architecture { architecture } => {
                write!(f, "config.json has no `architectures`; by its tensors the model is `{architecture}`")
            }
            Note::Wrapped { wrappers, tensors } => {
                let list: Vec<String> = wrappers.iter().map(|wrapper| format!("`{wrapper}`")).collect();
                write!(f, "{} was taken off the names of {tensors} tensors", list.join(" and "))
            }
            Note::TiedUnder { found, usual } => {
                write!(f, "tensor `{found}` stands for `{usual}`, which config.json ties it to and which is absent")
            }
            Note::Packed { method, matrices, bits, group } => {
                let group = group.map_or_else(|| "one scale a row".to_owned(), |group| format!("groups of {group}"));
                write!(
                    f,
                    "{matrices} matrices are integers of {method}, {bits} bits, {group}; they are converted to f32 when read"
                )
            }
            Note::Adapted { base, tensors } => {
                write!(f, "{tensors} tensors of {} are merged with the adapter's when read", base.display())
            }
            Note::Scattered { matrices } => {
                write!(f, "{matrices} matrices are stored as two of every four values; the others are zero")
            }
            Note::ZeroBiases { method, matrices } => {
                write!(
                    f,
                    "{matrices} biases beside matrices of {method} are zero, and the model has none; they are left out"
                )
            }
            Note::InputScales { method, tensors } => {
                write!(
                    f,
                    "{tensors} tensors of {method} hold scales of inputs or caches, which slmc finds itself; they are left out"
                )
            }
            Note::OutsideVocabulary { file, key, ids, vocabulary } => {
                let list: Vec<String> = ids.iter().map(ToString::to_string).collect();
                let (verb, them) = if ids.len() == 1 { ("is", "it is") } else { ("are", "they are") };
                let verb = if key == "eos_token_id" { "has" } else { verb };
                write!(
                    f,
                    "{}: `{key}` {verb} {}, outside the vocabulary of {vocabulary}; {them} left out",
                    file.display(),
                    list.join(", ")
                )
            }
            Note::NotFollowed { file, key, value } => write!(
                f,
                "{}: `{key}` is {value}; slmc does not choose tokens by it, so texts differ from those of transformers",
                file.display()
            ),
            Note::ModuleMoved { file, key, stated, folder } => write!(
                f,
                "{}: `{key}` is `{stated}`; the folder `{folder}` of the model's directory was read",
                file.display()
            ),
            Note::ModulesUnused { file, output } => write!(
                f,
                "{} is not followed: by `architectures` the model gives {output}, not sentence vectors",
                file.display()
            ),
            Note::PoolingNotListed { file } => write!(
                f,
                "{} is not followed, since modules.json, which lists it, is absent; fetch that file too",
                file.display()
            ),
            Note::DefaultPrompt { file, name, text } => write!(
                f,
                "{}: by `default_prompt_name` every text begins with the prompt `{name}`, {text:?}; slmc adds none: put it \
                 before the texts",
                file.display()
            ),
            Note::PromptCounts { file } => write!(
                f,
                "{}: `include_prompt` is false; slmc does not know which tokens of a text are a prompt, and pools all",
                file.display()
            ),
            Note::FewerPositions { file, limit } => write!(
                f,
                "{}: `max_position_embeddings` is {}; beyond the {} positions of `{}` {}, which is another model: it is read \
                 with a context of {}",
                file.display(),
                limit.stated,
                limit.context,
                limit.key,
                limit.beyond,
                limit.context
            ),
            Note::NoTokenizer { file, problem } => write!(
                f,
                "{}: the tokenizer cannot be rebuilt: {problem}; pass --tokenizer DIR (to `slmc import`, where a command has none), a directory with the model's \
                 tokenizer.json",
                file.display()
            ),
            Note::Uncertain { file, doubt } => write!(f, "{} {doubt}", file.display()),
            Note::TokensWithoutRow { file, tokens, vocabulary } => {
                let (first, last) = (&tokens[0], &tokens[tokens.len() - 1]);
                let file = file.display();
                if tokens.len() == 1 {
                    let (id, token) = first;
                    return write!(
                        f,
                        "{file}: token {id} `{token}` has no row in the model's table of {vocabulary}; it is left out, and \
                         a text that needs it is refused"
                    );
                }
                write!(
                    f,
                    "{file}: {} tokens, {} `{}` to {} `{}`, have no row in the model's table of {vocabulary}; they are left \
                     out, and a text that needs one is refused",
                    tokens.len(),
                    first.0,
                    first.1,
                    last.0,
                    last.1
                )
            }
        }
    }
}
