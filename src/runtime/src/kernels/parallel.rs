//! Work sharing between workers: a shared counter hands out each number once, and the holder of a number may write the
//! rows that belong to it. Only here do several threads write one array.

use super::columns::Columns;
use super::workers::{MAX_WORKERS, Workers};
use core::marker::PhantomData;
use core::ops::{Range, RangeInclusive};

/// Work-stealing counter over the numbers 0 .. total, each handed out once. Every worker owns a share of consecutive
/// numbers: owners pop from the back, the order in which kernels read tiles, thieves from the front of the others'
/// shares. A chunk is half of the remaining share, within bounds: few chunks, since each starts its reads afresh, and
/// small ones at the end, so that a slow worker does not delay the others.
pub(crate) struct Counter {
    /// Front and back of the rest of each share, 32 bits each.
    shares: [Share; MAX_WORKERS],
    workers: usize,
    /// Smallest and largest chunk.
    chunk: RangeInclusive<u32>,
}

/// A share on a cache line of its own.
#[repr(align(64))]
struct Share(Bounds);

#[cfg(target_has_atomic = "64")]
type Bounds = core::sync::atomic::AtomicU64;
/// Cores without 64-bit atomics: sessions have one worker there.
#[cfg(not(target_has_atomic = "64"))]
type Bounds = core::cell::Cell<u64>;

impl Counter {
    /// # Panics
    /// If there are 2^32 numbers or more.
    pub(crate) fn new(workers: usize, total: usize, chunk: RangeInclusive<usize>) -> Self {
        assert!(total <= u32::MAX as usize);
        let workers = workers.clamp(1, MAX_WORKERS);
        let grain = (*chunk.start()).clamp(1, total.max(1));
        let most = (*chunk.end()).clamp(grain, total.max(grain));
        // Shares begin at multiples of the least chunk.
        let chunks = total.div_ceil(grain);
        let bound = |worker: usize| (chunks * worker.min(workers) / workers * grain).min(total) as u64;
        let shares = core::array::from_fn(|worker| Share(Bounds::new(bound(worker) << 32 | bound(worker + 1))));
        Counter { shares, workers, chunk: grain as u32..=most as u32 }
    }

    /// The next numbers for a worker, if any are left.
    pub(crate) fn claim(&self, worker: usize) -> Option<Range<usize>> {
        let own = worker % self.workers;
        let others = (1..self.workers).map(|step| (own + step) % self.workers);
        self.take::<false>(own).or_else(|| others.into_iter().find_map(|other| self.take::<true>(other)))
    }

    /// A chunk from the front or the back of a share.
    fn take<const FRONT: bool>(&self, share: usize) -> Option<Range<usize>> {
        let mut taken = None;
        let step = |bounds: u64| {
            let (front, back) = ((bounds >> 32) as u32, bounds as u32);
            let remaining = back - front;
            let half = (remaining / 2).next_multiple_of(*self.chunk.start());
            let count = half.clamp(*self.chunk.start(), *self.chunk.end()).min(remaining);
            if count == 0 {
                taken = None;
                return None;
            }
            let (front, back, range) = match FRONT {
                true => (front + count, back, front..front + count),
                false => (front, back - count, back - count..back),
            };
            taken = Some(range.start as usize..range.end as usize);
            Some(u64::from(front) << 32 | u64::from(back))
        };
        self.shares[share].0.exchange(step);
        taken
    }
}

/// Replaces a value by a function of it, atomically.
trait Exchange {
    fn exchange(&self, step: impl FnMut(u64) -> Option<u64>);
}

impl Exchange for Bounds {
    #[cfg(target_has_atomic = "64")]
    fn exchange(&self, step: impl FnMut(u64) -> Option<u64>) {
        use core::sync::atomic::Ordering::Relaxed;
        // Relaxed: the synchronisation of the workers at start and end of a job publishes the rows.
        let _ = self.fetch_update(Relaxed, Relaxed, step);
    }

    #[cfg(not(target_has_atomic = "64"))]
    fn exchange(&self, mut step: impl FnMut(u64) -> Option<u64>) {
        if let Some(value) = step(self.get()) {
            self.set(value);
        }
    }
}

