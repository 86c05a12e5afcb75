//! A pool of threads that run jobs together with the calling thread. Between jobs they spin briefly, since the next
//! part of a layer follows within microseconds, and then park. A thread that is late, because the machine is busy,
//! finds the job closed and does not delay it: the other threads take all parts.
#![expect(unsafe_code, reason = "a job borrows from its caller, which waits for every thread that took it up")]

use super::workers::Workers;
use core::sync::atomic::Ordering;
use std::format;
use std::io;
use std::sync::{Arc, PoisonError};
use std::vec::Vec;
use sync::{AtomicBool, AtomicU64, Condvar, JoinHandle, Mutex, Slot, spin_loop, thread};

/// The primitives of the pool.
#[cfg(not(all(test, loom)))]
mod sync {
    pub(super) use core::hint::spin_loop;
    pub(super) use core::sync::atomic::{AtomicBool, AtomicU64};
    pub(super) use std::sync::{Condvar, Mutex};
    pub(super) use std::thread::{self, JoinHandle};

    /// A cell in the manner of loom's.
    pub(super) struct Slot<T>(core::cell::UnsafeCell<T>);

    impl<T> Slot<T> {
        pub(super) fn new(value: T) -> Self {
            Slot(core::cell::UnsafeCell::new(value))
        }

        pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }

    /// A no-op: the accesses around it are `SeqCst`.
    pub(super) fn order() {}
}

/// The same from loom, which explores the interleavings of the threads; see `model`.
#[cfg(all(test, loom))]
mod sync {
    pub(super) use loom::cell::UnsafeCell as Slot;
    pub(super) use loom::hint::spin_loop;
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64};
    pub(super) use loom::sync::{Condvar, Mutex};
    pub(super) use loom::thread::{self, JoinHandle};

    /// A fence, since loom treats `SeqCst` accesses as weaker ones.
    pub(super) fn order() {
        loom::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }
}

/// Iterations that a thread spins for the next job before it parks: some tens of microseconds.
const SPINS: u32 = if cfg!(loom) { 1 } else { 20_000 };
/// Iterations after which a caller that waits for the others yields.
const PATIENCE: u32 = if cfg!(loom) { 1 } else { 4_000 };

/// Fields of [`Shared::state`]: threads at work, whether the job may be joined, and the number of jobs so far.
const AT_WORK: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const JOB: u64 = 1 << 17;

type Job = dyn Fn(usize) + Sync;

struct Shared {
    state: AtomicU64,
    /// The open job.
    job: Slot<Option<*const Job>>,
    /// Whether a caller is using the pool.
    busy: AtomicBool,
    /// Number of sleeping threads, and whether the pool is closing.
    asleep: Mutex<(usize, bool)>,
    /// Whether any thread may be asleep, so that callers can avoid the lock.
    sleepers: AtomicBool,
    wake: Condvar,
}

// SAFETY: `job` is written by the one caller that holds `busy`, while it is closed and no thread is at work, and read by threads
// that counted themselves in while it was open.
unsafe impl Sync for Shared {}
// SAFETY: the pointer is to a `Sync` closure, which outlives its use.
unsafe impl Send for Shared {}

/// A pool of threads, the caller's own included.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `count` workers: the caller, and `count - 1` threads that are started here.
    pub fn new(count: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: Slot::new(None),
            busy: AtomicBool::new(false),
            asleep: Mutex::new((0, false)),
            sleepers: AtomicBool::new(false),
            wake: Condvar::new(),
        });
        let mut pool = Pool { shared, threads: Vec::with_capacity(count.saturating_sub(1)) };
        for number in 1..count {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("worker {number}"));
            pool.threads.push(builder.spawn(move || shared.work(number))?);
        }
        Ok(pool)
    }
}

