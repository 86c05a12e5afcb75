//! `slmc audit`: a log checked against all that is kept elsewhere. What breaks the chain, a seal, or a head is an error with
//! the number of the record; what a sound log says that should not be is a finding.

use super::chain::{Chain, Digest, LogFile, Start};
use super::keys::SealKeys;
use super::prompts::{Prompts, read_prompts};
use super::replay::{Replay, ReplayModel, Replayed};
use super::report::{AuditReport, Finding, LoggedArtifact, ReplaySummary};
use super::writer::digest_of;
use super::{AuditError, seals};
use crate::artifact::host::ArtifactFile;
use crate::disk::hash::hex;
use crate::eval::opened::OpenedModel;
use crate::progress::Progress;
use crate::seal::sealing::unseal;
use crate::trust::DeviceKey;
use slm_runtime::audit::{AuditRecord, Kind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a log is checked with.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// The log.
    pub log: PathBuf,
    /// Keys of its seals, where they are.
    pub keys: Vec<String>,
    /// Artifacts that it may name.
    pub artifacts: Vec<PathBuf>,
    /// A head that is kept elsewhere.
    pub head: Option<String>,
    /// Records that there must be.
    pub least: Option<u64>,
    /// The head of the file before.
    pub previous: Option<String>,
    /// Questions to ask again.
    pub replay: Option<PathBuf>,
    /// Directory with a tokenizer for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
    /// Keys of devices, for artifacts whose weights are sealed.
    pub device_keys: Vec<String>,
}

/// Checks a log.
///
/// # Errors
/// The first record that is broken, and everything that keeps the log from being checked.
pub fn review(options: &AuditOptions, progress: &dyn Progress) -> Result<AuditReport, AuditError> {
    let path = &options.log;
    let head = options.head.as_deref().map(head_of).transpose()?;
    let start = Start { previous: options.previous.as_deref().map(head_of).transpose()? };
    let mut keys = SealKeys::read(&options.keys)?;
    keys.warnings().iter().for_each(|warning| progress.warn(warning));
    let prompts = options.replay.as_deref().map(read_prompts).transpose()?;
    if prompts.is_some() && options.artifacts.is_empty() {
        return Err(AuditError::NoArtifact);
    }
    let file = LogFile::open(path)?;
    let chain = file.chain(path, start)?;
    let head_is_of = head.map(|head| record_of(path, &chain, &head)).transpose()?;
    if let Some(least) = options.least.filter(|least| *least > chain.first().saturating_add(chain.len() as u64)) {
        return Err(AuditError::Count { path: path.clone(), records: chain.len(), least });
    }
    let digest_keys: Vec<Digest> = keys.digest_keys().copied().collect();
    let checked = seals::check(&chain, &mut keys, options.previous.is_some());
    let (sealed, missing) = checked.map_err(|broken| AuditError::Broken { path: path.clone(), broken })?;
    if !keys.is_empty() && sealed.seals == 0 {
        return Err(AuditError::NoSeal { path: path.clone() });
    }
    let known = opened(&options.artifacts)?;
    let mut findings = times(&chain);
    findings.extend(missing);
    let artifacts = named(&chain, &known, &mut findings);
    let replay = match prompts {
        Some(prompts) => Some(replayed(&chain, options, (known, digest_keys), &prompts, &mut findings, progress)?),
        None => None,
    };
    findings.sort_by_key(|finding| finding.record);
    let known_times = || chain.iter().map(|record| record.time).filter(|time| *time != 0);
    let times = known_times().next().zip(known_times().last()).map(|(first, last)| [first, last]);
    Ok(AuditReport {
        log: path.clone(),
        records: chain.len(),
        first: chain.first(),
        inferences: chain.iter().filter(is_inference).count(),
        times,
        head: hex(&chain.head_at(chain.len() - 1)),
        head_is_of,
        seals: sealed,
        artifacts,
        replay,
        passed: findings.is_empty(),
        findings,
    })
}

fn is_inference(record: &AuditRecord) -> bool {
    record.kind == Kind::Inference as u8
}

/// A head as 64 hexadecimal digits.
fn head_of(text: &str) -> Result<Digest, AuditError> {
    let fault = || AuditError::NotAHead { text: text.to_owned() };
    let (pairs, rest) = text.trim().as_bytes().as_chunks::<2>();
    let mut head = [0; 32];
    if pairs.len() != head.len() || !rest.is_empty() {
        return Err(fault());
    }
    for (byte, pair) in head.iter_mut().zip(pairs) {
        let digits =
            std::str::from_utf8(pair).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        *byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(fault)?;
    }
    Ok(head)
}

/// Number of the record that a head is of.
fn record_of(path: &Path, chain: &Chain<'_>, head: &Digest) -> Result<u64, AuditError> {
    let place = (0..chain.len()).rev().find(|&index| chain.head_at(index) == *head);
    let cut = || AuditError::Head { path: path.to_owned(), records: chain.len(), head: hex(head) };
    Ok(chain.get(place.ok_or_else(cut)?).sequence)
}

