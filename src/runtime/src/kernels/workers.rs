//! The threads that run the parts of a layer: the caller alone, or a pool. Which part runs where changes no bit, since
//! parts write different places and every sum is a sum of integers.

/// Most workers that one session uses; more find nothing to do. One without threads, so that a session and its counters
/// stay small on a device's stack.
pub const MAX_WORKERS: usize = if cfg!(any(feature = "std", test)) { 16 } else { 1 };

/// A fixed number of workers that run one job together.
pub trait Workers: Sync {
    /// How many there are, at least 1.
    fn count(&self) -> usize;

    /// Calls `job` once on each worker, with a number below [`Workers::count`], and returns when all have ended. A worker
    /// may be called for several numbers. Jobs take their work from a shared counter, so that a
    /// worker that comes late finds nothing left and delays no other.
    fn run(&self, job: &(dyn Fn(usize) + Sync));
}

/// The caller alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Single;

impl Workers for Single {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        job(0);
    }
}
