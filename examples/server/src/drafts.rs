//! Guesses of the next tokens, which the model confirms several at a time: the runtime's drafters, with the times of passes
//! measured as they run, so that drafts stop where they do not pay on this machine. No draft changes a token.

use crate::memory::Aligned;
use crate::model::Model;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::kernels::best;
use slm_runtime::kernels::pool::Pool;
use slm_runtime::session::{Extent, Session, SessionError};
use slm_runtime::speculate::{Drafter, Draws, MAX_DRAFTS, ModelDrafter, READING, Repeats, Source};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Cost of a draft model's token in steps of the model, until it is measured.
const FIRST_COST: f32 = 0.15;
/// Passes without drafts at the start: they say how long a step takes.
const SETTLING: u64 = 3;

/// What a draft model needs: it lives as long as the drafters that borrow it.
pub struct DraftModel {
    view: ArtifactView<'static>,
    memory: Aligned,
    /// The tokens that its session has read, (context).
    read: Vec<u32>,
}

impl DraftModel {
    /// The draft model of an artifact; `None` where it has none.
    pub fn of(model: &Model, extent: Extent) -> Option<Self> {
        let view = model.view.draft_model()?;
        let memory = Aligned::zeroed(Session::required_bytes_for(&view, extent))?;
        Some(DraftModel { view, memory, read: vec![0; view.spec().context as usize] })
    }
}

/// How long a drafter took, and for how many drafts; a token that it read among many counts as a part of one.
#[derive(Default)]
pub struct Clock {
    time: Cell<Duration>,
    drafted: Cell<f32>,
}

/// A drafter whose time is taken.
pub struct Timed<'d> {
    drafter: Box<dyn Drafter + 'd>,
    /// By which metrics name it.
    pub name: &'static str,
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

/// The drafters of an artifact, each with a clock: the sequence itself, a model, a table.
pub fn drafters<'d>(
    model: &'d Model,
    pool: &'d Pool,
    rows: usize,
    draft: Option<&'d mut DraftModel>,
    clocks: &'d [Clock; 3],
) -> Result<Vec<Timed<'d>>, SessionError> {
    let [first, second, third] = clocks;
    let mut all = vec![Timed { drafter: Box::new(Repeats), name: "repeats", clock: first }];
    if let Some(DraftModel { view, memory, read }) = draft {
        let session = Session::with_workers(view, best(view.layout()), pool, rows, memory.as_mut_slice())?;
        all.push(Timed { drafter: Box::new(ModelDrafter::new(session, read)), name: "model", clock: second });
    }
    if let Some(table) = model.view.continuations() {
        all.push(Timed { drafter: Box::new(table), name: "continuations", clock: third });
    }
    Ok(all)
}

/// Drafters as the runtime asks them, and what passes take.
pub struct Drafts<'s> {
    /// The drafters.
    sources: Vec<Source<'s>>,
    names: Vec<&'static str>,
    clocks: Vec<&'s Clock>,
    /// Seconds of passes by their number of rows; 0 where none was timed.
    times: [f64; MAX_DRAFTS + 1],
    passes: u64,
}

impl<'s> Drafts<'s> {
    /// With these drafters.
    pub fn new(drafters: &'s mut [Timed<'_>]) -> Self {
        let names: Vec<_> = drafters.iter().map(|timed| timed.name).collect();
        let clocks = drafters.iter().map(|timed| timed.clock).collect();
        let costs = names.iter().map(|&name| if name == "model" { FIRST_COST } else { 0.0 });
        let sources = drafters.iter_mut().zip(costs).map(|(timed, cost)| Source::new(timed, cost)).collect();
        Drafts { sources, names, clocks, times: [0.0; MAX_DRAFTS + 1], passes: 0 }
    }

    /// The drafters to ask now.
    pub fn sources(&mut self) -> &mut [Source<'s>] {
        if self.passes < SETTLING { &mut [] } else { &mut self.sources }
    }

    /// Name of a drafter.
    pub fn name(&self, source: usize) -> Option<&'static str> {
        self.names.get(source).copied()
    }

    /// Time that all drafters took so far.
    pub fn drafting(&self) -> Duration {
        self.clocks.iter().map(|clock| clock.time.get()).sum()
    }

    /// Notes the time of a pass of `rows` positions. What a time says beyond the last ones is noise to a large part.
    pub fn note(&mut self, rows: usize, time: Duration) {
        self.passes += 1;
        let (time, known) = (time.as_secs_f64(), &mut self.times[rows - 1]);
        *known = if *known == 0.0 { time } else { *known + (time.min(1.5 * *known) - *known) / 4.0 };
        let step = self.times[0];
        if step == 0.0 {
            return;
        }
        for (source, clock) in self.sources.iter_mut().zip(&self.clocks) {
            if rows > 1 {
                source.pace.note_rows(rows, (self.times[rows - 1] / step) as f32);
            }
            if clock.drafted.get() > 0.0 {
                let each = clock.time.get().as_secs_f64() / f64::from(clock.drafted.get());
                source.pace.note_cost((each / step) as f32);
            }
        }
    }
}