#[cfg(not(target_has_atomic = "64"))]
#[expect(unsafe_code, reason = "one worker uses the counter")]
// SAFETY: without 64-bit atomics every session has one worker.
unsafe impl Sync for Counter {}

/// Rows that workers take one at a time.
///
/// # Safety
/// `take` must give disjoint rows for different numbers below `count`.
#[expect(unsafe_code, reason = "rows of one array are written by several threads")]
pub(crate) unsafe trait SharedRows: Sync {
    /// One row.
    type Row;

    /// Number of rows.
    fn count(&self) -> usize;

    /// Row `index`.
    ///
    /// # Safety
    /// `index` is below `count`, and each index is taken once.
    unsafe fn take(&self, index: usize) -> Self::Row;
}

/// Rows of an array, in order or strided: number i is row `(i % spread.0) · spread.1 + spread.2 + i / spread.0`.
pub(crate) struct Rows<'a, T> {
    start: *mut T,
    width: usize,
    count: usize,
    spread: (usize, usize, usize),
    array: PhantomData<&'a mut [T]>,
}

impl<'a, T> Rows<'a, T> {
    /// All whole rows of `width` values.
    pub(crate) fn new(array: &'a mut [T], width: usize) -> Self {
        let count = array.len().checked_div(width).unwrap_or(0);
        Rows { start: array.as_mut_ptr(), width, count, spread: (1, 0, 0), array: PhantomData }
    }

    /// `minor` rows from row `offset` of each of `major` blocks of `stride` rows; numbers go through the blocks first.
    ///
    /// # Panics
    /// If a block has fewer rows, or the array fewer blocks.
    pub(crate) fn spread(
        array: &'a mut [T],
        width: usize,
        (major, stride): (usize, usize),
        (offset, minor): (usize, usize),
    ) -> Self {
        assert!(major > 0 && offset + minor <= stride && array.len() >= major * stride * width);
        let spread = (major, stride, offset);
        Rows { start: array.as_mut_ptr(), width, count: major * minor, spread, array: PhantomData }
    }
}

#[expect(unsafe_code, reason = "a shared reference gives access to rows only through `take`")]
// SAFETY: the caller of `take` guarantees that nothing else uses the row; the values may go to another thread.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

#[expect(unsafe_code, reason = "rows of one array are written by several threads")]
// SAFETY: different numbers below `count` give different rows: the spread is injective because offset + minor ≤ stride.
unsafe impl<'a, T: Send> SharedRows for Rows<'a, T> {
    type Row = &'a mut [T];

    fn count(&self) -> usize {
        self.count
    }

    unsafe fn take(&self, index: usize) -> &'a mut [T] {
        debug_assert!(index < self.count);
        let (major, stride, offset) = self.spread;
        let row = if major == 1 && stride == 0 { index } else { index % major * stride + offset + index / major };
        // SAFETY: the constructors checked that the array holds all rows, and the caller guarantees that nothing else takes this one.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(row * self.width), self.width) }
    }
}

macro_rules! tuple_of_rows {
    ($($part:ident $index:tt),*) => {
        #[expect(unsafe_code, reason = "rows of several arrays go together")]
        // SAFETY: each part gives disjoint rows.
        unsafe impl<$($part: SharedRows),*> SharedRows for ($($part,)*) {
            type Row = ($($part::Row,)*);

            fn count(&self) -> usize {
                let mut count = usize::MAX;
                $(count = count.min(self.$index.count());)*
                count
            }

            unsafe fn take(&self, index: usize) -> Self::Row {
                // SAFETY: the caller's promise, and no part has fewer rows.
                unsafe { ($(self.$index.take(index),)*) }
            }
        }
    };
}
tuple_of_rows!(A 0, B 1);
tuple_of_rows!(A 0, B 1, C 2);
tuple_of_rows!(A 0, B 1, C 2, D 3);

