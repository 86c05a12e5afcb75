//! The shape of a student that fits a budget and lacks least of its teacher. Every dimension is cut by itself at a few widths,
//! fitted and measured; what a shape costs is the sum of what its dimensions cost, read off between the measured widths by the
//! share of importance that is lost:
//!
//! ```text
//! cost(shape) = Σ over dimensions of f(lost),   f through (0, 0) and the measured points, straight between them
//! ```
//!
//! For every depth, number of heads and hidden width, the widest network that fits is a candidate. Those of the least cost are
//! cut, fitted and measured as they are, and the least divergence wins. Widths are multiples of what kernels take together.

use super::basis::HiddenMethod;
use super::depth::{self, Kept};
use super::measure::Bench;
use super::shape::{Depth, ShapeError, Wanted, shares_width};
use super::{Plan, ShrinkError};
use crate::compile::estimate::macs_per_token;
use crate::compile::fit::{FitError, Shape, fit as fits_target};
use crate::compile::sections::SectionBytes;
use crate::disk::ConfigError;
use crate::model::families::Widths;
use crate::model::scheme::Preset;
use crate::model::size::{WeightSize, stored_tensors};
use crate::model::spec::{Head, LayerSpec, ModelSpec};
use crate::model::transform::Sparsity;
use crate::progress::Progress;
use crate::target::Target;
use slm_runtime::format::spec::EXPERT_STEP;

/// What bounds a student; one bound at least, and all hold.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The device.
    pub target: Target,
    /// Scheme that bytes are counted in.
    pub scheme: Preset,
    /// Most bytes of weights.
    pub bytes: Option<u64>,
    /// Most multiply-accumulates of a token.
    pub macs: Option<u64>,
    /// Most weights, a tied tensor once.
    pub parameters: Option<u64>,
}

/// A shape with what it is expected to lack, and what it was found to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Candidate {
    /// Layers of the teacher.
    pub layers: Vec<usize>,
    /// Widths.
    #[serde(flatten)]
    pub widths: Widths,
    /// Weights.
    pub parameters: u64,
    /// By the sum over dimensions.
    pub predicted: f64,
    /// Divergence from the teacher, fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
}

/// Candidates that are measured.
const MEASURED: usize = 5;
/// Share of the text that single dimensions are fitted on.
const SHARE: f64 = 0.25;
/// Shares of a dimension at which it is measured.
const CUTS: [f64; 4] = [0.75, 0.5, 0.25, 0.125];
/// Columns that kernels take together, and scales share.
const GROUP: usize = 32;

