//! Artifacts that continue a sequence with drafts: the runtime's speculative decoding with the drafters that an artifact
//! carries, the sequence itself and a model beside it. The times of passes are measured as they run, so that drafts stop
//! where they do not pay on this machine. The tokens are those of decoding one by one.

use super::continuation::Reader;
use super::error::EvalError;
use crate::artifact::host::{ArtifactFile, SessionMemory};
use crate::artifact::streamed::{self, ResidentPart, StreamingReport};
use crate::machine::kernels::kernels_for;
use serde::Serialize;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::Output;
use slm_runtime::kernels::pool::Pool;
use slm_runtime::session::{Extent, Session, SessionError};
use slm_runtime::sha256::{Engine, Software};
use slm_runtime::speculate::{Drafter, Draws, MAX_DRAFTS, ModelDrafter, READING, Repeats, Source, round};
use slm_runtime::streaming::{Check, Sizes, Storage};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Bytes of weights below which several threads lose more by waiting for each other than they gain.
const SHARED_WEIGHTS: usize = 2 << 20;

/// What an artifact is continued with; none of it changes a token.
#[derive(Clone, Debug)]
pub struct Means {
    /// Most drafts of a pass; 0 for none.
    pub drafts: usize,
    /// A model that drafts, instead of the one the artifact carries.
    pub draft_model: Option<ArtifactFile>,
    /// Whether the weights are read from the file when they are needed, as on a device that cannot address them.
    pub streamed: bool,
}

impl Default for Means {
    fn default() -> Self {
        Means { drafts: DRAFTS, draft_model: None, streamed: false }
    }
}

/// Most drafts of a pass unless a person says otherwise.
pub const DRAFTS: usize = 7;

/// A drafter's part in a generation.
#[derive(Clone, Debug, Serialize)]
pub struct DrafterReport {
    /// `repeats`, `continuations` or `model`.
    pub drafter: &'static str,
    /// Passes that verified its drafts.
    pub passes: u64,
    /// Tokens it drafted.
    pub drafted: u64,
    /// Those that were right.
    pub confirmed: u64,
    /// Whether it was not asked at the end, since its drafts did not pay.
    pub resting: bool,
}

/// What drafts did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SpeculationReport {
    /// Passes over the weights after the prompt.
    pub passes: u64,
    /// Tokens that they gave.
    pub tokens: u64,
    /// Every drafter.
    pub drafters: Vec<DrafterReport>,
}

impl DrafterReport {
    fn new(drafter: &'static str) -> Self {
        DrafterReport { drafter, passes: 0, drafted: 0, confirmed: 0, resting: false }
    }
}

impl SpeculationReport {
    /// A sentence about what drafts did; `None` where there were none.
    pub fn sentence(&self) -> Option<String> {
        let drafted: u64 = self.drafters.iter().map(|drafter| drafter.drafted).sum();
        let confirmed: u64 = self.drafters.iter().map(|drafter| drafter.confirmed).sum();
        let resting: Vec<&str> =
            self.drafters.iter().filter(|drafter| drafter.resting).map(|drafter| drafter.drafter).collect();
        let pause = match resting.as_slice() {
            [] => String::new(),
            names => format!("; {} paused, which does not pay here", names.join(" and ")),
        };
        (drafted > 0).then(|| format!("{confirmed} of {drafted} drafts right, {} passes{pause}", self.passes))
    }
}

/// How long a drafter took, and for how many drafts; a token that it read among many counts as a part of one.
#[derive(Default)]
struct Clock {
    time: Cell<Duration>,
    drafted: Cell<f32>,
}

/// A drafter whose time is taken.
struct Timed<'d> {
    drafter: Box<dyn Drafter + 'd>,
    clock: &'d Clock,
}

impl Drafter for Timed<'_> {
    fn draft(&mut self, sequence: &[u32], draws: &Draws<'_>, drafts: &mut [u32]) -> Result<usize, SessionError> {
        let start = Instant::now();
        let behind = self.drafter.behind(sequence.len());
        let drafted = self.drafter.draft(sequence, draws, drafts)?;
        self.clock.time.set(self.clock.time.get() + start.elapsed());
        self.clock.drafted.set(self.clock.drafted.get() + drafted as f32 + READING * behind as f32);
        Ok(drafted)
    }

    fn behind(&self, length: usize) -> usize {
        self.drafter.behind(length)
    }
}

/// Times of passes by their number of rows, in seconds; 0 where none was timed.
#[derive(Default)]
struct Times([f64; MAX_DRAFTS + 1]);

