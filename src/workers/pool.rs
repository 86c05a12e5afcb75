//! Workers that take pieces of work in turn, and the order in which their results are taken. A piece is computed as often as
//! it must be: workers have no state that it depends on, so another one gives the same bits.

use burn::tensor::Device;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// HOST:PORT.
    pub address: String,
    /// Its device, without gradients.
    pub device: Device,
    /// Why it is used no more.
    lost: Mutex<Option<String>>,
}

/// Workers in the order in which they were named.
#[derive(Debug)]
pub struct Workers(Vec<Worker>);

/// Why a piece has no result.
#[derive(Debug)]
pub enum Failure<E> {
    /// The worker failed: another one computes it.
    Lost(String),
    /// The piece failed, as it would everywhere.
    Other(E),
}

/// Why not all pieces have a result.
#[derive(Debug)]
pub enum TurnError<E> {
    /// No worker is left; every one with the reason.
    NoneLeft(String),
    /// A piece failed.
    Other(E),
}

impl Workers {
    /// Workers on devices, by their addresses.
    pub fn new(devices: impl IntoIterator<Item = (String, Device)>) -> Self {
        let worker = |(address, device)| Worker { address, device, lost: Mutex::default() };
        Workers(devices.into_iter().map(worker).collect())
    }

    /// All of them, lost ones too.
    pub fn all(&self) -> &[Worker] {
        &self.0
    }

    /// Those that are there, by their numbers.
    fn present(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|worker| lock(&self.0[*worker].lost).is_none()).collect()
    }

    /// Every worker that is lost, with the reason.
    fn losses(&self) -> String {
        let reason = |worker: &Worker| Some(format!("{} ({})", worker.address, lock(&worker.lost).as_ref()?));
        self.0.iter().filter_map(reason).collect::<Vec<_>>().join(", ")
    }

    /// Does `count` pieces of work, each worker its own one after the other: `begin` makes what they share, from the number of
    /// the worker, and `work` does one, by its number. The pieces of a worker that is lost meanwhile are done by the others,
    /// and `warn` is told.
    ///
    /// # Errors
    /// The first piece that fails on its own account, or that no worker is left.
    pub fn in_turn<S, E: Send>(
        &self,
        count: usize,
        begin: impl Fn(usize) -> S + Sync,
        work: impl Fn(usize, &S, usize) -> Result<(), Failure<E>> + Sync,
        warn: impl Fn(&str),
    ) -> Result<(), TurnError<E>> {
        let done: Vec<AtomicBool> = (0..count).map(|_| AtomicBool::new(false)).collect();
        let one = |worker: usize, pieces: &[usize]| -> Result<(), Failure<E>> {
            let shared = begin(worker);
            for &piece in pieces {
                work(worker, &shared, piece)?;
                done[piece].store(true, Ordering::Release);
            }
            Ok(())
        };
        loop {
            let open: Vec<usize> = (0..count).filter(|piece| !done[*piece].load(Ordering::Acquire)).collect();
            if open.is_empty() {
                return Ok(());
            }
            let present = self.present();
            if present.is_empty() {
                return Err(TurnError::NoneLeft(self.losses()));
            }
            let ended = std::thread::scope(|scope| {
                let mut running = Vec::new();
                for (turn, &worker) in present.iter().enumerate() {
                    let pieces: Vec<usize> = open.iter().copied().skip(turn).step_by(present.len()).collect();
                    if !pieces.is_empty() {
                        let one = &one;
                        running.push((worker, scope.spawn(move || one(worker, &pieces))));
                    }
                }
                running.into_iter().map(|(worker, thread)| (worker, thread.join())).collect::<Vec<_>>()
            });
            let mut failed = None;
            for (worker, ended) in ended {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(Failure::Other(error))) => failed = failed.or(Some(error)),
                    Ok(Err(Failure::Lost(reason))) => self.lose(worker, reason, &warn),
                    // burn panics in few places where a connection is gone; a fault of slmc's own would come again here.
                    Err(panic) if self.is_remote(worker) => self.lose(worker, words_of(panic.as_ref()), &warn),
                    Err(panic) => resume_unwind(panic),
                }
            }
            if let Some(error) = failed {
                return Err(TurnError::Other(error));
            }
        }
    }

    /// Whether a worker is another process; tests have devices of this one.
    fn is_remote(&self, worker: usize) -> bool {
        !crate::model::device::is_on_cpu(&self.0[worker].device)
    }

    fn lose(&self, worker: usize, reason: String, warn: &impl Fn(&str)) {
        let Worker { address, lost, .. } = &self.0[worker];
        let warning = format!("worker {address} is lost ({reason})");
        *lock(lost) = Some(reason);
        let left = self.present().len();
        if left > 0 {
            let all = self.0.len();
            warn(&format!("{warning}; its pieces are computed by the {left} of {all} workers that are left"));
        }
    }
}

