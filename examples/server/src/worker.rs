//! The thread that owns the model's session: one job after the other, from a bounded queue. What the session has read stays,
//! so that a prompt that begins like the last one, or like the artifact's prefix, is read from there on. A client that is
//! gone is noticed at the next token, or the next piece of its prompt.

use crate::drafts::{Clock, DraftModel, Drafts, drafters};
use crate::error::ApiError;
use crate::memory::Aligned;
use crate::metrics::{Generated, Metrics};
use crate::model::{Model, Task};
use crate::writing::{End, Writing};
use slm_runtime::format::header::SectionKind;
use slm_runtime::grammar::Grammar;
use slm_runtime::kernels::pool::Pool;
use slm_runtime::sample::{Sampling, choose_among};
use slm_runtime::session::{Extent, Session, SessionError};
use slm_runtime::speculate::{Draws, MAX_DRAFTS, round};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::{Receiver, UnboundedSender};

/// Tokens of a prompt that are read before the worker looks whether anyone waits for them.
const PIECE: usize = 64;
/// Tokens that are taken without a choice at once, at most.
const FORCED: usize = 64;
/// Bytes of weights below which threads lose more by waiting for each other than they gain.
const SHARED_WEIGHTS: usize = 2 << 20;

/// A generation.
pub struct Generate {
    /// Tokens to continue, at least one and at most the context.
    pub prompt: Vec<u32>,
    /// Whether no text stands before the first token.
    pub at_start: bool,
    /// Most tokens to add.
    pub most: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Stream of the draws.
    pub seed: u64,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Whether the artifact's grammar is followed; there is one.
    pub grammar: bool,
    /// Whether next tokens are guessed.
    pub drafts: bool,
}

/// What the session is to do.
pub enum Work {
    /// Continue a sequence.
    Generate(Generate),
    /// Read texts, each for one row of output.
    Read(Vec<Vec<u32>>),
}

/// Work with the place for its results; where nobody listens any more, it ends.
pub struct Job {
    /// The work.
    pub work: Work,
    /// Where results go.
    pub reply: UnboundedSender<Event>,
    /// When the request came.
    pub since: Instant,
}

/// A result.
pub enum Event {
    /// A piece of text.
    Text(String),
    /// The end of a generation.
    Done(Summary),
    /// Rows of output, one a text.
    Rows(Vec<Vec<f32>>),
    /// The model could not answer.
    Failed(ApiError),
}

/// What a generation was.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// `stop` or `length`.
    pub finish: &'static str,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those among them that the cache had.
    pub cached: usize,
    /// Tokens added.
    pub completion: usize,
}

/// What the server is doing, for its health.
#[derive(Default)]
pub struct Health {
    /// The self-test has passed, and the session is there.
    pub ready: AtomicBool,
    /// No further requests are taken.
    pub stopping: AtomicBool,
    /// What is under way ends now.
    pub halted: AtomicBool,
}

/// How the session runs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Threads that compute together.
    pub threads: usize,
    /// Most drafts of a pass, 0 for none.
    pub drafts: usize,
}

/// Tests the machine, then works until the queue is closed.
pub fn run(
    model: &Model,
    settings: Settings,
    mut queue: Receiver<Job>,
    health: &Health,
    metrics: &Metrics,
) -> Result<(), String> {
    model.self_test()?;
    let view = &model.view;
    let small = view.section(SectionKind::Weights).is_none_or(|weights| weights.len() < SHARED_WEIGHTS);
    let threads = if small { 1 } else { settings.threads };
    let rows = if model.task == Task::Generate { 1 + settings.drafts.min(MAX_DRAFTS) } else { 1 };
    let extent = Extent { workers: threads, rows };
    let pool = Pool::new(threads).map_err(|error| format!("{threads} threads cannot be started: {error}"))?;
    let bytes = Session::required_bytes_for(view, extent);
    let mut memory = Aligned::zeroed(bytes).ok_or(format!("a session takes {bytes} bytes, which are not there"))?;
    let stopped = |error: SessionError| format!("the session cannot be opened: {error}");
    let mut session =
        Session::with_workers(view, model.kernels, &pool, rows, memory.as_mut_slice()).map_err(stopped)?;
    let wrong = |error| format!("the artifact's prefix cannot be taken up: {error}");
    let prefix = match model.task {
        Task::Generate if session.restore_prefix().map_err(wrong)? > 0 => {
            view.prefix().map_or_else(Vec::new, |prefix| prefix.tokens.iter().collect())
        }
        _ => Vec::new(),
    };
    let most_drafts = session.rows() - 1;
    let clocks = <[Clock; 3]>::default();
    let mut draft = DraftModel::of(model, extent).filter(|_| rows > 1);
    let mut timed = match most_drafts {
        0 => Vec::new(),
        _ => drafters(model, &pool, rows, draft.as_mut(), &clocks).map_err(stopped)?,
    };
    let drafts = Drafts::new(&mut timed);
    let grammar = Grammar::of(view);
    let mut engine = Engine {
        model,
        session,
        grammar,
        drafts,
        read: prefix.clone(),
        prefix,
        most_drafts,
        halted: &health.halted,
        metrics,
    };
    health.ready.store(true, Ordering::Release);
    while let Some(job) = queue.blocking_recv() {
        metrics.started(job.since.elapsed());
        if job.reply.is_closed() {
            continue;
        }
        let begin = Instant::now();
        let done = match &job.work {
            Work::Generate(request) => engine.generate(request, &job),
            Work::Read(texts) => engine.rows_of(texts, &job),
        };
        if let Err(error) = done {
            engine.forget();
            // Nobody may be there to hear it.
            let _ = job.reply.send(Event::Failed(ApiError::failed(format!("the model stopped: {error}"))));
        }
        metrics.ended(begin.elapsed(), engine.session.positions());
    }
    Ok(())
}

