//! Students that are cut out of their teacher before they are trained: importance measured on the training data, the shape
//! chosen, the matrices fitted.

use crate::formats::{self, Description};
use crate::model::families::{self, Widths};
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::report::{Table, grouped};
use crate::shrink::basis::{HiddenMethod, can_rotate};
use crate::shrink::fit::{Candidate, Goal, choose as choose_shape};
use crate::shrink::importance::{Importance, measure};
use crate::shrink::measure::Bench;
use crate::shrink::shape::{Depth, ShapeError, Wanted};
use crate::shrink::{GroupFit, Plan, ShrinkError, cut, depth, describe};
use crate::train::data::Samples;
use burn::tensor::Device;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// A student to cut out of its teacher.
#[derive(Clone, Debug)]
pub struct ShapeStart {
    /// The shape asked for.
    pub wanted: Wanted,
    /// How the hidden width is cut.
    pub hidden: Option<HiddenMethod>,
    /// Whether matrices are fitted.
    pub refit: bool,
    /// What bounds a shape that is to be chosen.
    pub goal: Option<Goal>,
    /// Sequences to measure on.
    pub samples: usize,
}

/// The student that was cut, for the report.
#[derive(Clone, Debug, Serialize)]
pub struct ShapeReport {
    /// Layers of the teacher that it has.
    pub layers: Vec<usize>,
    /// Widths.
    #[serde(flatten)]
    pub widths: Widths,
    /// Weights, tables among them.
    pub parameters: u64,
    /// Weights of the layers alone, and the teacher's.
    pub layer_parameters: [u64; 2],
    /// Divergence from the teacher before training, on sequences that nothing was fitted on: KLD in nats, or 1 − cosine.
    pub divergence: f64,
    /// How well its matrices were fitted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<GroupFit>,
    /// Shapes that were measured, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

impl ShapeReport {
    /// The student, and the shapes that it was chosen among.
    pub fn text(&self) -> String {
        let mut table = Table::pairs();
        let list = |layers: &[usize]| layers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        table.row(["layers", &list(&self.layers)]);
        table.row(["heads", &self.widths.heads.to_string()]);
        table.row(["key heads", &self.widths.key_heads.to_string()]);
        table.row(["ffn", &self.widths.ffn.to_string()]);
        table.row(["hidden", &self.widths.hidden.to_string()]);
        let [own, teacher] = self.layer_parameters;
        table.row(["layer parameters", &format!("{} of {}", grouped(own), grouped(teacher))]);
        table.row(["divergence untrained", &format!("{:.4}", self.divergence)]);
        for candidate in &self.candidates {
            let Widths { heads, key_heads, ffn, hidden } = candidate.widths;
            let measured = candidate.measured.map_or_else(|| "-".to_owned(), |measured| format!("{measured:.4}"));
            let shape =
                format!("{} layers, {heads}/{key_heads} heads, ffn {ffn}, hidden {hidden}", candidate.layers.len());
            table.row(["measured", &format!("{shape}: {measured}")]);
        }
        table.to_string()
    }
}

/// Most sequences that students are compared on.
const MOST_COMPARED: usize = 64;

impl ShapeStart {
    /// The specification as far as it is known before the work; `None` where it is to be chosen.
    ///
    /// # Errors
    /// A shape that no student of the teacher can have.
    pub fn spec(&self, teacher: &ModelSpec) -> Result<Option<ModelSpec>, ShapeError> {
        let widths = self.wanted.widths(teacher)?;
        let layers = self.wanted.layers(teacher)?;
        if self.goal.is_some() {
            return Ok(None);
        }
        let kept: Vec<LayerSpec> = match (layers, &self.wanted.depth) {
            (Some(layers), _) => layers.iter().map(|&layer| teacher.layers[layer]).collect(),
            // Which ones does not matter where all are alike.
            (None, Depth::Count(count)) if teacher.layers.windows(2).all(|pair| pair[0] == pair[1]) => {
                teacher.layers[..*count].to_vec()
            }
            _ => return Ok(None),
        };
        Ok(Some(widths.applied(&ModelSpec { layers: kept, ..teacher.clone() })))
    }

