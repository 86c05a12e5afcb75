//! What a decision of an artifact rests on: attention by layer and head, as the runtime's own softmax weighs it, and the
//! share of each input token in what was chosen, by occlusion on the integer runtime. Decoders choose the likeliest next
//! tokens, classifiers a label. docs/attribution.md has the definitions and their sources.

pub mod observe;
mod occlude;
mod page;
mod replacement;
mod report;
mod shade;

pub use page::{MAGIC, PageRequest};
pub use replacement::{Replacement, Role};
pub use report::{AttributeReport, Choice, Head, InputToken, Share};

use crate::artifact::host::{ArtifactFile, SessionMemory};
use crate::divergence::{argmax, nll};
use crate::eval::EvalError;
use crate::eval::generate::Prompt;
use crate::eval::opened::{OpenedModel, Task, tokenizer_at};
use crate::machine::kernels::{kernel_name, kernels_for};
use crate::progress::Progress;
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use observe::{Row, observe};
use occlude::{Choices, occlude, shares};
use report::text_of;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::session::{Session, SessionError};
use std::path::PathBuf;

/// Most tokens whose whole matrices of attention are kept: a byte of a page and a number of JSON for every pair of them,
/// layer and head.
pub const MOST_MAPPED: usize = 256;

/// What is asked.
#[derive(Clone, Debug)]
pub struct AttributeOptions {
    /// A text, or a conversation through the model's chat template.
    pub prompt: Prompt,
    /// Most tokens that a decoder chooses.
    pub tokens: usize,
    /// Spelling of the token that hides another; `None`: the tokenizer's own for that.
    pub replace: Option<String>,
    /// Whether the whole matrices of attention are kept.
    pub matrices: bool,
    /// Directory with a tokenizer, for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
}

/// Why nothing is attributed.
#[derive(Debug, thiserror::Error)]
pub enum AttributeError {
    /// The artifact, its tokenizer or its template cannot be used.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The runtime stopped.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No text.
    #[error("the prompt is empty: there is no token whose share could be measured; pass --prompt TEXT")]
    Empty,
    /// Special tokens only.
    #[error("the prompt has no token but special ones, and these are not replaced; pass a longer --prompt")]
    OnlySpecial,
    /// An encoder that chooses nothing.
    #[error(
        "{}: an encoder without labels chooses nothing, its output is {output}; attribution needs a classifier or a decoder",
        path.display()
    )]
    NoLabels {
        /// The artifact.
        path: PathBuf,
        /// What it computes.
        output: &'static str,
    },
    /// A classifier reads one text.
    #[error(
        "--chat, --messages and --tokens are for decoders, and this model is a classifier; pass --prompt TEXT alone"
    )]
    OfDecoders,
    /// Nothing to choose.
    #[error("--tokens 0 chooses nothing; pass 1 or more")]
    NoTokens,
    /// The token to hide others with is not in the vocabulary.
    #[error(
        "`{token}` is not a token of this vocabulary; --replace takes the spelling of one, such as [MASK] or <unk>"
    )]
    UnknownReplacement {
        /// As given.
        token: String,
    },
    /// The vocabulary has no token for it.
    #[error(
        "the tokenizer has no mask, unknown or padding token and the model no end token to put in the place of a token; name one \
         with --replace TOKEN"
    )]
    NoReplacement,
    /// Too long for whole matrices.
    #[error(
        "whole matrices of attention are kept of at most {most} tokens, these are {tokens}; shorten the prompt, or leave \
         --report and --matrices out",
        most = MOST_MAPPED
    )]
    TooLongToMap {
        /// Tokens read.
        tokens: usize,
    },
}