/// Why the model stopped.
type Stopped = Box<dyn std::error::Error>;

/// A grammar that is broken, or whose model was changed.
const STUCK: &str = "the artifact's grammar allows no token here";

/// The session with what belongs to it.
struct Engine<'a, 'm, 's> {
    model: &'a Model,
    session: Session<'static, 'm>,
    grammar: Option<Grammar<'static>>,
    drafts: Drafts<'s>,
    /// What the session has read.
    read: Vec<u32>,
    /// What the artifact's sequences begin with.
    prefix: Vec<u32>,
    most_drafts: usize,
    halted: &'a AtomicBool,
    metrics: &'a Metrics,
}

impl Engine<'_, '_, '_> {
    fn forget(&mut self) {
        self.read.clear();
        self.session.reset();
    }

    /// Reads texts, and sends the one row of output that each has: where a model gives one for every token, their mean.
    fn rows_of(&mut self, texts: &[Vec<u32>], job: &Job) -> Result<(), Stopped> {
        let mut rows = Vec::with_capacity(texts.len());
        for tokens in texts {
            if job.reply.is_closed() || self.halted.load(Ordering::Relaxed) {
                let _ = job.reply.send(Event::Failed(stopping()));
                return Ok(());
            }
            self.forget();
            let (mut sums, mut count) = (Vec::new(), 0.0);
            self.session.run(tokens, &mut |_, row| {
                sums.resize(row.len(), 0.0);
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
                count += 1.0;
            })?;
            rows.push(sums.iter().map(|sum| (sum / count) as f32).collect());
            self.metrics.read(tokens.len());
        }
        let _ = job.reply.send(Event::Rows(rows));
        Ok(())
    }

    fn generate(&mut self, request: &Generate, job: &Job) -> Result<(), Stopped> {
        let cached = self.recall(&request.prompt);
        let mut writing = Writing::new(self.model, request, &job.reply, self.halted);
        let end = match self.grammar.filter(|_| request.grammar) {
            Some(grammar) => self.follow(&grammar, request, cached, &mut writing),
            None => self.go_on(request, cached, &mut writing),
        };
        let (first, rest) = writing.times();
        let (prompt, completion) = (request.prompt.len(), writing.tokens.len());
        let first = first.map(|first| first - job.since);
        self.metrics.generated(&Generated { first, rest, prompt, cached, completion });
        let finish = match end? {
            End::Stop => "stop",
            End::Length => "length",
            End::Gone => {
                let _ = job.reply.send(Event::Failed(stopping()));
                return Ok(());
            }
        };
        writing.close();
        let _ = job.reply.send(Event::Done(Summary { finish, prompt, cached, completion }));
        Ok(())
    }

    /// Keeps what was read of a prompt, or takes up the artifact's prefix; returns the number of tokens. The last one is left
    /// to be read.
    fn recall(&mut self, prompt: &[u32]) -> usize {
        let common =
            |tokens: &[u32]| tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
        if common(&self.prefix) > common(&self.read) {
            self.read.clear();
            if self.session.restore_prefix().is_ok() {
                self.read.extend(&self.prefix);
            }
        }
        let known = common(&self.read);
        if known < self.read.len() && self.session.truncate(known).is_err() {
            self.session.reset();
        }
        self.read.truncate(self.session.positions());
        self.read.len()
    }

    /// Reads the prompt but for its last piece, and returns that; `None` where nobody waits any more.
    fn read_prompt<'p>(&mut self, rest: &'p [u32], writing: &Writing<'_>) -> Result<Option<&'p [u32]>, Stopped> {
        let last = (rest.len() - 1) / PIECE * PIECE;
        for part in rest[..last].chunks(PIECE) {
            if writing.is_gone() {
                return Ok(None);
            }
            self.session.read(part)?;
            self.read.extend(part);
        }
        Ok(Some(&rest[last..]))
    }

    /// Adds tokens freely.
    fn go_on(&mut self, request: &Generate, cached: usize, writing: &mut Writing<'_>) -> Result<End, Stopped> {
        let prompt = &request.prompt;
        let Some(last) = self.read_prompt(&prompt[cached..], writing)? else { return Ok(End::Gone) };
        self.read.extend(last);
        let mut going = writing.choose(self.session.step(last)?).is_some();
        let mut sequence = prompt.clone();
        while going {
            sequence.extend(&writing.tokens[sequence.len() - prompt.len()..]);
            if self.read.len() == self.model.context() {
                return Ok(End::Length);
            }
            let seen = if request.sampling.repetition_penalty != 1.0 { writing.seen.clone() } else { Vec::new() };
            let index = writing.tokens.len() as u64;
            let draws = Draws { sampling: request.sampling, seed: request.seed, index, seen: &seen };
            let confirmed = self.pass(&sequence, &draws, request.drafts, &mut |logits| {
                let chosen = writing.choose(logits);
                going = chosen.is_some();
                chosen
            })?;
            self.read.extend(sequence.last());
            self.read.extend(&writing.tokens[sequence.len() - prompt.len()..][..confirmed]);
        }
        Ok(writing.end)
    }

    /// Reads the last token of the sequence, and those of its guesses that are right; returns their number.
    fn pass(
        &mut self,
        sequence: &[u32],
        draws: &Draws<'_>,
        drafts: bool,
        choose: &mut dyn FnMut(&[f32]) -> Option<u32>,
    ) -> Result<usize, Stopped> {
        let drafting = self.drafts.drafting();
        let start = Instant::now();
        let sources = if drafts { self.drafts.sources() } else { &mut [] };
        let found = round(&mut self.session, sources, self.most_drafts, sequence, draws, choose)?;
        let time = start.elapsed().saturating_sub(self.drafts.drafting() - drafting);
        self.drafts.note(1 + found.drafted, time);
        let drafter = found.source.and_then(|source| self.drafts.name(source));
        self.metrics.passed(drafter, found.drafted, found.confirmed);
        Ok(found.confirmed)
    }

    /// Adds the tokens that a grammar allows, from its start on. Those without an alternative are not computed.
    fn follow(
        &mut self,
        grammar: &Grammar<'_>,
        request: &Generate,
        cached: usize,
        writing: &mut Writing<'_>,
    ) -> Result<End, Stopped> {
        let (mut state, mut allowed) = (grammar.start(), vec![0; grammar.words()]);
        let Some(last) = self.read_prompt(&request.prompt[cached..], writing)? else { return Ok(End::Gone) };
        let (mut pending, mut drawn) = (last.to_vec(), 0);
        let context = self.model.context();
        loop {
            // The last token that is said need not be read, so it may be one more than the context.
            let left = (context + 1).saturating_sub(self.read.len() + pending.len());
            let room = (request.most - writing.tokens.len()).min(left).min(FORCED);
            let mut run = [0; FORCED];
            let count = grammar.forced(&mut state, &mut run[..room]);
            if !run[..count].iter().all(|&token| writing.add(token)) {
                return Ok(writing.end);
            }
            pending.extend(&run[..count]);
            if grammar.is_complete(&state) {
                return Ok(End::Stop);
            }
            if writing.tokens.len() >= request.most || self.read.len() + pending.len() > context {
                return Ok(End::Length);
            }
            // More of them may follow.
            if count == FORCED {
                continue;
            }
            if grammar.allowed(&state, &mut allowed) == 0 {
                // The text may end, and the model has no token that says so.
                return if grammar.is_accepting(&state) { Ok(End::Stop) } else { Err(STUCK.into()) };
            }
            self.read.extend(&pending);
            let logits = self.session.step_allowed(&pending, &allowed)?;
            // The first one reads the prompt.
            if drawn > 0 {
                self.metrics.passed(None, 0, 0);
            }
            pending.clear();
            let (sampling, seen) = (&request.sampling, &writing.seen);
            let chosen = choose_among(logits, &allowed, seen, sampling, request.seed, drawn);
            let token = chosen.ok_or(STUCK)?;
            grammar.advance(&mut state, token)?;
            drawn += 1;
            if self.model.view.end_tokens().contains(token) {
                return Ok(writing.stop());
            }
            if !writing.add(token) {
                return Ok(writing.end);
            }
            pending.push(token);
        }
    }
}

fn stopping() -> ApiError {
    ApiError::unavailable("the server is stopping; the answer is not complete")
}