impl Times {
    /// Notes a pass. What a time says beyond the last ones is noise to a large part.
    fn note(&mut self, rows: usize, time: f64) {
        let Some(known) = rows.checked_sub(1).and_then(|further| self.0.get_mut(further)) else { return };
        *known = if *known == 0.0 { time } else { *known + (time.min(1.5 * *known) - *known) / 4.0 };
    }

    /// Time of one row; 0 where none was timed.
    fn step(&self) -> f64 {
        self.0[0]
    }
}

/// A session with drafters.
struct Speculating<'a, 'm, 's, 'd> {
    session: Session<'a, 'm>,
    sources: &'s mut [Source<'d>],
    clocks: &'s [Clock],
    /// What the artifact's sequences begin with.
    prefix: Vec<u32>,
    /// Most drafts of a pass.
    drafts: usize,
    report: SpeculationReport,
    times: Times,
    /// The memory of a streamed artifact.
    sizes: Option<Sizes>,
    /// Positions that were computed.
    computed: u64,
}

impl Speculating<'_, '_, '_, '_> {
    /// Time that all drafters took so far.
    fn drafting(&self) -> Duration {
        self.clocks.iter().map(|clock| clock.time.get()).sum()
    }

    /// Notes the times of a pass of `rows` positions.
    fn note(&mut self, rows: usize, time: Duration) {
        self.times.note(rows, time.as_secs_f64());
        let step = self.times.step();
        if step == 0.0 {
            return;
        }
        for (source, clock) in self.sources.iter_mut().zip(self.clocks) {
            if rows > 1 {
                source.pace.note_rows(rows, (self.times.0[rows - 1] / step) as f32);
            }
            if clock.drafted.get() > 0.0 {
                let each = clock.time.get().as_secs_f64() / f64::from(clock.drafted.get());
                source.pace.note_cost((each / step) as f32);
            }
        }
    }
}

impl Reader for Speculating<'_, '_, '_, '_> {
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EvalError> {
        self.computed += tokens.len() as u64;
        Ok(self.session.step(tokens)?.to_vec())
    }

    fn read_allowed(&mut self, tokens: &[u32], allowed: &[u32]) -> Result<Vec<f32>, EvalError> {
        self.computed += tokens.len() as u64;
        Ok(self.session.step_allowed(tokens, allowed)?.to_vec())
    }

    fn keep(&mut self, positions: usize) -> Result<usize, EvalError> {
        if self.session.truncate(positions).is_err() {
            self.session.reset();
        }
        Ok(self.session.positions())
    }

    fn round(
        &mut self,
        sequence: &[u32],
        draws: &Draws<'_>,
        choose: &mut dyn FnMut(&[f32]) -> Option<u32>,
    ) -> Result<usize, EvalError> {
        let drafting = self.drafting();
        // The first passes are without drafts: they say how long a step takes.
        let settling = self.report.passes < SETTLING;
        let sources = if settling { &mut [][..] } else { &mut *self.sources };
        let (mut chosen, mut choosing) = (0, Duration::ZERO);
        let start = Instant::now();
        let found = round(&mut self.session, sources, self.drafts, sequence, draws, &mut |logits| {
            let begin = Instant::now();
            let token = choose(logits);
            choosing += begin.elapsed();
            chosen += 1;
            token
        })?;
        // Choosing and writing take the same with and without drafts.
        let time = start.elapsed().saturating_sub(choosing + (self.drafting() - drafting));
        self.report.passes += 1;
        self.computed += 1 + found.drafted as u64;
        self.report.tokens += chosen;
        if let Some(drafter) = found.source.and_then(|index| self.report.drafters.get_mut(index)) {
            drafter.passes += 1;
            drafter.drafted += found.drafted as u64;
            drafter.confirmed += found.confirmed as u64;
        }
        self.note(1 + found.drafted, time);
        Ok(found.confirmed)
    }

    fn prefix(&self) -> Vec<u32> {
        self.prefix.clone()
    }

    fn restore_prefix(&mut self) -> Result<Vec<u32>, EvalError> {
        self.session.restore_prefix().map_err(EvalError::Prefix)?;
        Ok(self.prefix.clone())
    }

    fn speculation(&self) -> Option<SpeculationReport> {
        let mut report = self.report.clone();
        for (drafter, source) in report.drafters.iter_mut().zip(&*self.sources) {
            drafter.resting = source.pace.is_resting();
        }
        (!report.drafters.is_empty()).then_some(report)
    }

    fn streaming(&self) -> Option<StreamingReport> {
        self.sizes.map(|sizes| streamed::report(sizes, self.session.traffic(), self.computed))
    }
}

/// Passes without drafts at the start.
const SETTLING: u64 = 3;

