//! The functions section: rotary tables, then activation curves, each an entry of two u32 and its values.

use super::FormatError;
use super::artifact::{ArtifactView, u32_at};
use super::spec::{CurveId, MAX_DIMENSION, MAX_TABLES};
use crate::numerics::{Curve, F32Bytes, ROTARY_BLOCK, Rotary};

/// Bytes before the values of a rotary table (head_dim, high rows) or a curve (number, k), and before the section's
/// entries (tables, curves).
const ENTRY_BYTES: usize = 8;

impl<'a> ArtifactView<'a> {
    pub(super) fn check_functions(&self) -> Result<(), FormatError> {
        let fault = FormatError::Functions;
        let (rotary, curves) = self.function_counts().ok_or(fault("too short"))?;
        if rotary > MAX_TABLES || curves > MAX_TABLES {
            return Err(fault("too many tables"));
        }
        let mut at = ENTRY_BYTES;
        for _ in 0..rotary {
            at = self.rotary_at(at).ok_or(fault("rotary table runs past the end"))?.1;
        }
        let mut last = 0;
        for _ in 0..curves {
            let (id, curve, next) = self.curve_at(at).ok_or(fault("illegal activation curve"))?;
            if !curve.is_sound() {
                return Err(fault("illegal activation curve"));
            }
            if id as u32 <= last {
                return Err(fault("curves out of order"));
            }
            (last, at) = (id as u32, next);
        }
        if at != self.functions.len() {
            return Err(fault("length does not match its tables"));
        }
        for index in 0..self.spec.layers {
            let layer = self.layer(index as usize);
            if layer.rotary != 0 {
                let table = self.rotary(layer.rotary).ok_or(FormatError::Layer(index, "rotary"))?;
                if table.half * 2 != layer.head_dim as usize {
                    return Err(FormatError::Layer(index, "rotary"));
                }
            }
            if CurveId::from_number(layer.activation).and_then(|id| self.curve(id)).is_none() {
                return Err(FormatError::Layer(index, "activation"));
            }
        }
        let capped = |index: u32| self.layer(index as usize).score_cap.to_bits() != 0;
        let caps = self.spec.logit_cap.to_bits() != 0 || (0..self.spec.layers).any(capped);
        if caps && self.curve(CurveId::Silu).is_none() {
            return Err(fault("the curve of the caps is missing"));
        }
        let head = CurveId::from_number(self.spec.head_activation);
        let pooler = self.spec.has_pooler().then_some(CurveId::Silu);
        match head.or(pooler).map(|id| self.curve(id)) {
            Some(None) => Err(fault("the head's curve is missing")),
            _ => Ok(()),
        }
    }

    fn function_counts(&self) -> Option<(u32, u32)> {
        Some((u32_at(self.functions, 0)?, u32_at(self.functions, 4)?))
    }

    /// The rotary table at a byte offset and where the next entry starts.
    fn rotary_at(&self, at: usize) -> Option<(Rotary<'a>, usize)> {
        let head_dim = u32_at(self.functions, at)?;
        let high_rows = u32_at(self.functions, at + 4)? as usize;
        if !head_dim.is_multiple_of(2) || head_dim == 0 || head_dim > MAX_DIMENSION {
            return None;
        }
        let half = head_dim as usize / 2;
        if high_rows != (self.spec.context as usize).div_ceil(ROTARY_BLOCK) {
            return None;
        }
        let (low, high) = (ROTARY_BLOCK.checked_mul(half)?, high_rows.checked_mul(half)?);
        let values = low.checked_add(high)?.checked_mul(2)?;
        let start = at + ENTRY_BYTES;
        let end = start.checked_add(values.checked_mul(4)?)?;
        let all = F32Bytes::new(self.functions.get(start..end)?);
        let table = Rotary {
            low_cos: all.slice(0, low),
            low_sin: all.slice(low, low),
            high_cos: all.slice(2 * low, high),
            high_sin: all.slice(2 * low + high, high),
            half,
        };
        Some((table, end))
    }

    /// The curve at a byte offset with its number, and where the next entry starts.
    fn curve_at(&self, at: usize) -> Option<(CurveId, Curve<'a>, usize)> {
        let id = CurveId::from_number(u8::try_from(u32_at(self.functions, at)?).ok()?)?;
        let k = u32_at(self.functions, at + 4)?;
        let start = at + ENTRY_BYTES;
        let end = start.checked_add(Curve::BYTES)?;
        Some((id, Curve::checked_before(self.functions.get(start..end)?, k)?, end))
    }

    /// Rotary table `number`, from 1.
    pub fn rotary(&self, number: u8) -> Option<Rotary<'a>> {
        let (count, _) = self.function_counts()?;
        let mut at = ENTRY_BYTES;
        for index in 1..=count {
            let (table, next) = self.rotary_at(at)?;
            if index == u32::from(number) {
                return Some(table);
            }
            at = next;
        }
        None
    }

    /// An activation curve.
    pub fn curve(&self, id: CurveId) -> Option<Curve<'a>> {
        let (rotary, curves) = self.function_counts()?;
        let mut at = ENTRY_BYTES;
        for _ in 0..rotary {
            at = self.rotary_at(at)?.1;
        }
        for _ in 0..curves {
            let (found, curve, next) = self.curve_at(at)?;
            if found == id {
                return Some(curve);
            }
            at = next;
        }
        None
    }
}
