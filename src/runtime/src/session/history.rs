//! What convolutions have read since a mark, so that positions can be taken back. Attention needs no such memory: its
//! cache is by position, and what lies beyond the length is overwritten later. A convolution keeps the last taps - 1
//! inputs only; here a layer has those of the mark, then the input of every position since:
//!
//! ```text
//! per layer with convolution   (taps - 1 + rows, hidden) f32, oldest first
//! ```

use super::{Session, SessionError};
use crate::format::spec::Block;
use crate::memory::Memory;

/// The inputs of convolutions since a mark.
#[derive(Default)]
pub(super) struct History<'m> {
    inputs: &'m mut [f32],
    /// Positions that fit.
    rows: usize,
    /// The length of the sequence at the mark; `None` where not all inputs since are there.
    mark: Option<usize>,
}

impl<'m> History<'m> {
    pub(super) fn new(inputs: &'m mut [f32], rows: usize) -> Self {
        History { inputs, rows, mark: None }
    }

    /// Removes the mark.
    pub(super) fn forget(&mut self) {
        self.mark = None;
    }

    /// The part of a layer, by the rows of the layers with convolution before it, (taps - 1 + rows, hidden).
    fn part(&mut self, before: Before, kept: usize, hidden: usize) -> &mut [f32] {
        let start = (before.kept + before.layers * self.rows) * hidden;
        &mut self.inputs[start..][..(kept + self.rows) * hidden]
    }

    /// The places for the inputs of `count` positions from `first` on, after a layer's `kept` inputs of the mark, where
    /// there is a mark and they fit.
    pub(super) fn places(
        &mut self,
        before: Before,
        (kept, hidden): (usize, usize),
        (first, count): (usize, usize),
    ) -> Option<&mut [f32]> {
        let since = first - self.mark?;
        if since + count > self.rows {
            return None;
        }
        Some(&mut self.part(before, kept, hidden)[(kept + since) * hidden..][..count * hidden])
    }
}

/// The layers with a convolution before one.
#[derive(Clone, Copy, Default)]
pub(super) struct Before {
    /// Their number.
    layers: usize,
    /// Inputs that they keep together.
    kept: usize,
}

impl Before {
    /// After a further layer that keeps `kept` inputs.
    pub(super) fn and(self, kept: usize) -> Before {
        Before { layers: self.layers + 1, kept: self.kept + kept }
    }
}

/// Receives the state of a convolution, its part of the history and the width.
type OfConvolution<'j> = dyn FnMut(&mut [f32], &mut [f32], usize) + 'j;

impl Session<'_, '_> {
    /// Marks the end of the sequence: [`Session::truncate`] can go back to it as long as no more than the session's rows
    /// follow. Models without convolution need no mark.
    pub fn mark(&mut self) {
        self.history.mark = None;
        if self.history.rows <= 1 || !self.is_decoder() || !self.whole {
            return;
        }
        let empty = self.length == 0;
        self.each_convolution(&mut |state, part, _| {
            let kept = state.len();
            match empty {
                true => part[..kept].fill(0.0),
                false => part[..kept].copy_from_slice(state),
            }
        });
        self.history.mark = Some(self.length);
    }

    /// Shortens the sequence to its first `positions`; a longer one stays as it is. The next tokens are read as if what
    /// is taken back had never been.
    ///
    /// # Errors
    /// [`SessionError::Shortened`] where convolutions have read more than the session keeps since the last
    /// [`Session::mark`], or rings have lost what their windows would see; [`SessionError::Interrupted`] after a step that failed
    /// in the middle.
    pub fn truncate(&mut self, positions: usize) -> Result<(), SessionError> {
        if !self.is_decoder() {
            return Err(SessionError::NotADecoder);
        }
        if positions >= self.length {
            return Ok(());
        }
        if positions == 0 {
            self.reset();
            return Ok(());
        }
        self.check_sequence()?;
        let kept = self.least_of_rings();
        if positions < kept {
            return Err(SessionError::Shortened { least: kept as u32 });
        }
        if self.has_convolutions() {
            let whole = |mark: &usize| self.length - mark <= self.history.rows;
            let mark = self.history.mark.filter(whole).unwrap_or(self.length);
            if positions < mark {
                return Err(SessionError::Shortened { least: mark as u32 });
            }
            let since = positions - mark;
            self.each_convolution(&mut |state, part, hidden| {
                state.copy_from_slice(&part[since * hidden..][..state.len()]);
            });
        }
        self.length = positions;
        Ok(())
    }

    /// The fewest positions at which every ring still has what its window sees.
    fn least_of_rings(&self) -> usize {
        let of_layer = |index: usize| {
            let layer = self.layer(index);
            let lost = self.written.saturating_sub(self.cache_shape(&layer).slots);
            if layer.window == 0 || lost == 0 { 0 } else { lost + layer.window as usize - 1 }
        };
        (0..self.artifact.spec().layers as usize).map(of_layer).max().unwrap_or(0)
    }

    /// The layers with a convolution.
    fn has_convolutions(&self) -> bool {
        (0..self.artifact.spec().layers as usize).any(|index| self.layer(index).block == Block::Conv as u8)
    }

    /// Calls `job` with the state of every convolution (taps - 1, hidden), its part of the history and the width.
    fn each_convolution(&mut self, job: &mut OfConvolution<'_>) {
        let hidden = self.artifact.spec().hidden as usize;
        let (mut start, mut before) = (0, Before::default());
        for index in 0..self.artifact.spec().layers as usize {
            let layer = self.layer(index);
            let end = start + self.cache_bytes(&layer);
            if layer.block == Block::Conv as u8 {
                let kept = layer.taps as usize - 1;
                let memory = Memory::new(&mut self.cache[start..end]).ok();
                if let Some(state) = memory.and_then(|mut memory| memory.f32s(kept * hidden)) {
                    job(state, self.history.part(before, kept, hidden), hidden);
                }
                before = before.and(kept);
            }
            start = end;
        }
    }
}
