//! Gains and offsets of norms, where the residual stream is narrower.

use super::At;
use crate::calibrate::batches::with_values;
use crate::model::id::{NormSite, ParameterId, Part};
use crate::model::matrix::{from_rows, into_values};
use crate::model::spec::Norm;
use crate::shrink::ShrinkError;
use burn::tensor::Tensor;

impl At<'_, '_> {
    /// Multiplies the gain of a norm before its readers by the mean of rms(h̃) / rms(h), of deviations where the norm takes
    /// the mean away; its offset then follows the means.
    pub(in crate::shrink) fn scale_gain(
        &mut self,
        place: Option<usize>,
        site: NormSite,
        norm: Norm,
    ) -> Result<(), ShrinkError> {
        if !self.narrower() {
            return Ok(());
        }
        let centred = norm.kind.is_centred();
        let (mut ratio, mut shift, mut tokens) = (0.0, 0.0, 0u64);
        for (teacher, student) in self.teacher.states.iter().zip(&self.student.states) {
            let (own, other) = (student.hidden.dims()[2], teacher.hidden.dims()[2]);
            with_values(&teacher.hidden, |teacher| {
                with_values(&student.hidden, |student| {
                    for (student, teacher) in student.chunks_exact(own).zip(teacher.chunks_exact(other)) {
                        let ((mean, spread), (mean_of_teacher, spread_of_teacher)) =
                            (spread(student, centred, norm.epsilon), spread(teacher, centred, norm.epsilon));
                        if spread_of_teacher > 0.0 {
                            ratio += spread / spread_of_teacher;
                            shift += (mean - mean_of_teacher) / spread_of_teacher;
                            tokens += 1;
                        }
                    }
                })
            })??;
        }
        if tokens == 0 {
            return Ok(());
        }
        let (ratio, shift) = (ratio / tokens as f64, shift / tokens as f64);
        let of = |part| ParameterId::Norm(place.map(|place| place as u16), site, part);
        if centred && let Some(gain) = self.values.get(&of(Part::Weight)).cloned() {
            let offset = self.values.entry(of(Part::Bias));
            offset.and_modify(|offset| {
                offset.iter_mut().zip(&gain).for_each(|(own, gain)| *own += gain * shift as f32);
            });
        }
        self.of.cut.scale_norm(&mut self.values, of(Part::Weight), ratio as f32);
        Ok(())
    }

    /// Fits the gain and offset of a norm channel by channel, so that its outputs are the teacher's in the kept channels:
    /// the output z becomes a z + b.
    pub(in crate::shrink) fn fit_channels(
        &mut self,
        place: Option<usize>,
        site: NormSite,
        teacher: &[Tensor<3>],
        student: &[Tensor<3>],
    ) -> Result<(), ShrinkError> {
        let walk = self.of;
        let width = walk.cut.spec.hidden;
        let of = |part| ParameterId::Norm(place.map(|place| place as u16), site, part);
        let has_offset = self.values.contains_key(&of(Part::Bias));
        let mut sums = vec![[0.0f64; 4]; width];
        let mut tokens = 0.0;
        for (teacher, student) in teacher.iter().zip(student) {
            let basis = &walk.cut.selection.hidden;
            let kept = with_values(teacher, |values| {
                into_values(basis.columns(from_rows(values.to_vec(), walk.cut.teacher.spec.hidden)))
            })?;
            with_values(student, |student| {
                for (z, y) in student.chunks_exact(width).zip(kept.chunks_exact(width)) {
                    for ((sums, z), y) in sums.iter_mut().zip(z).zip(y) {
                        let (z, y) = (f64::from(*z), f64::from(*y));
                        for (sum, value) in sums.iter_mut().zip([z, y, z * z, z * y]) {
                            *sum += value;
                        }
                    }
                    tokens += 1.0;
                }
            })?;
        }
        let fit = |[z, y, square, product]: [f64; 4]| {
            let (z, y) = if has_offset { (z / tokens, y / tokens) } else { (0.0, 0.0) };
            let (square, product) = (square / tokens - z * z, product / tokens - z * y);
            let slope = if square > 0.0 { product / square } else { 1.0 };
            (slope, y - slope * z)
        };
        let fits: Vec<(f64, f64)> = sums.into_iter().map(fit).collect();
        let added = if walk.cut.spec.counts_from_one(of(Part::Weight)) { 1.0 } else { 0.0 };
        self.values.entry(of(Part::Weight)).and_modify(|gain| {
            gain.iter_mut().zip(&fits).for_each(|(own, (slope, _))| {
                *own = ((f64::from(*own) + added) * slope - added) as f32;
            });
        });
        self.values.entry(of(Part::Bias)).and_modify(|offset| {
            offset.iter_mut().zip(&fits).for_each(|(own, (slope, shift))| {
                *own = (f64::from(*own) * slope + shift) as f32;
            });
        });
        Ok(())
    }
}

/// Mean (0 unless centred) and what a norm divides by: the root of the mean square about it and `epsilon`.
fn spread(row: &[f32], centred: bool, epsilon: f64) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = if centred { row.iter().map(|value| f64::from(*value)).sum::<f64>() / count } else { 0.0 };
    let square = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    (mean, (square + epsilon).sqrt())
}
