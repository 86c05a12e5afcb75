//! Which stage is next: in the order of the recipe, those before it being settled, as long as there is a place for another one
//! and memory for it. What a stage needs is predicted; one of which that is not known, or that computes on another device,
//! runs alone.

use crate::machine::available_memory_bytes;
use crate::model::device::BACKENDS;
use crate::recipe::plan::RunOptions;
use crate::recipe::reader::Recipe;
use crate::recipe::run_report::StageResult;
use crate::recipe::stage::{Chosen, RecipeStage};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

/// Most stages side by side, if nobody says how many: each of them has threads for every core anyway.
const MOST_JOBS: usize = 4;

/// A stage that is computed.
struct Running {
    /// `None` where it is not known.
    peak_bytes: Option<u64>,
    /// Whether another one ran meanwhile.
    shared: bool,
}

/// The order of a run's stages.
pub(super) struct Schedule {
    jobs: usize,
    /// Memory for all that run at once.
    memory_bytes: u64,
    /// Needed together, by stage.
    peaks: Vec<Option<u64>>,
    waits_for: Vec<BTreeSet<usize>>,
    open: BTreeSet<usize>,
    settled: BTreeSet<usize>,
    running: BTreeMap<usize, Running>,
    /// Keys of stages that are to be computed and have no place yet.
    postponed: BTreeMap<usize, (Value, StageResult)>,
    /// Those that were looked at since something ended.
    looked_at: BTreeSet<usize>,
    wide: bool,
}

impl Schedule {
    /// Of a run of these stages.
    pub(super) fn new(options: &RunOptions, recipe: &Recipe, chosen: &BTreeSet<usize>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let jobs = options.jobs.map_or(cores.min(MOST_JOBS), NonZeroUsize::get);
        let memory = available_memory_bytes().map_or(0, |bytes| bytes - bytes / 10);
        let memory_bytes = options.run.max_ram.map_or(memory, |limit| limit.min(memory));
        let stages = &recipe.stages;
        let waits_for: Vec<BTreeSet<usize>> = stages.iter().map(|stage| stage.waits_for().collect()).collect();
        let predicted = |index: usize| recipe.predictions.get(index).and_then(|own| own.peak_memory_bytes);
        let peaks = (0..stages.len()).map(|index| predicted(index).filter(|_| on_this_machine(&stages[index])));
        Schedule {
            jobs,
            memory_bytes,
            peaks: peaks.collect(),
            wide: is_wide(&waits_for, chosen),
            waits_for,
            open: (0..stages.len()).collect(),
            settled: BTreeSet::new(),
            running: BTreeMap::new(),
            postponed: BTreeMap::new(),
            looked_at: BTreeSet::new(),
        }
    }

    /// Whether one stage runs after the other whatever happens.
    pub(super) fn is_serial(&self) -> bool {
        self.jobs == 1 || !self.wide
    }

    /// Whether stages may run side by side.
    pub(super) fn is_wide(&self) -> bool {
        !self.is_serial()
    }

    /// The next stage to look at; `None` until one that runs has ended.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.running.len() >= self.jobs {
            return None;
        }
        let ready = |index: &usize| self.waits_for[*index].is_subset(&self.settled) && !self.looked_at.contains(index);
        let next = self.open.iter().copied().find(ready)?;
        self.looked_at.insert(next);
        Some(next)
    }

    /// The key of a stage that was postponed.
    pub(super) fn take_known(&mut self, index: usize) -> Option<(Value, StageResult)> {
        self.postponed.remove(&index)
    }

    /// Whether there is memory for a stage beside those that run.
    pub(super) fn may_start(&self, index: usize) -> bool {
        let running = self.running.values().map(|running| running.peak_bytes);
        let all = running.chain([self.peaks[index]]).try_fold(0u64, |sum, peak| sum.checked_add(peak?));
        self.running.is_empty() || all.is_some_and(|all| all <= self.memory_bytes)
    }

    /// Keeps a stage for later.
    pub(super) fn postpone(&mut self, index: usize, key: Value, result: StageResult) {
        self.postponed.insert(index, (key, result));
    }

    /// Notes that a stage runs.
    pub(super) fn started(&mut self, index: usize) {
        self.open.remove(&index);
        let shared = !self.running.is_empty();
        self.running.values_mut().for_each(|running| running.shared = true);
        self.running.insert(index, Running { peak_bytes: self.peaks[index], shared });
    }

    /// Notes that it does not any more; whether it was alone.
    pub(super) fn ended(&mut self, index: usize) -> bool {
        self.open.remove(&index);
        self.looked_at.clear();
        self.running.remove(&index).is_none_or(|running| !running.shared)
    }

    /// Notes that a stage has its result, or will have none.
    pub(super) fn settled(&mut self, index: usize) {
        self.open.remove(&index);
        self.settled.insert(index);
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }
}