/// Artifacts with their digests.
fn opened(paths: &[PathBuf]) -> Result<Vec<(Digest, ArtifactFile)>, AuditError> {
    paths
        .iter()
        .map(|path| {
            let file = ArtifactFile::open(path)?;
            Ok((digest_of(&file)?, file))
        })
        .collect()
}

/// The artifact with its weights open, by the first key that opens them. Records name it by the digest of the sealed file.
fn unsealed(file: ArtifactFile, keys: &[DeviceKey]) -> Result<ArtifactFile, AuditError> {
    if !file.view()?.is_sealed() {
        return Ok(file);
    }
    let path = file.path().to_owned();
    let mut refused = AuditError::Sealed { path: path.clone() };
    for key in keys {
        match unseal(&file.view()?, key, None) {
            Ok(bytes) => return file.read_from(&bytes).map_err(|source| AuditError::NoMemory { path, source }),
            Err(error) => refused = AuditError::Closed { path: path.clone(), error },
        }
    }
    Err(refused)
}

/// Times that run backwards.
fn times(chain: &Chain<'_>) -> Vec<Finding> {
    let (mut latest, mut findings) = (0, Vec::new());
    for record in chain.iter().filter(|record| record.time != 0) {
        if record.time < latest {
            let fault = format!("time runs backwards: {} after {latest}", record.time);
            findings.push(Finding { record: record.sequence, about: "time", fault });
        }
        latest = record.time;
    }
    findings
}

/// Artifacts that records name, in the order of the log; those that are unknown are findings, where any is known.
fn named(chain: &Chain<'_>, known: &[(Digest, ArtifactFile)], findings: &mut Vec<Finding>) -> Vec<LoggedArtifact> {
    let mut found: Vec<(Digest, LoggedArtifact)> = Vec::new();
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    let names = |record: &AuditRecord| record.kind != Kind::Seal as u8 && record.artifact != [0; 32];
    for record in chain.iter().filter(names) {
        let place = *places.entry(record.artifact).or_insert_with(|| {
            let file =
                known.iter().find(|(digest, _)| *digest == record.artifact).map(|(_, file)| file.path().to_owned());
            let artifact = LoggedArtifact { device_digest: hex(&record.artifact), file, records: 0 };
            found.push((record.artifact, artifact));
            found.len() - 1
        });
        let artifact = &mut found[place].1;
        artifact.records += 1;
        if artifact.file.is_none() && artifact.records == 1 && !known.is_empty() {
            let fault = format!("the artifact {} is none of those that were given", artifact.device_digest);
            findings.push(Finding { record: record.sequence, about: "artifact", fault });
        }
    }
    found.into_iter().map(|(_, artifact)| artifact).collect()
}

fn replayed(
    chain: &Chain<'_>,
    options: &AuditOptions,
    (known, keys): (Vec<(Digest, ArtifactFile)>, Vec<Digest>),
    prompts: &Prompts,
    findings: &mut Vec<Finding>,
    progress: &dyn Progress,
) -> Result<ReplaySummary, AuditError> {
    if let Some(record) = chain.iter().find(|record| is_inference(record) && record.keyed()).filter(|_| keys.is_empty())
    {
        return Err(AuditError::Keyed { path: options.log.clone(), record: record.sequence });
    }
    let mut models = Vec::new();
    let device_keys = options.device_keys.iter().map(|place| DeviceKey::read(place)).collect::<Result<Vec<_>, _>>()?;
    device_keys.iter().filter_map(DeviceKey::warning).for_each(|warning| progress.warn(&warning.to_string()));
    for (digest, file) in known {
        let file = unsealed(file, &device_keys)?;
        models.push(ReplayModel { digest, model: OpenedModel::artifact(file)? });
    }
    let replay = Replay { models, tokenizer: options.tokenizer.clone(), keys };
    let (mut summary, mut left) = (ReplaySummary::default(), BTreeMap::<&str, usize>::new());
    let inferences = chain.iter().filter(is_inference).count();
    progress.begin("replaying", inferences as u64, "records");
    for record in chain.iter().filter(is_inference) {
        let outcome = match prompts.get(&record.sequence) {
            Some(asked) => replay.run(&record, asked)?,
            None => Replayed::Left("no row has its number"),
        };
        match outcome {
            Replayed::Same => summary.same += 1,
            Replayed::Left(reason) => *left.entry(reason).or_default() += 1,
            Replayed::Differs(fault) => {
                summary.differing += 1;
                findings.push(Finding { record: record.sequence, about: "replay", fault });
            }
        }
        progress.advance(1);
    }
    progress.finish();
    // A row that belongs to no answer says that an answer is missing.
    let in_log = |sequence: u64| {
        let place = sequence.checked_sub(chain.first()).and_then(|place| usize::try_from(place).ok());
        place.filter(|place| *place < chain.len()).map(|place| chain.get(place))
    };
    for (sequence, asked) in prompts {
        if !in_log(*sequence).is_some_and(|record| is_inference(&record)) {
            let fault = format!("the question of line {} has no inference in the log", asked.line);
            findings.push(Finding { record: *sequence, about: "replay", fault });
        }
    }
    summary.left = left.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
    Ok(summary)
}
