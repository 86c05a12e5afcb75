//! `slmc bench`: how fast the runtime runs an artifact on this machine. A prompt is read (prefill, with the logits of
//! its last position only), then tokens are decoded one by one, several rounds over; rates are of the best round, since
//! another program's work only ever slows one down, and the times of tokens are of all rounds together.

pub mod compare;
pub mod rows;
pub mod shape;

use crate::artifact::host::{ArtifactError, ArtifactFile, SessionMemory};
use crate::artifact::runner::{ModelRunner, RunnerError};
use crate::compile::ARTIFACT_MAGIC;
use crate::disk::atomic::{self, AtomicError};
use crate::machine;
use crate::machine::kernels::{kernel_name, kernels_for, layout};
use crate::model::weights::ModelError;
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use rows::{RowsOptions, RowsReport};
use serde::Serialize;
use shape::{Shape, Weights};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::tensor::{TensorKey, TensorPart, TensorRole};
use slm_runtime::kernels::pool::Pool;
use slm_runtime::session::{Extent, Session, SessionError};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where artifacts of random weights are kept.
const DIRECTORY: &str = ".slmc/cache/bench";
/// Smallest context they are planned for: the context that the peers have by default.
const SMALLEST_CONTEXT: usize = 512;

/// Options of `slmc bench`, checked.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Tokens of the prompt.
    pub prefill: NonZeroUsize,
    /// Tokens decoded after it.
    pub decode: usize,
    /// Times that both are done.
    pub rounds: NonZeroUsize,
    /// Copy the weights into huge pages first.
    pub huge_pages: bool,
    /// Number of threads.
    pub threads: NonZeroUsize,
    /// Most positions of a pass, where such are measured.
    pub rows: Option<NonZeroUsize>,
    /// Share of drafts that are right, in 1/65536, where decoding with drafts is measured.
    pub drafts_right: Option<u32>,
}

impl BenchOptions {
    /// What is measured of passes of several positions, if anything.
    fn of_rows(&self) -> Option<RowsOptions> {
        let asked = self.rows.map(NonZeroUsize::get);
        let rows = asked.or(self.drafts_right.map(|_| DRAFTED_ROWS))?;
        let BenchOptions { prefill, decode, rounds, threads, drafts_right: right, .. } = *self;
        Some(RowsOptions { rows, right, decode, rounds, prefill, threads })
    }
}

/// Positions of a pass where drafts are measured and nothing else was asked for.
const DRAFTED_ROWS: usize = 8;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The random weights are refused.
    #[error(transparent)]
    Shape(#[from] ModelError),
    /// The artifact cannot be made.
    #[error("the artifact of random weights cannot be made: {0}")]
    Made(#[from] RunnerError),
    /// The directory of such artifacts cannot be created.
    #[error("{}: cannot be made", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Such an artifact cannot be written.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// The prompt and the tokens after it do not fit the context.
    #[error(
        "{}: a prompt of {prefill} tokens and {decode} after it are more than the context of {context}; pass smaller \
         --prefill and --decode, or compile with a larger --context",
        path.display()
    )]
    Context {
        /// The artifact.
        path: PathBuf,
        /// Tokens of the prompt.
        prefill: usize,
        /// Tokens after it.
        decode: usize,
        /// Context of the artifact.
        context: usize,
    },
    /// An encoder has no steps.
    #[error("{}: the model is an encoder, which decodes nothing; pass --decode 0, and neither --rows nor --drafts-right", .0.display())]
    Encoder(PathBuf),
    /// The session stopped.
    #[error("{}: {error}", path.display())]
    Session {
        /// The artifact.
        path: PathBuf,
        /// The reason.
        error: SessionError,
    },
    /// The model has no logits of the next token.
    #[error("{}: the model has no logits of the next token; leave --rows and --drafts-right out", .0.display())]
    NoLogits(PathBuf),
    /// Drafts changed a token: a defect of slmc.
    #[error(
        "{}: decoding with drafts gave other tokens than without, which is a defect of slmc; please report it",
        .0.display()
    )]
    Differs(PathBuf),
    /// The system starts no more threads.
    #[error("cannot start as many threads: {0}; pass a smaller --threads")]
    Threads(std::io::Error),
    /// No huge pages are free to copy to.
    #[error("the weights cannot be copied into huge pages: {0}; leave --huge-pages out")]
    HugePages(std::io::Error),
}