/// Attributes what an artifact chooses after a prompt.
///
/// # Errors
/// [`AttributeError`].
pub fn attribute(
    file: ArtifactFile,
    options: &AttributeOptions,
    progress: &dyn Progress,
) -> Result<AttributeReport, AttributeError> {
    let model = OpenedModel::artifact(file.clone())?;
    let view = file.view().map_err(EvalError::from)?;
    let classifier = match model.task {
        Task::LanguageModel => false,
        Task::Classifier => true,
        Task::MaskedLanguageModel | Task::TokenClassifier | Task::Answers | Task::Hidden => {
            let output = match model.task {
                Task::Hidden => "hidden states",
                Task::TokenClassifier => "labels of tokens",
                Task::Answers => "places of answers",
                _ => "logits of masked tokens",
            };
            return Err(AttributeError::NoLabels { path: file.path().to_owned(), output });
        }
    };
    if options.tokens == 0 {
        return Err(AttributeError::NoTokens);
    }
    if classifier && (options.tokens > 1 || matches!(options.prompt, Prompt::Chat(_))) {
        return Err(AttributeError::OfDecoders);
    }
    let mut tokenizer = match &options.tokenizer {
        Some(directory) => tokenizer_at(directory)?,
        None => model.tokenizer()?,
    };
    tokenizer.check(model.vocabulary)?;
    let (prompt, rendered) = prompt(&model, &tokenizer, options, classifier)?;
    if prompt.len() > model.context {
        return Err(EvalError::PromptTooLong { tokens: prompt.len(), context: model.context }.into());
    }
    let special = tokenizer.special_ids();
    let is_special = |position: usize| {
        let opens = !classifier && rendered.is_none() && position < model.opening.len();
        opens || special.binary_search(&prompt[position]).is_ok()
    };
    if (0..prompt.len()).all(is_special) {
        return Err(AttributeError::OnlySpecial);
    }
    let replacement = Replacement::of(&tokenizer, options.replace.as_deref(), &model.ends)?;
    let chosen = match classifier {
        true => vec![label(&view, &prompt)?],
        false => next_tokens(&view, &prompt, options.tokens, &model.ends, progress)?,
    };
    // The last choice is not read.
    let further = chosen[..chosen.len() - 1].iter().map(|&token| token as u32);
    let tokens: Vec<u32> = if classifier { prompt.clone() } else { prompt.iter().copied().chain(further).collect() };
    if options.matrices && tokens.len() > MOST_MAPPED {
        return Err(AttributeError::TooLongToMap { tokens: tokens.len() });
    }
    // A classifier chooses by the state of the first position, one that is a decoder by that of the last.
    let from = if classifier && !view.spec().is_decoder() { 0 } else { prompt.len() - 1 };
    let observed = observe(&view, &tokens, &|position| {
        options.matrices || if classifier { position == from } else { position >= from }
    })?;
    let positions: Vec<usize> =
        (0..tokens.len()).filter(|&position| position >= prompt.len() || !is_special(position)).collect();
    let choices = Choices { tokens: &tokens, from, chosen: &chosen };
    let changes = occlude(&view, &choices, &positions, replacement.id, progress)?;

    let vocabulary = tokenizer.vocabulary_bytes(model.vocabulary)?;
    let text = |id: u32| text_of(&tokenizer, &vocabulary, id);
    let input = |(position, &id): (usize, &u32)| InputToken {
        position,
        id,
        text: text(id),
        special: position < prompt.len() && is_special(position),
        generated: position >= prompt.len(),
    };
    let inputs = tokens.iter().enumerate().map(input).collect();
    let mut notes = Vec::new();
    if view.section(SectionKind::Grammar).is_some() {
        notes.push("chosen among all tokens: the artifact's grammar is not followed here".to_owned());
    }
    let outputs = if classifier { &observed.outputs[..] } else { &observed.outputs[from..] };
    let choice = |(number, (&chosen, row)): (usize, (&usize, &Vec<f32>))| {
        let position = from + number;
        let before: Vec<usize> = match classifier {
            true => (0..positions.len()).collect(),
            false => (0..positions.len()).filter(|&at| positions[at] <= position).collect(),
        };
        let of_choice: Vec<f64> = before.iter().map(|&at| changes[at][number]).collect();
        let shares = before.iter().zip(shares(&of_choice)).zip(&of_choice);
        let log_probability = -nll(row, chosen);
        Choice {
            id: chosen as u32,
            text: if classifier {
                model.labels.get(chosen).cloned().unwrap_or_else(|| chosen.to_string())
            } else {
                text(chosen as u32)
            },
            position,
            log_probability,
            probability: log_probability.exp(),
            shares: shares.map(|((&at, share), &change)| Share { position: positions[at], change, share }).collect(),
            attention: heads(&observed.rows, position),
        }
    };
    let choices: Vec<Choice> = chosen.iter().zip(outputs).enumerate().map(choice).collect();
    Ok(AttributeReport {
        chooses: if classifier { "label" } else { "next token" },
        kernel: kernel_name(&view),
        artifact: file.path().display().to_string(),
        prompt: rendered,
        replacement,
        inputs,
        choices,
        matrices: options.matrices.then(|| observed.rows.iter().map(Head::of).collect()),
        notes,
    })
}