impl Workers for Pool {
    fn count(&self) -> usize {
        self.threads.len() + 1
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // Another session's job is running: this caller runs its job alone.
        if self.threads.is_empty() || shared.busy.swap(true, Ordering::Acquire) {
            job(0);
            return;
        }
        let open = Open { shared };
        let borrowed: *const (dyn Fn(usize) + Sync + '_) = job;
        // SAFETY: only the lifetime changes; `open` ends, and with it this call, only when no thread uses the job any more.
        let job_pointer = unsafe { core::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Job>(borrowed) };
        // SAFETY: the pool is ours, the last job is closed, and no thread is at work.
        shared.job.with_mut(|slot| unsafe { *slot = Some(job_pointer) });
        // Numbers of jobs wrap around within the upper bits.
        shared
            .state
            .store((shared.state.load(Ordering::Relaxed) & !AT_WORK | OPEN).wrapping_add(JOB), Ordering::SeqCst);
        sync::order();
        if shared.sleepers.load(Ordering::SeqCst) {
            drop(shared.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            shared.wake.notify_all();
        }
        job(0);
        drop(open);
    }
}

/// A job that other threads may join; closed when dropped, also by a panic.
struct Open<'s> {
    shared: &'s Shared,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut turns = 0;
        let mut state = self.shared.state.fetch_and(!OPEN, Ordering::AcqRel) & !OPEN;
        while state & AT_WORK != 0 {
            turns += 1;
            if turns % PATIENCE == 0 {
                thread::yield_now()
            } else {
                spin_loop()
            }
            state = self.shared.state.load(Ordering::Acquire);
        }
        self.shared.busy.store(false, Ordering::Release);
    }
}

impl Shared {
    /// The loop of each thread: wait for a new job and join it if it is still open.
    fn work(&self, number: usize) {
        let mut seen = 0;
        loop {
            let Some(state) = self.wait(seen) else { return };
            seen = state / JOB;
            let mut state = state;
            while state & OPEN != 0 && state / JOB == seen {
                match self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => {
                        let _at_work = AtWork { shared: self };
                        // SAFETY: the job is open and this thread counted, so its caller waits.
                        if let Some(job) = self.job.with(|slot| unsafe { *slot }) {
                            // SAFETY: likewise.
                            (unsafe { &*job })(number);
                        }
                        break;
                    }
                    Err(found) => state = found,
                }
            }
        }
    }

    /// Waits for a job after `seen` and returns its state; `None` when the pool closes.
    fn wait(&self, seen: u64) -> Option<u64> {
        for _ in 0..SPINS {
            let state = self.state.load(Ordering::Acquire);
            if state / JOB != seen {
                return Some(state);
            }
            spin_loop();
        }
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        asleep.0 += 1;
        self.sleepers.store(true, Ordering::SeqCst);
        sync::order();
        let found = loop {
            // Read after `sleepers` is set: a caller either sees the sleeper or has its job seen here.
            let state = self.state.load(Ordering::SeqCst);
            if asleep.1 {
                break None;
            }
            if state / JOB != seen {
                break Some(state);
            }
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        };
        asleep.0 -= 1;
        self.sleepers.store(asleep.0 > 0, Ordering::SeqCst);
        found
    }
}

/// A thread that has joined a job; leaves it when dropped, also by a panic.
struct AtWork<'s> {
    shared: &'s Shared,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.shared.state.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.asleep.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.shared.wake.notify_all();
        // A thread that still spins parks first, and sees there that the pool is closing.
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl core::fmt::Debug for Pool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool").field("workers", &self.count()).finish()
    }
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::parallel::{Rows, each};
    use super::*;
    use core::sync::atomic::AtomicUsize;
    use core::time::Duration;
    use std::vec;

    #[test]
    fn every_part_is_done_once_by_any_number_of_threads() {
        for count in 1..=5 {
            let pool = Pool::new(count).expect("threads start");
            assert_eq!(pool.count(), count);
            for round in 0..300 {
                // Sometimes long enough for the threads to park.
                if round % 100 == 99 {
                    thread::sleep(Duration::from_millis(5));
                }
                let mut rows = vec![0u32; 7 * (round % 40)];
                let calls = AtomicUsize::new(0);
                let mut scratch = vec![0u64; count];
                each(&pool, false, &mut scratch, Rows::new(&mut rows, 7), |index, row, scratch| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    *scratch += 1;
                    row.iter_mut().for_each(|value| *value += index as u32 + 1);
                });
                assert_eq!(calls.into_inner(), round % 40);
                assert_eq!(scratch.iter().sum::<u64>(), (round % 40) as u64);
                assert!(rows.chunks(7).enumerate().all(|(index, row)| row == [index as u32 + 1; 7]));
            }
        }
    }

    #[test]
    fn sessions_may_share_a_pool() {
        let pool = Pool::new(3).expect("threads start");
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut rows = vec![0u8; 50];
                        each(&pool, false, &mut [(), (), ()], Rows::new(&mut rows, 1), |_, row, ()| row[0] += 1);
                        assert_eq!(rows, [1; 50]);
                        total.fetch_add(50, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 200 * 50);
    }
}