/// Whether a stage computes in the memory of this machine, and not in that of another device.
fn on_this_machine(stage: &RecipeStage) -> bool {
    stage
        .choices
        .iter()
        .filter(|choice| choice.flag == "backend")
        .all(|choice| matches!(&choice.value, Chosen::Text(backend) if BACKENDS.contains(&backend.as_str())))
}

/// Whether two of some stages, or of those that they wait for, do not wait for each other: two that have as many before them.
fn is_wide(waits_for: &[BTreeSet<usize>], chosen: &BTreeSet<usize>) -> bool {
    let mut needed = chosen.clone();
    let mut open: Vec<usize> = chosen.iter().copied().collect();
    while let Some(stage) = open.pop() {
        open.extend(waits_for[stage].iter().copied().filter(|other| needed.insert(*other)));
    }
    let mut depths: Vec<usize> = Vec::new();
    for others in waits_for {
        let depth = others.iter().filter_map(|&other| depths.get(other)).max();
        depths.push(depth.map_or(0, |depth| depth + 1));
    }
    let mut seen = BTreeSet::new();
    needed.into_iter().any(|stage| !seen.insert(depths[stage]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(waits_for: &[&[usize]], chosen: &[usize]) -> bool {
        let waits_for: Vec<BTreeSet<usize>> = waits_for.iter().map(|others| others.iter().copied().collect()).collect();
        is_wide(&waits_for, &chosen.iter().copied().collect())
    }

    #[test]
    fn a_chain_is_not_wide() {
        assert!(!wide(&[&[], &[0], &[1], &[0, 2]], &[0, 1, 2, 3]));
        assert!(wide(&[&[], &[0], &[0], &[1, 2]], &[0, 1, 2, 3]));
        assert!(!wide(&[&[], &[0], &[0]], &[2]));
        assert!(wide(&[&[], &[], &[0, 1]], &[2]));
    }

    fn schedule(peaks: &[Option<u64>], waits_for: &[&[usize]], jobs: usize) -> Schedule {
        Schedule {
            jobs,
            memory_bytes: 100,
            peaks: peaks.to_vec(),
            waits_for: waits_for.iter().map(|others| others.iter().copied().collect()).collect(),
            open: (0..peaks.len()).collect(),
            settled: BTreeSet::new(),
            running: BTreeMap::new(),
            postponed: BTreeMap::new(),
            looked_at: BTreeSet::new(),
            wide: true,
        }
    }

    #[test]
    fn stages_start_as_memory_and_places_allow() {
        let mut own = schedule(&[Some(60), Some(60), Some(30), None], &[&[], &[], &[], &[0]], 3);
        let mut started = Vec::new();
        while let Some(index) = own.next() {
            if own.may_start(index) {
                own.started(index);
                started.push(index);
            }
        }
        assert_eq!((started, own.running()), (vec![0, 2], 2));
        assert!(!own.ended(2), "another one ran beside it");
        own.settled(2);
        assert_eq!(own.next(), Some(1));
        assert!(!own.may_start(1));
        assert!(!own.ended(0));
        own.settled(0);
        assert_eq!(own.next(), Some(1));
        assert!(own.may_start(1));
        own.started(1);
        assert_eq!(own.next(), Some(3));
        assert!(!own.may_start(3), "what is not known runs alone");
        assert!(own.ended(1));
        own.settled(1);
        assert!(own.next() == Some(3) && own.may_start(3));
    }
}