/// Where the weights are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// The file's own pages.
    Mapped,
    /// Copied once into huge pages.
    Copied,
}

/// Result of `slmc bench`.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The artifact.
    pub artifact: String,
    /// Target it was compiled for.
    pub target: String,
    /// Layout of its weights.
    pub layout: &'static str,
    /// Storage of the matrix that gives the logits, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_scheme: Option<&'static str>,
    /// Kernels that ran it.
    pub kernel: String,
    /// Number of threads.
    pub threads: usize,
    /// Whether weights were read from the file's pages.
    pub weights: Residency,
    /// Bytes of the weights' pages, mapped or copied, that are huge ones; absent where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_page_bytes: Option<u64>,
    /// Tokens of the prompt.
    pub prefill: usize,
    /// Tokens decoded after it.
    pub decode: usize,
    /// Times that both were done.
    pub rounds: usize,
    /// Median time from the prompt to its last position's logits (to all outputs, of an encoder).
    pub first_token_ms: f64,
    /// Median time of a decoded token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ms_p50: Option<f64>,
    /// 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ms_p99: Option<f64>,
    /// Prefill rate of the best round.
    pub prefill_tokens_per_s: f64,
    /// Decode rate of the best round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_tokens_per_s: Option<f64>,
    /// Weight bytes one token reads: linears and head whole, of experts those that it has, one row of each table.
    pub bytes_per_token: u64,
    /// Bytes per second at which as many threads read the same weights with nothing to compute; the best pass.
    pub read_bandwidth_bytes_per_s: u64,
    /// bytes_per_token · decode_tokens_per_s / read_bandwidth_bytes_per_s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bandwidth_fraction: Option<f64>,
    /// Length of the file.
    pub file_bytes: u64,
    /// Arena and key-value cache, as the artifact plans them.
    pub planned_bytes: u64,
    /// Passes of several positions, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowsReport>,
    /// Most memory resident while it was measured, mapped pages included; absent where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
}

impl Report for BenchReport {
    const SCHEMA: &'static str = "slmc.bench/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        let weights = match self.weights {
            Residency::Mapped => "mapped",
            Residency::Copied => "copied into huge pages",
        };
        table.row(["artifact", &format!("{}, {} bytes, weights {weights}", self.artifact, grouped(self.file_bytes))]);
        if let Some(bytes) = self.huge_page_bytes {
            let share = 100.0 * bytes as f64 / (self.file_bytes as f64).max(1.0);
            table.row(["huge pages", &format!("{:.0} % of the file", share.min(100.0))]);
        }
        table.row(["layout", self.layout]);
        table.row(["kernel", &format!("{}, {} threads", self.kernel, self.threads)]);
        if let Some(scheme) = self.head_scheme {
            table.row(["head", scheme]);
        }
        table.row([
            "prefill",
            &format!(
                "{:.1} tokens/s ({} tokens in {:.2} ms)",
                self.prefill_tokens_per_s, self.prefill, self.first_token_ms
            ),
        ]);
        if let (Some(rate), Some(p50), Some(p99)) = (self.decode_tokens_per_s, self.token_ms_p50, self.token_ms_p99) {
            table.row(["decode", &format!("{rate:.1} tokens/s (p50 {p50:.2} ms, p99 {p99:.2} ms)")]);
        }
        let bandwidth = self.read_bandwidth_bytes_per_s as f64 / 1e9;
        let share = self.read_bandwidth_fraction.map_or(String::new(), |share| format!(", {:.0} % of", 100.0 * share));
        table.row([
            "weights read",
            &format!("{} bytes a token{share} {bandwidth:.1} GB/s", grouped(self.bytes_per_token)),
        ]);
        if let Some(bytes) = self.peak_rss_bytes {
            let planned = grouped(self.planned_bytes);
            table.row(["peak memory", &format!("{} bytes (arena and cache planned: {planned})", grouped(bytes))]);
        }
        match &self.rows {
            Some(rows) => format!("{table}\n\n{}", rows.text()),
            None => table.to_string(),
        }
    }
}

