//! The threads that run the parts of a layer: the caller alone, or a pool. The assignment of parts to threads does not
//! affect the result, since parts write different places and every sum is a sum of integers.

/// Largest number of workers of one session; more would idle. 1 without threads, so that a session and its counters
/// stay small on a device's stack.
pub const MAX_WORKERS: usize = if cfg!(any(feature = "std", test)) { 16 } else { 1 };

/// A fixed number of workers that run one job together.
pub trait Workers: Sync {
    /// Number of workers, at least 1.
    fn count(&self) -> usize;

    /// Calls `job` once on each worker, with a number below [`Workers::count`], and returns when all have ended. A
    /// worker may be called for several numbers. Jobs take their work from a shared counter, so that a late worker
    /// finds nothing left and does not delay the others.
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