impl Goal {
    /// Whether a model is within every bound.
    ///
    /// # Errors
    /// A model that cannot be stored.
    fn holds(&self, spec: &ModelSpec) -> Result<bool, ShrinkError> {
        if self.parameters.is_some_and(|most| spec.parameter_count() > most)
            || self.macs.is_some_and(|most| macs_per_token(spec) > most)
        {
            return Ok(false);
        }
        let assignment = self.scheme.assign(spec);
        if let Some(most) = self.bytes {
            let none = Sparsity::new();
            let tensors = stored_tensors(spec, &assignment, &none, self.target.layout, spec.context, false)
                .map_err(FitError::from)?;
            if WeightSize::of(spec, &tensors).weight_bytes > most {
                return Ok(false);
            }
        }
        if self.target.flash_bytes.is_none() && self.target.ram_bytes.is_none() {
            return Ok(true);
        }
        let shape = Shape {
            spec,
            assignment: &assignment,
            sparsity: &Sparsity::new(),
            key_maps: true,
            wide_activations: false,
            golden: (0, 0),
            sections: SectionBytes { vocabulary: 4 * spec.vocabulary as u64, ..SectionBytes::default() },
        };
        match fits_target(&shape, &self.target, spec.text_context()) {
            Ok(_) => Ok(true),
            Err(FitError::DoesNotFit(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses bounds that the smallest student is not within, before anything is measured.
    ///
    /// # Errors
    /// [`ShrinkError::NothingFits`].
    pub fn check(&self, wanted: &Wanted, teacher: &ModelSpec) -> Result<(), ShrinkError> {
        let own = Widths::of(teacher);
        let layers = match &wanted.depth {
            Depth::All => 1,
            Depth::Layers(layers) => layers.len(),
            Depth::Count(count) => *count,
        };
        let hidden = hidden_widths(wanted, teacher).into_iter().min().unwrap_or(own.hidden);
        let shares = shares_width(teacher.family);
        let least = Wanted {
            depth: Depth::All,
            heads: wanted.heads.filter(|_| !shares),
            key_heads: wanted.key_heads.or_else(|| {
                let free = !shares && wanted.heads.is_none() && teacher.layers.iter().any(|l| l.attention().is_some());
                free.then_some(1)
            }),
            ffn: inner_widths(wanted, teacher).first().copied(),
            hidden: (hidden != own.hidden).then_some(hidden),
        };
        let widths = least.widths(teacher)?;
        let layers = teacher.layers.iter().take(layers).copied().collect();
        match self.holds(&widths.applied(&ModelSpec { layers, ..teacher.clone() }))? {
            true => Ok(()),
            false => Err(ShrinkError::NothingFits { target: self.target.name.clone() }),
        }
    }

    /// Whether it bounds anything.
    pub fn bounds(&self) -> bool {
        self.bytes.is_some()
            || self.macs.is_some()
            || self.parameters.is_some()
            || self.target.flash_bytes.is_some()
            || self.target.ram_bytes.is_some()
    }
}

/// Multiples of a group from the smallest on, and the whole width.
fn widths_of(whole: usize, step: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = (1..).map(|n| n * step).take_while(|width| *width < whole).collect();
    widths.push(whole);
    widths
}

/// The step of a width: a group, or less of what is narrow itself.
fn step_of(whole: usize) -> usize {
    if whole >= 4 * GROUP { GROUP } else { (whole / 8).max(1).next_power_of_two().min(GROUP) }
}

/// Widths of networks to choose from. Experts keep theirs.
fn inner_widths(wanted: &Wanted, teacher: &ModelSpec) -> Vec<usize> {
    let own = Widths::of(teacher).ffn;
    match wanted.ffn {
        Some(ffn) => vec![ffn],
        None if teacher.has_experts() => vec![own],
        None => widths_of(own, step_of(own)),
    }
}

/// Hidden widths to choose from.
fn hidden_widths(wanted: &Wanted, teacher: &ModelSpec) -> Vec<usize> {
    let own = Widths::of(teacher);
    if let Some(hidden) = wanted.hidden {
        return vec![hidden];
    }
    // A bare encoder is its hidden states.
    if teacher.head == Head::Hidden {
        return vec![own.hidden];
    }
    let head_dim = teacher.layers.iter().find_map(LayerSpec::attention).map(|attention| attention.head_dim);
    match head_dim.filter(|_| shares_width(teacher.family)) {
        Some(head_dim) => (1..=own.heads).map(|heads| heads * head_dim).collect(),
        None if teacher.has_experts() => {
            let mut widths = widths_of(own.hidden, step_of(own.hidden));
            widths.retain(|width| width.is_multiple_of(EXPERT_STEP));
            widths
        }
        None => widths_of(own.hidden, step_of(own.hidden)),
    }
}

/// f of one dimension: (share of importance lost, divergence), ascending.
struct Curve(Vec<(f64, f64)>);

impl Curve {
    fn at(&self, lost: f64) -> f64 {
        let place = self.0.partition_point(|(known, _)| *known < lost);
        let (low, high) = match (place.checked_sub(1), self.0.get(place)) {
            (Some(low), Some(high)) => (self.0[low], *high),
            (None, _) => return 0.0,
            // Past the last measured point the last slope goes on.
            (Some(last), None) => match last.checked_sub(1) {
                Some(before) => (self.0[before], self.0[last]),
                None => return self.0[last].1,
            },
        };
        if high.0 <= low.0 {
            return high.1;
        }
        low.1 + (high.1 - low.1) * (lost - low.0) / (high.0 - low.0)
    }
}

/// Share of importance that is lost when the largest of every list are kept.
fn lost(lists: &[&[f64]], kept: usize) -> f64 {
    let (mut all, mut left) = (0.0, 0.0);
    for list in lists {
        let mut sorted = list.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        all += sorted.iter().sum::<f64>();
        left += sorted.iter().skip(kept).sum::<f64>();
    }
    if all > 0.0 { left / all } else { 0.0 }
}

/// A search.
struct Search<'s> {
    bench: &'s Bench<'s>,
    goal: &'s Goal,
    wanted: &'s Wanted,
    hidden: Option<HiddenMethod>,
    own: Widths,
    kept: Kept,
}

/// The shapes that were measured, the best first.
///
/// # Errors
/// [`ShrinkError::NothingFits`], and what else may happen on the way.
pub fn choose(
    bench: &Bench<'_>,
    goal: &Goal,
    wanted: &Wanted,
    hidden: Option<HiddenMethod>,
    progress: &dyn Progress,
) -> Result<Vec<Candidate>, ShrinkError> {
    let teacher = &bench.teacher.spec;
    goal.check(wanted, teacher)?;
    let kept = match (&wanted.depth, wanted.layers(teacher)?) {
        (Depth::All, _) => depth::choose(bench, 1, progress)?,
        (_, Some(layers)) => Kept::from([(layers.len(), (layers, None))]),
        (Depth::Count(count), None) => {
            let mut kept = depth::choose(bench, *count, progress)?;
            kept.retain(|depth, _| depth == count);
            kept
        }
        (Depth::Layers(_), None) => Kept::new(),
    };
    let search = Search { bench, goal, wanted, hidden, own: Widths::of(teacher), kept };
    let mut candidates = search.candidates(progress)?;
    candidates.sort_by(|a, b| a.predicted.total_cmp(&b.predicted).then_with(|| a.widths.cmp(&b.widths)));
    candidates.truncate(MEASURED);
    if candidates.is_empty() {
        return Err(ShrinkError::NothingFits { target: goal.target.name.clone() });
    }
    progress.begin("measuring shapes", candidates.len() as u64, "shapes");
    for candidate in &mut candidates {
        let plan = search.plan(candidate.layers.clone(), candidate.widths);
        candidate.measured = Some(bench.measured(&plan, 1.0)?.1);
        progress.advance(1);
    }
    progress.finish();
    let measured = |candidate: &Candidate| candidate.measured.unwrap_or(f64::INFINITY);
    candidates.sort_by(|a, b| measured(a).total_cmp(&measured(b)).then_with(|| a.widths.cmp(&b.widths)));
    Ok(candidates)
}

impl Search<'_> {
    fn plan(&self, layers: Vec<usize>, widths: Widths) -> Plan {
        Plan { layers, widths, hidden: self.hidden, refit: true }
    }

    fn all(&self) -> Vec<usize> {
        (0..self.bench.teacher.spec.layers.len()).collect()
    }

    /// The numbers of heads and key heads to choose from, most first.
    fn heads(&self) -> Vec<(usize, usize)> {
        let fixed = self.wanted.heads.is_some() || self.wanted.key_heads.is_some();
        let has_attention = self.bench.teacher.spec.layers.iter().any(|layer| layer.attention().is_some());
        let group = self.own.heads / self.own.key_heads;
        match self.wanted.widths(&self.bench.teacher.spec) {
            Ok(widths) if fixed || !has_attention => vec![(widths.heads, widths.key_heads)],
            _ => (1..=self.own.key_heads).rev().map(|key_heads| (key_heads * group, key_heads)).collect(),
        }
    }

    /// Widths that a student can have; `None` where its heads do not go with the hidden width.
    fn widths(&self, heads: Option<(usize, usize)>, ffn: usize, hidden: usize) -> Option<Widths> {
        let shared = shares_width(self.bench.teacher.spec.family);
        let wanted = Wanted {
            depth: Depth::All,
            heads: heads.map(|heads| heads.0).filter(|_| !shared),
            key_heads: heads.map(|heads| heads.1).filter(|_| !shared),
            ffn: Some(ffn),
            hidden: (hidden != self.own.hidden).then_some(hidden),
        };
        match wanted.widths(&self.bench.teacher.spec) {
            Ok(widths) => Some(widths),
            // A model of convolutions alone has no heads to ask for.
            Err(ShapeError::NoAttention { .. }) => Some(Widths { ffn, hidden, ..self.own }),
            Err(_) => None,
        }
    }

    /// f of a dimension that is cut to each of `options`, of which a few are measured.
    fn curve(
        &self,
        options: &[usize],
        whole: usize,
        lost: impl Fn(usize) -> f64,
        widths: impl Fn(usize) -> Option<Widths>,
        progress: &dyn Progress,
    ) -> Result<Curve, ShrinkError> {
        let mut points = vec![(0.0, 0.0)];
        let mut taken = Vec::new();
        for cut in CUTS {
            let wanted = (whole as f64 * cut).round() as usize;
            let nearest = options.iter().copied().filter(|&width| width < whole && !taken.contains(&width));
            let Some(width) = nearest.min_by_key(|width| width.abs_diff(wanted)) else { continue };
            taken.push(width);
            let Some(widths) = widths(width) else { continue };
            match self.bench.measured(&self.plan(self.all(), widths), SHARE) {
                Ok((_, divergence)) => points.push((lost(width), divergence)),
                Err(ShrinkError::Config(ConfigError::HeadWidth { .. })) => {}
                Err(error) => return Err(error),
            }
            progress.advance(1);
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        // More lost never costs less.
        for place in 1..points.len() {
            points[place].1 = points[place].1.max(points[place - 1].1);
        }
        Ok(Curve(points))
    }

    fn candidates(&self, progress: &dyn Progress) -> Result<Vec<Candidate>, ShrinkError> {
        let importance = self.bench.importance;
        let teacher = &self.bench.teacher.spec;
        let (heads, hidden) = (self.heads(), hidden_widths(self.wanted, &self.bench.teacher.spec));
        let ffn = inner_widths(self.wanted, teacher);
        progress.begin("measuring dimensions", 3 * CUTS.len() as u64, "widths");
        let inner: Vec<&[f64]> = importance.layers.iter().map(|layer| &layer.ffn[..]).collect();
        let of_heads: Vec<&[f64]> = importance.layers.iter().map(|layer| &layer.heads[..]).collect();
        let lost_inner = |width| lost(&inner, width);
        let lost_heads = |heads| lost(&of_heads, heads);
        let lost_hidden = |width| lost(&[&importance.hidden[..]], width);
        let own = self.own;
        let inner_curve = self.curve(&ffn, own.ffn, lost_inner, |ffn| self.widths(None, ffn, own.hidden), progress)?;
        let counts: Vec<usize> = heads.iter().map(|(heads, _)| *heads).collect();
        let key_heads = |count: usize| heads.iter().find(|(heads, _)| *heads == count).copied();
        let separate = !shares_width(teacher.family);
        let head_curve = match separate {
            true => {
                let widths = |count| self.widths(key_heads(count), own.ffn, own.hidden);
                self.curve(&counts, own.heads, lost_heads, widths, progress)?
            }
            false => Curve(vec![(0.0, 0.0)]),
        };
        let hidden_curve =
            self.curve(&hidden, own.hidden, lost_hidden, |hidden| self.widths(None, own.ffn, hidden), progress)?;
        progress.finish();
        let mut candidates = Vec::new();
        let many = self.kept.values().any(|(_, cost)| cost.is_none()) && self.kept.len() > depth::MEASURED;
        let deepest = if many { self.deepest()? } else { 0.0 };
        for (layers, _) in self.kept.values() {
            let depth = if many { self.turned(layers) * deepest } else { self.depth_cost(layers)? };
            for &hidden in &hidden {
                for &(count, keys) in if separate { &heads[..] } else { &heads[..1] } {
                    let fitting = |ffn: usize| -> Result<Option<(Widths, u64)>, ShrinkError> {
                        let Some(widths) = self.widths(Some((count, keys)), ffn, hidden) else { return Ok(None) };
                        let kept = layers.iter().map(|&layer| teacher.layers[layer]).collect();
                        let spec = widths.applied(&ModelSpec { layers: kept, ..teacher.clone() });
                        Ok(self.goal.holds(&spec)?.then(|| (widths, spec.parameter_count())))
                    };
                    // The widest network that fits: what fits narrower fits.
                    let (mut low, mut high, mut best) = (0, ffn.len(), None);
                    while low < high {
                        let middle = low + (high - low) / 2;
                        match fitting(ffn[middle])? {
                            Some(found) => {
                                best = Some(found);
                                low = middle + 1;
                            }
                            None => high = middle,
                        }
                    }
                    let Some((widths, parameters)) = best else { continue };
                    let predicted = depth
                        + inner_curve.at(lost_inner(widths.ffn))
                        + if separate { head_curve.at(lost_heads(widths.heads)) } else { 0.0 }
                        + hidden_curve.at(lost_hidden(widths.hidden));
                    candidates.push(Candidate {
                        layers: layers.clone(),
                        widths,
                        parameters,
                        predicted,
                        measured: None,
                    });
                }
            }
        }
        Ok(candidates)
    }

    /// What a depth costs, fitted.
    fn depth_cost(&self, layers: &[usize]) -> Result<f64, ShrinkError> {
        if layers.len() == self.bench.teacher.spec.layers.len() {
            return Ok(0.0);
        }
        Ok(self.bench.measured(&self.plan(layers.to_vec(), self.own), SHARE)?.1)
    }

    /// The divergence of the shallowest student: of many layers the one depth that is measured.
    fn deepest(&self) -> Result<f64, ShrinkError> {
        match self.kept.values().next() {
            Some((layers, _)) => self.depth_cost(layers),
            None => Ok(0.0),
        }
    }

    /// What the layers that are left out turn, of what those do that the shallowest student leaves out.
    fn turned(&self, layers: &[usize]) -> f64 {
        let left = |kept: &[usize]| -> f64 {
            let out = self.all().into_iter().filter(|layer| !kept.contains(layer));
            out.map(|layer| self.bench.importance.layers[layer].turn).sum()
        };
        let most = self.kept.values().next().map_or(0.0, |(layers, _)| left(layers));
        if most > 0.0 { left(layers) / most } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_off_between_what_was_measured() {
        let curve = Curve(vec![(0.0, 0.0), (0.2, 1.0), (0.4, 3.0)]);
        let found: Vec<f64> = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5].map(|lost| curve.at(lost)).to_vec();
        let expected = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        assert_eq!(Curve(vec![(0.0, 0.0)]).at(0.3), 0.0);
    }

    #[test]
    fn widths_are_multiples_and_the_whole() {
        assert_eq!(widths_of(100, 32), [32, 64, 96, 100]);
        assert_eq!(widths_of(64, 32), [32, 64]);
        assert_eq!([768, 256, 72, 16, 1].map(step_of), [32, 32, 16, 2, 1]);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(lost(&[&[1.0, 3.0, 2.0], &[2.0, 2.0, 0.0]], 2), 0.1) && lost(&[&[0.0]], 0) == 0.0);
    }
}