/// The artifact of random weights, from the cache beside the caller's work where it is there and sound, for at least
/// `positions`; otherwise `runner` makes it.
pub fn shape_artifact(
    shape: &Shape,
    weights: Weights,
    positions: usize,
    runner: &dyn ModelRunner,
    progress: &dyn Progress,
) -> Result<ArtifactFile, BenchError> {
    let context = positions.max(SMALLEST_CONTEXT).next_multiple_of(64);
    let layout = layout();
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("{}-{weights}-{context}-{}-{version}.slm", shape.name, layout.name());
    let path = Path::new(DIRECTORY).join(name);
    if let Ok(file) = ArtifactFile::open(&path) {
        return Ok(file);
    }
    std::fs::create_dir_all(DIRECTORY)
        .map_err(|source| BenchError::Directory { path: PathBuf::from(DIRECTORY), source })?;
    {
        // Gone before the file is opened: it counts in the memory that is measured.
        let model = shape::random_model(shape, weights, context, progress)?;
        let bytes = runner.artifact(&model, "bench", None)?;
        atomic::write_file(&path, ARTIFACT_MAGIC, |out| out.write_all(&bytes))?;
    }
    Ok(ArtifactFile::open(&path)?)
}

/// Measures an artifact.
pub fn bench(file: ArtifactFile, options: &BenchOptions, progress: &dyn Progress) -> Result<BenchReport, BenchError> {
    let file = if options.huge_pages { file.in_huge_pages().map_err(BenchError::HugePages)? } else { file };
    let path = file.path();
    let view = file.view()?;
    check(path, &view, options)?;
    let of_rows = options.of_rows();
    of_rows.iter().try_for_each(|options| rows::check(path, &view, options))?;
    machine::forget_peak_memory();
    let stopped = |error| BenchError::Session { path: path.to_owned(), error };
    let pool = Pool::new(options.threads.get()).map_err(BenchError::Threads)?;
    let extent = Extent::of_workers(options.threads.get());
    let mut memory = SessionMemory::for_extent(&view, extent);
    let mut session =
        Session::with_workers(&view, kernels_for(view.layout()), &pool, 1, memory.as_mut_slice()).map_err(stopped)?;
    let prompt = prompt(view.opening_tokens().iter().next(), view.spec().vocabulary, options.prefill.get());
    let rounds = options.rounds.get();
    progress.begin("measuring", (rounds * (prompt.len() + options.decode)) as u64, "tokens");
    let mut prefills = Vec::with_capacity(rounds);
    let mut tokens: Vec<Duration> = Vec::with_capacity(rounds * options.decode);
    let mut decodes = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        session.reset();
        let start = Instant::now();
        if view.spec().is_decoder() {
            session.step(&prompt).map_err(stopped)?;
        } else {
            session.run(&prompt, &mut |_, _| {}).map_err(stopped)?;
        }
        prefills.push(start.elapsed());
        let begin = Instant::now();
        for token in 0..options.decode as u32 {
            let start = Instant::now();
            session.step(&[(300 + token) % view.spec().vocabulary]).map_err(stopped)?;
            tokens.push(start.elapsed());
        }
        decodes.push(begin.elapsed());
        progress.advance((prompt.len() + options.decode) as u64);
    }
    progress.finish();
    let rows = of_rows.map(|options| rows::measure(&file, &options, &pool, progress)).transpose()?;
    let peak_rss_bytes = machine::peak_memory_bytes();
    let huge_page_bytes = file.huge_bytes();
    let weights = view.section(SectionKind::Weights).unwrap_or_default();
    let bandwidth = machine::read_rate(weights, options.threads.get(), Duration::from_millis(50), 5);
    let decode_tokens_per_s =
        (options.decode > 0).then(|| options.decode as f64 / shortest(&decodes).as_secs_f64().max(1e-9));
    let bytes_per_token = bytes_per_token(&view);
    tokens.sort_unstable();
    prefills.sort_unstable();
    Ok(BenchReport {
        artifact: path.display().to_string(),
        target: view.target().to_owned(),
        layout: view.layout().name(),
        head_scheme: head_scheme(&view),
        kernel: kernel_name(&view),
        threads: options.threads.get(),
        weights: if options.huge_pages { Residency::Copied } else { Residency::Mapped },
        huge_page_bytes,
        prefill: prompt.len(),
        decode: options.decode,
        rounds,
        first_token_ms: milliseconds(percentile(&prefills, 50)),
        token_ms_p50: (!tokens.is_empty()).then(|| milliseconds(percentile(&tokens, 50))),
        token_ms_p99: (!tokens.is_empty()).then(|| milliseconds(percentile(&tokens, 99))),
        prefill_tokens_per_s: prompt.len() as f64 / shortest(&prefills).as_secs_f64().max(1e-9),
        decode_tokens_per_s,
        bytes_per_token,
        read_bandwidth_bytes_per_s: bandwidth as u64,
        read_bandwidth_fraction: decode_tokens_per_s.map(|rate| bytes_per_token as f64 * rate / bandwidth),
        file_bytes: view.bytes().len() as u64,
        planned_bytes: Session::required_bytes_for(&view, extent),
        rows,
        peak_rss_bytes,
    })
}