/// What a panic said.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it ended without a word".to_owned())
}

/// A poisoned lock only means that another thread panicked: what it guards is one value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values that come in any order, taken in that of their numbers: a sum of floating-point numbers depends on it.
#[derive(Debug)]
pub struct InOrder<T> {
    next: usize,
    waiting: BTreeMap<usize, T>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        InOrder { next: 0, waiting: BTreeMap::new() }
    }
}

impl<T> InOrder<T> {
    /// Keeps the value of a number, and hands on all whose turn it is.
    pub fn put(&mut self, number: usize, value: T, mut take: impl FnMut(usize, T)) {
        self.waiting.insert(number, value);
        while let Some(value) = self.waiting.remove(&self.next) {
            take(self.next, value);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn workers(count: usize) -> Workers {
        Workers::new((0..count).map(|number| (format!("w{number}:1"), Device::flex())))
    }

    /// Every piece with the worker that did it, where worker `fails` is lost at its second piece.
    fn done(count: usize, pieces: usize, fails: &[usize]) -> (Result<Vec<usize>, String>, Vec<String>) {
        let (workers, by, warnings) = (workers(count), Mutex::new(vec![usize::MAX; pieces]), RefCell::new(Vec::new()));
        let begun = Mutex::new(vec![0; count]);
        let ended = workers.in_turn(
            pieces,
            |worker| worker,
            |worker, shared, piece| {
                assert_eq!(worker, *shared);
                lock(&begun)[worker] += 1;
                if fails.contains(&worker) && lock(&begun)[worker] > 1 {
                    return Err(Failure::<String>::Lost("gone".to_owned()));
                }
                lock(&by)[piece] = worker;
                Ok(())
            },
            |warning| warnings.borrow_mut().push(warning.to_owned()),
        );
        let found = match ended {
            Ok(()) => Ok(lock(&by).clone()),
            Err(TurnError::NoneLeft(all)) => Err(all),
            Err(TurnError::Other(error)) => Err(error),
        };
        (found, warnings.into_inner())
    }

    #[test]
    fn pieces_go_to_workers_in_turn() {
        assert_eq!(done(1, 3, &[]), (Ok(vec![0, 0, 0]), Vec::new()));
        assert_eq!(done(2, 5, &[]), (Ok(vec![0, 1, 0, 1, 0]), Vec::new()));
        assert_eq!(done(4, 2, &[]), (Ok(vec![0, 1]), Vec::new()));
        assert_eq!(done(2, 0, &[]), (Ok(Vec::new()), Vec::new()));
    }

    #[test]
    fn what_a_lost_worker_had_is_done_by_the_others() {
        let (found, warnings) = done(3, 7, &[1]);
        // Worker 1 has pieces 1 and 4, and is gone at the second.
        assert_eq!(found, Ok(vec![0, 1, 2, 0, 0, 2, 0]));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("w1:1 is lost (gone)") && warnings[0].contains("2 of 3"), "{warnings:?}");
    }

    #[test]
    fn without_workers_every_loss_is_named() {
        let (found, warnings) = done(2, 9, &[0, 1]);
        let message = found.expect_err("nobody is left");
        assert!(message.contains("w0:1 (gone)") && message.contains("w1:1 (gone)"), "{message}");
        assert!(warnings.len() <= 1, "{warnings:?}");
    }

    #[test]
    fn a_piece_that_fails_by_itself_ends_the_work() {
        let ended = workers(2).in_turn(4, |_| (), |_, (), _| Err(Failure::Other("wrong")), |_| {});
        assert!(matches!(ended, Err(TurnError::Other("wrong"))));
    }

    #[test]
    fn values_are_taken_in_the_order_of_their_numbers() {
        let (mut order, mut taken) = (InOrder::default(), Vec::new());
        for number in [2usize, 0, 3, 1, 4] {
            order.put(number, number * 10, |number, value| taken.push((number, value)));
        }
        assert_eq!(taken, vec![(0, 0), (1, 10), (2, 20), (3, 30), (4, 40)]);
    }
}
