//! The pool under loom, which runs the code of this module in every interleaving within a bound on thread switches,
//! with every value that the memory model allows a load to return. loom fails on a data race, on a deadlock and on a
//! loop that does not end.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p slm-runtime --features std --lib pool::model
//! ```

use super::*;
use loom::cell::UnsafeCell;

/// A value of the caller for each worker. loom sees every access to one.
struct Values<const COUNT: usize>([UnsafeCell<u32>; COUNT]);

// SAFETY: worker n uses value n only, and the caller uses all of them when no worker does; loom checks this.
unsafe impl<const COUNT: usize> Sync for Values<COUNT> {}

impl<const COUNT: usize> Values<COUNT> {
    fn new() -> Self {
        Values(core::array::from_fn(|_| UnsafeCell::new(0)))
    }

    fn add(&self, worker: usize) {
        // SAFETY: loom fails where two threads use one value.
        self.0[worker].with_mut(|value| unsafe { *value += 1 });
    }

    /// Reads all values, as the owner of them.
    fn read(&self) -> [u32; COUNT] {
        // SAFETY: loom fails where another thread still writes one.
        self.0.each_ref().map(|value| value.with(|value| unsafe { *value }))
    }
}

/// Explores every execution with at most this many preemptions.
fn explore(switches: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(run);
}

/// Runs jobs one after the other on a pool that is then dropped. When a job returns, its caller has done its part,
/// every other worker has completed its part or not begun it, and none returns to it later.
fn jobs<const COUNT: usize>(number: usize) {
    let pool = Pool::new(COUNT).expect("threads start");
    for _ in 0..number {
        let values = Values::<COUNT>::new();
        pool.run(&|worker| values.add(worker));
        let [own, others @ ..] = &values.read()[..] else { panic!("a pool has workers") };
        assert!(*own == 1 && others.iter().all(|&value| value <= 1), "each worker runs a job once at most");
    }
}

#[test]
fn two_workers_and_two_jobs() {
    explore(3, || jobs::<2>(2));
}

#[test]
fn three_workers_and_a_job() {
    explore(2, || jobs::<3>(1));
}

/// A worker that has parked is woken by a job: the caller's part waits for the worker's here, and ends in every order.
#[test]
fn a_parked_worker_is_woken() {
    explore(2, || {
        let pool = Pool::new(2).expect("threads start");
        let came = AtomicBool::new(false);
        pool.run(&|worker| match worker {
            0 => {
                while !came.load(Ordering::Acquire) {
                    thread::yield_now();
                }
            }
            _ => came.store(true, Ordering::Release),
        });
    });
}

/// Two callers share a pool: the second runs its job alone.
#[test]
fn two_callers() {
    explore(2, || {
        let pool = loom::sync::Arc::new(Pool::new(2).expect("threads start"));
        let other = loom::sync::Arc::clone(&pool);
        let caller = |pool: &Pool| {
            let values = Values::<2>::new();
            pool.run(&|worker| values.add(worker));
            let [own, worker] = values.read();
            assert!(own == 1 && worker <= 1);
        };
        let thread = loom::thread::spawn(move || caller(&other));
        caller(&pool);
        thread.join().expect("the other caller ends");
    });
}