fn check(path: &Path, view: &ArtifactView<'_>, options: &BenchOptions) -> Result<(), BenchError> {
    if !view.spec().is_decoder() && (options.decode > 0 || options.of_rows().is_some()) {
        return Err(BenchError::Encoder(path.to_owned()));
    }
    let (prefill, context) = (options.prefill.get(), view.spec().context as usize);
    if prefill.checked_add(options.decode).is_none_or(|positions| positions > context) {
        return Err(BenchError::Context { path: path.to_owned(), prefill, decode: options.decode, context });
    }
    Ok(())
}

/// A prompt that opens as texts do and then counts through part of the vocabulary.
fn prompt(opening: Option<u32>, vocabulary: u32, length: usize) -> Vec<u32> {
    let first = opening.unwrap_or(0);
    let rest = (0..length as u32 - 1).map(|n| (300 + n % 1000) % vocabulary);
    std::iter::once(first).chain(rest).collect()
}

/// Weight bytes that one token reads.
fn bytes_per_token(view: &ArtifactView<'_>) -> u64 {
    let records = (0..view.tensor_count()).map(|index| view.tensor_record(index));
    let bytes = records.map(|record| match TensorRole::from_number(record.role) {
        Some(TensorRole::EmbedToken) if view.spec().has_tied_head() => record.bytes,
        // Of a table in two parts, the mean row.
        Some(TensorRole::EmbedToken) => record.bytes / u64::from(view.spec().vocabulary.max(1)),
        Some(TensorRole::EmbedPosition | TensorRole::EmbedType) => record.bytes / u64::from(record.rows.max(1)),
        _ => view.met_by_a_token(&record, record.bytes),
    });
    bytes.sum()
}

/// Storage of the matrix that gives the logits.
fn head_scheme(view: &ArtifactView<'_>) -> Option<&'static str> {
    let role = if view.spec().has_tied_head() { TensorRole::EmbedToken } else { TensorRole::LmHead };
    let parts = view.parts(TensorKey::global(role, TensorPart::Weight)).ok()?;
    // Of two parts the first is in 8 bits, the other in 4.
    Some(if parts.rest.is_some() { "w8+w4.g32" } else { parts.first.shape.storage.name() })
}

fn shortest(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}

/// The smallest of ascending times that at least `percent` of them do not exceed.
fn percentile(ascending: &[Duration], percent: usize) -> Duration {
    let rank = (ascending.len() * percent).div_ceil(100).max(1);
    ascending.get(rank - 1).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn prompts_stay_in_the_vocabulary() {
        assert_eq!(prompt(Some(1), 32_000, 4), [1, 300, 301, 302]);
        assert!(prompt(None, 64, 2000).iter().all(|&token| token < 64));
    }
}