/// Calls `job` for every row with its number and the worker's own element of `scratch`. With `alone` the caller does
/// all rows, for work that is too small to wake other threads.
pub(crate) fn each<S: Send, R: SharedRows>(
    workers: &dyn Workers,
    alone: bool,
    scratch: &mut [S],
    rows: R,
    job: impl Fn(usize, R::Row, &mut S) + Sync,
) {
    let total = rows.count();
    if alone || workers.count() == 1 || scratch.len() == 1 {
        let Some(scratch) = scratch.first_mut() else { return };
        for index in 0..total {
            #[expect(unsafe_code, reason = "rows of one array are written by several threads")]
            // SAFETY: this call owns the rows, and each number comes once.
            job(index, unsafe { rows.take(index) }, scratch);
        }
        return;
    }
    let grain = (total / (4 * workers.count())).max(1);
    let (counter, seats) = (Counter::new(workers.count(), total, grain..=grain), Counter::new(1, scratch.len(), 1..=1));
    let scratch = Rows::new(scratch, 1);
    workers.run(&|worker| {
        let Some(seat) = seats.claim(0) else { return };
        #[expect(unsafe_code, reason = "each worker has scratch of its own")]
        // SAFETY: the counter hands out each seat once.
        let [scratch] = (unsafe { scratch.take(seat.start) }) else { return };
        while let Some(indices) = counter.claim(worker) {
            for index in indices {
                #[expect(unsafe_code, reason = "rows of one array are written by several threads")]
                // SAFETY: the counter hands out each number once.
                job(index, unsafe { rows.take(index) }, scratch);
            }
        }
    });
}

/// Products whose tiles are distributed together: of one matrix, or of two of the same shape.
pub(crate) struct Segment<'a> {
    /// Tiles of each matrix.
    pub(crate) tiles: usize,
    /// Rows of a tile; the last tile may write fewer.
    pub(crate) rows: usize,
    /// The output of each matrix.
    pub(crate) outputs: [Option<Columns<'a>>; 2],
}

/// Calls `job` for ranges of tiles of every segment, with the segment's number and the columns that those tiles write,
/// until all are done. A range has at least `grain` tiles and at most a quarter of a worker's share.
pub(crate) fn each_tiles(
    workers: &dyn Workers,
    segments: &[Segment<'_>],
    grain: usize,
    job: impl Fn(usize, Range<usize>, [Option<Columns<'_>>; 2]) + Sync,
) {
    let tiles: usize = segments.iter().map(|segment| segment.tiles).sum();
    let most = tiles.div_ceil(4 * workers.count()).max(grain);
    let counter = Counter::new(workers.count(), tiles, grain..=most);
    let run = |worker: usize| {
        while let Some(mut range) = counter.claim(worker) {
            let mut before = 0;
            for (number, segment) in segments.iter().enumerate() {
                let end = range.end.min(before + segment.tiles);
                if range.start < end {
                    let tiles = range.start - before..end - before;
                    let outputs = segment.outputs.each_ref().map(|output| {
                        let output = output.as_ref()?;
                        let all = output.range();
                        let column = |tile: usize| (all.start + tile * segment.rows).min(all.end);
                        #[expect(unsafe_code, reason = "threads write different columns of one array")]
                        // SAFETY: the counter hands out each tile once, and tiles have columns of their own.
                        Some(unsafe { output.shared_part(column(tiles.start)..column(tiles.end)) })
                    });
                    job(number, tiles, outputs);
                    range.start = end;
                }
                before += segment.tiles;
            }
        }
    };
    if workers.count() == 1 { run(0) } else { workers.run(&run) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    proptest! {
        #[test]
        fn every_number_is_handed_out_once(
            workers in 1usize..=5,
            total in 0usize..300,
            (least, most) in (0usize..40, 0usize..400),
            order in proptest::collection::vec(0usize..5, 1..40),
        ) {
            let counter = Counter::new(workers, total, least..=most);
            let mut taken = vec![0u32; total];
            let mut turns = order.iter().cycle();
            while let Some(numbers) = turns.next().and_then(|&worker| counter.claim(worker)) {
                prop_assert!(!numbers.is_empty() && numbers.len() <= most.max(least.clamp(1, total)));
                numbers.for_each(|number| taken[number] += 1);
            }
            prop_assert!(taken.iter().all(|&times| times == 1));
        }
    }
}
