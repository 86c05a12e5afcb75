//! The part of a product's output that one call writes: a range of columns of every row of a (tokens, width) array.
//! Several calls may write different columns of the same array concurrently.

use core::marker::PhantomData;
use core::ops::Range;

/// Columns `range` of a (tokens, width) array of f32.
pub struct Columns<'a> {
    /// First value of the array.
    start: *mut f32,
    tokens: usize,
    width: usize,
    range: Range<usize>,
    array: PhantomData<&'a mut [f32]>,
}

impl<'a> Columns<'a> {
    /// All columns of an array of `width` columns.
    ///
    /// # Panics
    /// If the array is not a whole number of rows.
    pub fn new(array: &'a mut [f32], width: usize) -> Self {
        assert!(width > 0 && array.len().is_multiple_of(width));
        Columns { start: array.as_mut_ptr(), tokens: array.len() / width, width, range: 0..width, array: PhantomData }
    }

    /// Columns `range` of the array, a subrange of these.
    ///
    /// # Panics
    /// If it is not a subrange.
    pub fn part(&mut self, range: Range<usize>) -> Columns<'_> {
        assert!(self.range.start <= range.start && range.start <= range.end && range.end <= self.range.end);
        Columns { start: self.start, tokens: self.tokens, width: self.width, range, array: PhantomData }
    }

    /// Columns `range` of the array, a subrange of these, numbered from 0.
    ///
    /// # Panics
    /// If it is not a subrange.
    #[cfg(feature = "streaming")]
    pub(crate) fn renumbered(&mut self, range: Range<usize>) -> Columns<'_> {
        let Columns { start, tokens, width, range, .. } = self.part(range);
        // Rows are as far from each other as before, so the last one ends within the array.
        Columns { start: start.wrapping_add(range.start), tokens, width, range: 0..range.len(), array: PhantomData }
    }

    /// Columns `range` of the array, while other columns are borrowed elsewhere.
    ///
    /// # Safety
    /// While the result lives, nothing else may use those columns.
    #[expect(unsafe_code, reason = "threads write different columns of one array")]
    pub(super) unsafe fn shared_part(&self, range: Range<usize>) -> Columns<'_> {
        assert!(self.range.start <= range.start && range.start <= range.end && range.end <= self.range.end);
        Columns { start: self.start, tokens: self.tokens, width: self.width, range, array: PhantomData }
    }

    /// Number of rows.
    #[inline]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The range of columns.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// These columns of one row: index 0 is column `range().start`.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row(&mut self, token: usize) -> &mut [f32] {
        assert!(token < self.tokens);
        #[expect(unsafe_code, reason = "the columns of several rows are not one slice")]
        // SAFETY: `new` checked that the array has `tokens · width` values, `part` (and with it `renumbered`, which moves
        // the start by what it takes from the range) that the range lies within the width, and
        // these columns have no other borrow: `new` and `part` borrow mutably, and the caller of `shared_part`
        // guarantees it.
        unsafe {
            core::slice::from_raw_parts_mut(self.start.add(token * self.width + self.range.start), self.range.len())
        }
    }
}

#[expect(unsafe_code, reason = "columns are a mutable borrow of f32, which may go to another thread")]
// SAFETY: as for `&mut [f32]`, which it represents.
unsafe impl Send for Columns<'_> {}
#[expect(unsafe_code, reason = "a shared reference gives no access to the values but through `shared_part`")]
// SAFETY: every safe method that reaches the values takes `&mut self`.
unsafe impl Sync for Columns<'_> {}