    /// Whether a student is within its bounds, and the hidden width can be cut as it is asked for.
    ///
    /// # Errors
    /// [`ShrinkError::NothingFits`], [`ShrinkError::NotRotatable`].
    pub fn check(&self, teacher: &ModelSpec) -> Result<(), ShrinkError> {
        if let Some(goal) = &self.goal {
            goal.check(&self.wanted, teacher)?;
        }
        match self.hidden {
            Some(HiddenMethod::Pca) if !can_rotate(teacher) => {
                Err(ShrinkError::NotRotatable { family: teacher.family })
            }
            _ => Ok(()),
        }
    }
}

/// A configuration that a student is cut to, and the shape that it asks for.
///
/// # Errors
/// A configuration that is not a smaller teacher.
pub fn shape_of(path: &Path, teacher: &ModelSpec) -> Result<(Description, Wanted), ShrinkError> {
    let config = formats::configuration(path).map_err(crate::train::start::StartError::from)?;
    let spec = families::spec_without_weights(&config)?;
    let other = |what| ShrinkError::OtherModel { path: path.to_owned(), what };
    let head_dim = |spec: &ModelSpec| spec.layers.iter().find_map(LayerSpec::attention).map(|own| own.head_dim);
    for (what, differs) in [
        ("the family", spec.family != teacher.family),
        ("the vocabulary", spec.vocabulary != teacher.vocabulary),
        ("the width of a head", head_dim(&spec) != head_dim(teacher)),
        ("the head", spec.head != teacher.head),
        ("the context", spec.context != teacher.context),
    ] {
        if differs {
            return Err(other(what));
        }
    }
    let widths = Widths::of(&spec);
    let wanted = Wanted {
        depth: Depth::Count(spec.layers.len()),
        heads: head_dim(&spec).map(|_| widths.heads),
        key_heads: head_dim(&spec).map(|_| widths.key_heads),
        ffn: Some(widths.ffn),
        hidden: Some(widths.hidden),
    };
    let asked = wanted.widths(teacher)?;
    wanted.layers(teacher)?;
    if asked.applied(&ModelSpec { layers: spec.layers.clone(), ..teacher.clone() }).layers != spec.layers {
        return Err(other("a width of single layers"));
    }
    let description = formats::describe(path).map_err(crate::train::start::StartError::from)?;
    Ok((description, wanted))
}

/// Sequences to fit on, up to `count`, and others to compare on, both spread evenly over the samples. None is in both, unless
/// there is one alone.
fn spread(samples: &Samples, count: usize) -> [Vec<Vec<u32>>; 2] {
    let all = samples.sequences();
    // At most a quarter, so that most of few are left to fit on.
    let compared = (count.min(all.len()) / 4).clamp(1, MOST_COMPARED).min(all.len());
    let middle = |number: usize| (2 * number + 1) * all.len() / (2 * compared.max(1));
    let chosen: BTreeSet<usize> = (0..compared).map(middle).collect();
    let mut rest: Vec<&Vec<u32>> =
        all.iter().enumerate().filter(|(number, _)| !chosen.contains(number)).map(|(_, sequence)| sequence).collect();
    if rest.is_empty() {
        rest.extend(all);
    }
    let fitted = count.min(rest.len());
    let fitted = (0..fitted).map(|number| rest[number * rest.len() / fitted].clone()).collect();
    [fitted, chosen.into_iter().map(|number| all[number].clone()).collect()]
}

/// Cuts a student out of its teacher; `description` is a configuration that it is to have, otherwise made of the teacher's.
///
/// # Errors
/// [`ShrinkError`].
pub fn shape(
    start: &ShapeStart,
    teacher: &Model,
    description: Option<Description>,
    samples: &Samples,
    device: &Device,
    progress: &dyn Progress,
) -> Result<(Model, ShapeReport), ShrinkError> {
    let [fitted, compared] = spread(samples, start.samples);
    let importance: Importance = measure(teacher, &fitted, device, progress)?;
    let bench = Bench::new(teacher, &importance, [&fitted, &compared], device)?;
    let mut candidates = Vec::new();
    let (layers, widths) = match &start.goal {
        Some(goal) => {
            candidates = choose_shape(&bench, goal, &start.wanted, start.hidden, progress)?;
            let best = &candidates[0];
            (best.layers.clone(), best.widths)
        }
        None => {
            let widths = start.wanted.widths(&teacher.spec)?;
            (layers_of(start, &bench, progress)?, widths)
        }
    };
    let plan = Plan { layers, widths, hidden: start.hidden, refit: start.refit };
    let description = match description {
        Some(description) => description,
        None => describe(teacher, &plan)?,
    };
    let student = cut(teacher, &importance, (&plan, description), &fitted, device, progress)?;
    let divergence = bench.divergence(&student.model)?;
    let report = ShapeReport {
        layers: plan.layers,
        widths: plan.widths,
        parameters: student.model.spec.parameter_count(),
        layer_parameters: [&student.model.spec, &teacher.spec].map(layer_parameters),
        divergence,
        fits: student.fits,
        candidates,
    };
    Ok((student.model, report))
}

/// The layers that are kept.
fn layers_of(start: &ShapeStart, bench: &Bench<'_>, progress: &dyn Progress) -> Result<Vec<usize>, ShrinkError> {
    let teacher = bench.teacher_spec();
    match (start.wanted.layers(teacher)?, &start.wanted.depth) {
        (Some(layers), _) => Ok(layers),
        (None, Depth::Count(count)) => {
            let mut kept = depth::choose(bench, *count, progress)?;
            match kept.remove(count) {
                Some((layers, _)) => Ok(layers),
                None => Err(ShrinkError::NoLayers { count: *count, family: teacher.family }),
            }
        }
        (None, _) => Ok((0..teacher.layers.len()).collect()),
    }
}

fn layer_parameters(spec: &ModelSpec) -> u64 {
    let of_layers = spec.parameters().into_iter().filter(|parameter| parameter.id.layer().is_some());
    of_layers.map(|parameter| parameter.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_student_is_judged_on_what_it_was_fitted_on() {
        for (there, asked) in [(2, 256), (3, 1), (7, 256), (300, 256), (511, 256), (600, 256), (5000, 256), (5000, 2)] {
            let samples = Samples::Causal((0..there).map(|number| vec![number]).collect());
            let [fitted, compared] = spread(&samples, asked);
            let some = (there as usize).min(asked);
            assert_eq!(compared.len(), (some / 4).clamp(1, MOST_COMPARED), "{there} sequences, {asked} asked for");
            assert_eq!(
                fitted.len(),
                asked.min(there as usize - compared.len()),
                "{there} sequences, {asked} asked for"
            );
            let different: BTreeSet<&Vec<u32>> = fitted.iter().chain(&compared).collect();
            assert_eq!(different.len(), fitted.len() + compared.len(), "{there} sequences, {asked} asked for");
        }
        // Of one there is no other.
        assert_eq!(spread(&Samples::Causal(vec![vec![5]]), 256), [vec![vec![5]], vec![vec![5]]]);
    }
}