/// Tokens of the prompt, and what a template made of a conversation.
fn prompt(
    model: &OpenedModel,
    tokenizer: &Tokenizer,
    options: &AttributeOptions,
    classifier: bool,
) -> Result<(Vec<u32>, Option<String>), AttributeError> {
    Ok(match &options.prompt {
        Prompt::Text(text) if text.is_empty() => return Err(AttributeError::Empty),
        Prompt::Text(text) if classifier => (tokenizer.encode_with_specials(text)?, None),
        Prompt::Text(text) => ([model.opening.clone(), tokenizer.encode_plain(text)?].concat(), None),
        Prompt::Tokens(tokens) if tokens.is_empty() => return Err(AttributeError::Empty),
        Prompt::Tokens(tokens) => (tokens.clone(), None),
        Prompt::Chat(conversation) => {
            let template = model.chat_template(options.tokenizer.as_deref())?;
            let rendered = template.render(conversation).map_err(EvalError::from)?;
            if rendered.trim().is_empty() {
                return Err(EvalError::EmptyRendering { path: template.path().to_owned() }.into());
            }
            (tokenizer.encode_plain(&rendered)?, Some(rendered))
        }
    })
}

/// The label with the largest output.
fn label(view: &ArtifactView<'_>, tokens: &[u32]) -> Result<usize, AttributeError> {
    let mut memory = SessionMemory::for_artifact(view);
    let mut session = Session::new(view, kernels_for(view.layout()), memory.as_mut_slice())?;
    let mut label = 0;
    session.run(tokens, &mut |_, row| label = argmax(row))?;
    Ok(label)
}

/// The likeliest next tokens, until one of `ends`, or as many as were asked for or the context holds.
fn next_tokens(
    view: &ArtifactView<'_>,
    prompt: &[u32],
    most: usize,
    ends: &[u32],
    progress: &dyn Progress,
) -> Result<Vec<usize>, AttributeError> {
    let mut memory = SessionMemory::for_artifact(view);
    let mut session = Session::new(view, kernels_for(view.layout()), memory.as_mut_slice())?;
    let room = view.spec().context as usize - prompt.len() + 1;
    let most = most.min(room);
    progress.begin("choosing", most as u64, "tokens");
    let mut chosen = vec![argmax(session.step(prompt)?)];
    while chosen.len() < most && !ends.contains(&(chosen[chosen.len() - 1] as u32)) {
        progress.advance(1);
        let last = chosen[chosen.len() - 1] as u32;
        chosen.push(argmax(session.step(&[last])?));
    }
    progress.finish();
    Ok(chosen)
}

/// The rows of attention at one position.
fn heads(rows: &[Row], position: usize) -> Vec<Head> {
    rows.iter().filter(|row| row.position == position).map(Head::of).collect()
}