/// Gives a reader of an artifact to `body`.
pub(super) fn with_artifact<T, E: From<EvalError>>(
    file: &ArtifactFile,
    means: &Means,
    body: impl FnOnce(&mut dyn Reader) -> Result<T, E>,
) -> Result<T, E> {
    let view = file.view().map_err(EvalError::from)?;
    let beside = means.draft_model.as_ref().map(|file| draft_view(&view, file)).transpose()?;
    let logits = view.spec().output == Output::LanguageModel as u8;
    let rows = if logits { 1 + means.drafts.min(MAX_DRAFTS) } else { 1 };
    let small = view.section(SectionKind::Weights).is_none_or(|weights| weights.len() < SHARED_WEIGHTS);
    let threads = if small { 1 } else { rayon::current_num_threads() };
    let pool = Pool::new(threads).map_err(EvalError::Threads)?;
    let extent = Extent { workers: threads, rows };
    let mut memory = SessionMemory::for_extent(&view, extent);
    let kernels = kernels_for(view.layout());
    let mut part = match means.streamed {
        true => Some(ResidentPart::new(file.path()).map_err(EvalError::from)?),
        false => None,
    };
    let sizes = part.as_ref().map(ResidentPart::sizes);
    let session = match &mut part {
        Some(part) => {
            let (streamed, storage) = part.load(Check::Structure).map_err(EvalError::from)?;
            let by = (storage as &mut dyn Storage, &Software as &(dyn Engine + Sync));
            Session::streamed_by(&streamed, kernels, by, (&pool, rows), memory.as_mut_slice())
        }
        None => Session::with_workers(&view, kernels, &pool, rows, memory.as_mut_slice()),
    };
    let session = session.map_err(EvalError::from)?;
    let drafting = means.drafts > 0 && session.rows() > 1;
    // The draft model's memory: its session, and the tokens that it has read.
    let draft = beside.or_else(|| view.draft_model()).filter(|_| drafting);
    let mut draft_memory = draft.map(|draft| SessionMemory::for_extent(&draft, extent));
    let mut draft_read = vec![0; draft.map_or(0, |draft| draft.spec().context as usize)];
    let mut drafters: Vec<(&'static str, Box<dyn Drafter + '_>)> = Vec::new();
    if drafting {
        drafters.push(("repeats", Box::new(Repeats)));
        if let (Some(draft), Some(memory)) = (&draft, &mut draft_memory) {
            let kernels = kernels_for(draft.layout());
            let session = Session::with_workers(draft, kernels, &pool, rows, memory.as_mut_slice());
            let session = session.map_err(EvalError::from)?;
            drafters.push(("model", Box::new(ModelDrafter::new(session, &mut draft_read))));
        }
        drafters.extend(view.continuations().map(|table| ("continuations", Box::new(table) as Box<dyn Drafter>)));
    }
    let clocks: Vec<Clock> = drafters.iter().map(|_| Clock::default()).collect();
    let names: Vec<&'static str> = drafters.iter().map(|(name, _)| *name).collect();
    let timed = drafters.into_iter().zip(&clocks).map(|((_, drafter), clock)| Timed { drafter, clock });
    let mut timed: Vec<Timed<'_>> = timed.collect();
    // Until it is measured: both read all their weights for a token.
    let bytes = |view: &ArtifactView<'_>| view.section(SectionKind::Weights).map_or(1, <[u8]>::len) as f32;
    let cost = draft.as_ref().map_or(0.0, |draft| bytes(draft) / bytes(&view));
    let costs = names.iter().map(|name| if *name == "model" { cost } else { 0.0 });
    let mut sources: Vec<Source<'_>> =
        timed.iter_mut().zip(costs).map(|(drafter, cost)| Source::new(drafter, cost)).collect();
    let report =
        SpeculationReport { drafters: names.into_iter().map(DrafterReport::new).collect(), ..Default::default() };
    let (sources, clocks, times) = (&mut sources[..], &clocks[..], Times::default());
    let prefix = view.prefix().map_or_else(Vec::new, |prefix| prefix.tokens.iter().collect());
    let drafts = means.drafts;
    body(&mut Speculating { session, sources, clocks, prefix, drafts, report, times, sizes, computed: 0 })
}

/// The artifact of a draft model, if it can draft for another.
fn draft_view<'f>(view: &ArtifactView<'_>, file: &'f ArtifactFile) -> Result<ArtifactView<'f>, EvalError> {
    let draft = file.view()?;
    let wrong = |reason| EvalError::DraftModel { path: file.path().to_owned(), reason };
    view.check_draft(&draft).map_err(wrong)?;
    Ok(draft)
}
