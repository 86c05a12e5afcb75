//! The work of `slmc train --round-from`: what clients trained from one start is averaged. That they did, and with how many
//! tokens, is in the slmc.json of their directories.

use super::StageError;
use super::invocation::Invocation;
use super::provenance::{Inputs, of_weights};
use crate::disk::atomic;
use crate::disk::hash::hex;
use crate::formats::{self, Description, ModelSink, hugging_face};
use crate::machine::PORTABLE;
use crate::model::transform::HeldMasks;
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::report::{Align, Report, Table, grouped};
use crate::text::tokenizer::token_table;
use crate::train::rounds::{Averaged, Averaging, RoundError, average};
use crate::train::start::{self, StartError};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Options of a round, checked.
#[derive(Clone, Debug)]
pub struct RoundOptions {
    /// The model that every client started from.
    pub start: PathBuf,
    /// Directories that clients wrote.
    pub clients: Vec<PathBuf>,
    /// Weight of each; tokens by their provenance if absent.
    pub weights: Option<Vec<f64>>,
    /// Largest norm of an update.
    pub clip: Option<f64>,
    /// Noise over the most that one client can change.
    pub noise: Option<f64>,
    /// Directory to write.
    pub out: PathBuf,
    /// The command, for the provenance.
    pub invocation: Invocation,
}

/// Why clients do not make a round.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing says how it was made.
    #[error("{}: has no slmc.json of `slmc train` or `slmc distill`, so that nothing says where it started; pass what a client's training wrote", path.display())]
    Unknown {
        /// The client.
        path: PathBuf,
    },
    /// It started elsewhere.
    #[error(
        "{}: was trained from another start: SHA-256 {}…, and {} has {}…; clients of one round train the same model",
        path.display(), short(found), start.display(), short(expected)
    )]
    OtherStart {
        /// The client.
        path: PathBuf,
        /// Hash of its start.
        found: String,
        /// The start of the round.
        start: PathBuf,
        /// Its hash.
        expected: String,
    },
    /// Its model is another.
    #[error("{}: has {what} that {} has not ({found}, {expected}); clients of one round train the same model", path.display(), start.display())]
    Differs {
        /// The client.
        path: PathBuf,
        /// The start of the round.
        start: PathBuf,
        /// The property, plural.
        what: &'static str,
        /// The client's.
        found: String,
        /// The start's.
        expected: String,
    },
    /// Its tokens are not known.
    #[error("{}: its slmc.json has no number of tokens (a private run withholds it); pass --round-weights with one for each client", path.display())]
    NoTokens {
        /// The client.
        path: PathBuf,
    },
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// What a round took of one client.
#[derive(Clone, Debug, Serialize)]
pub struct ClientReport {
    /// Its directory.
    pub path: PathBuf,
    /// Its share of the average.
    pub share: f64,
    /// Norm of its update.
    pub update_norm: f64,
    /// Whether that was cut.
    pub clipped: bool,
}

/// Result of a round.
#[derive(Clone, Debug, Serialize)]
pub struct RoundReport {
    /// Weights of the model.
    pub parameters: u64,
    /// In the order in which they were given.
    pub clients: Vec<ClientReport>,
    /// Norm of the averaged update, without noise.
    pub update_norm: f64,
    /// Standard deviation of the noise on every value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_deviation: Option<f64>,
}

impl Report for RoundReport {
    const SCHEMA: &'static str = "slmc.round/1";

    fn text(&self) -> String {
        let mut table =
            Table::new([("client", Align::Left), ("share", Align::Right), ("update", Align::Right), ("", Align::Left)]);
        for client in &self.clients {
            let (share, norm) = (format!("{:.4}", client.share), format!("{:.4}", client.update_norm));
            let clipped = if client.clipped { "clipped" } else { "" };
            table.row([client.path.display().to_string().as_str(), &share, &norm, clipped]);
        }
        let mut sums = Table::pairs();
        sums.row(["parameters", &grouped(self.parameters)]);
        sums.row(["update", &format!("{:.4}", self.update_norm)]);
        if let Some(deviation) = self.noise_deviation {
            sums.row(["noise", &format!("{deviation:.6}")]);
        }
        format!("{table}\n\n{sums}")
    }
}

/// Averages and writes.
///
/// # Errors
/// [`StageError`]; nothing is written then.
pub fn round(options: &RoundOptions, progress: &dyn Progress) -> Result<RoundReport, StageError> {
    atomic::check_directory(&options.out)?;
    let expected = hex(&formats::sha256(&options.start)?);
    let mut tokens = Vec::new();
    for path in &options.clients {
        tokens.push(check_made(path, &options.start, &expected)?);
    }
    let weights = match &options.weights {
        Some(weights) => weights.clone(),
        None => known(&options.clients, tokens)?,
    };
    let start = open(&options.start)?;
    let mut clients = Vec::new();
    for path in &options.clients {
        let client = open(path)?;
        check_same(&client, &start)?;
        clients.push(client);
    }
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    progress.begin("averaging", 1, "rounds");
    let averaging = Averaging { clip: options.clip, noise: options.noise };
    let mut averaged = average(&start, &clients, &shares, &averaging)?;
    progress.advance(1);
    progress.finish();
    let report = report(&start, options, &shares, &averaged);
    let sparsity = formats::open(&options.start)?.recorded_sparsity().map_err(StartError::from)?;
    HeldMasks::of(&start, &sparsity)?.clear_all(&mut averaged.values);
    let mut inputs = Inputs::default().made("model", &options.start)?;
    for path in &options.clients {
        inputs = inputs.made("round-from", path)?;
    }
    let settings = json!({"shares": shares, "clip": options.clip, "noise": options.noise});
    let metrics = json!({"clients": report.clients.len(), "update_norm": report.update_norm});
    let mut provenance = of_weights(("train", PORTABLE), &inputs, (settings, &options.invocation), &sparsity, metrics);
    if options.noise.is_some() {
        // Nobody can make it again.
        let deviation = report.noise_deviation;
        provenance["privacy"] = json!({"noise_deviation": deviation, "randomness": "the operating system"});
    }
    let description =
        Description { config: start.config.clone(), companions: start.companions.clone(), path: start.path.clone() };
    let model = start::with_values(start.spec, description, averaged.values).map_err(StartError::from)?;
    hugging_face::Directory(&options.out).write(&model, &provenance)?;
    Ok(report)
}

fn report(start: &Model, options: &RoundOptions, shares: &[f64], averaged: &Averaged) -> RoundReport {
    let clients = options.clients.iter().zip(shares).zip(&averaged.norms);
    let client = |((path, share), norm): ((&PathBuf, &f64), &f64)| ClientReport {
        path: path.clone(),
        share: *share,
        update_norm: *norm,
        clipped: options.clip.is_some_and(|clip| *norm > clip),
    };
    RoundReport {
        parameters: start.spec.parameter_count(),
        clients: clients.map(client).collect(),
        update_norm: averaged.norm,
        noise_deviation: options.noise.map(|_| averaged.deviation),
    }
}

fn open(path: &Path) -> Result<Model, StageError> {
    let model = formats::open_model(path)?;
    match model.is_quantized() {
        true => Err(StartError::Quantized { path: path.to_owned() }.into()),
        false => Ok(model),
    }
}

/// That a client trained the start, by its slmc.json; the tokens that it trained on, where they are there.
fn check_made(path: &Path, start: &Path, expected: &str) -> Result<Option<f64>, StageError> {
    let unknown = || ClientError::Unknown { path: path.to_owned() };
    let made = formats::open(path)?.provenance().ok_or_else(unknown)?;
    let role = match made["stage"].as_str() {
        Some("train") => "model",
        Some("distill") => "student",
        _ => return Err(unknown().into()),
    };
    let mut inputs = made["inputs"].as_array().into_iter().flatten();
    let found = inputs.find(|input| input["role"] == role).and_then(|input| input["sha256"].as_str());
    let found = found.ok_or_else(unknown)?.to_owned();
    if found != expected {
        let (path, start, expected) = (path.to_owned(), start.to_owned(), expected.to_owned());
        return Err(ClientError::OtherStart { path, found, start, expected }.into());
    }
    Ok(made["metrics"]["tokens"].as_f64().filter(|tokens| *tokens > 0.0))
}

fn known(clients: &[PathBuf], tokens: Vec<Option<f64>>) -> Result<Vec<f64>, ClientError> {
    let known =
        |(path, tokens): (&PathBuf, Option<f64>)| tokens.ok_or_else(|| ClientError::NoTokens { path: path.clone() });
    clients.iter().zip(tokens).map(known).collect()
}

/// That a client's model has the shapes, the tokens and the labels of the start.
fn check_same(client: &Model, start: &Model) -> Result<(), ClientError> {
    let differs = |what, found: String, expected: String| ClientError::Differs {
        path: client.path.clone(),
        start: start.path.clone(),
        what,
        found,
        expected,
    };
    let (own, other) = (client.spec.parameters(), start.spec.parameters());
    let name = |parameter: Option<&crate::model::spec::ParameterShape>| {
        parameter.map_or_else(|| "none".to_owned(), |parameter| format!("{} {:?}", parameter.id, parameter.shape))
    };
    let longest = own.len().max(other.len());
    if let Some(place) = (0..longest).find(|place| {
        let (own, other) = (own.get(*place), other.get(*place));
        own.map(|own| (own.id, &own.shape)) != other.map(|other| (other.id, &other.shape))
    }) {
        return Err(differs("shapes", name(own.get(place)), name(other.get(place))));
    }
    if token_table(&client.companions) != token_table(&start.companions) {
        return Err(differs("tokens", "its tokenizer.json".to_owned(), "another".to_owned()));
    }
    if let (Some(own), Some(other)) = (client.spec.head.labels(), start.spec.head.labels())
        && own != other
    {
        return Err(differs("labels", own.join(", "), other.join(", ")));
    }
    Ok(())
}

impl From<RoundError> for StageError {
    fn from(error: RoundError) -> Self {
        match error {
            RoundError::Model(error) => error.into(),
            other => StageError::Round(other),
        }
    }
}

/// Figures of a round in a few words.
pub fn summary(clients: &Value, norm: f64) -> Option<String> {
    Some(format!("averaged {} clients, update {norm:.3}", clients.as_array()?.len()))
}
