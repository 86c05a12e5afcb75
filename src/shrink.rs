//! Students that are cut out of their teacher: fewer layers, heads, channels of the feed-forward network and hidden channels,
//! chosen by what they carry over some text, and fitted by least squares so that what is kept does the work of what is not.
//! Training goes on from there.
//!
//! | module | contents |
//! |---|---|
//! | [`shape`] | a shape as it is asked for |
//! | [`importance`] | what layers, heads and channels carry |
//! | [`basis`] | the kept directions of the residual stream |
//! | [`mod@select`] | which heads and channels are kept |
//! | `slice` | the tensors cut |
//! | `walk`, `head` | teacher and student side by side, matrices fitted |
//! | `least_squares` | one group of matrices |
//! | [`measure`] | what a student lacks of its teacher |
//! | [`depth`] | which layers a shallower student keeps |
//! | [`fit`] | the shape that fits a budget |
//! | [`projection`] | from the student's hidden states to the teacher's |

pub mod basis;
pub mod depth;
pub mod fit;
mod head;
pub mod importance;
mod least_squares;
pub mod measure;
pub mod projection;
pub mod select;
pub mod shape;
mod slice;
mod walk;

pub use least_squares::Fitted;
pub use walk::GroupFit;

use crate::calibrate::CalibrateError;
use crate::calibrate::moments::MomentsError;
use crate::calibrate::probe::ProbeError;
use crate::compile::fit::FitError;
use crate::disk::{ConfigError, TensorError};
use crate::formats::Description;
use crate::model::families::{self, Widths};
use crate::model::id::ParameterId;
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use crate::train::start::{StartError, with_values};
use basis::{Basis, HiddenMethod, can_rotate};
use burn::tensor::Device;
use importance::Importance;
use select::select;
use shape::ShapeError;
use slice::Cut;
use std::path::PathBuf;
use walk::Walk;

/// Why a student cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum ShrinkError {
    /// The shape cannot be.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The configuration cannot say it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The teacher's values cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tensor made here is invalid.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The forward over the text failed.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// A student cannot be measured.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A shape has no size.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// No shape is within the bounds.
    #[error(
        "no student of the teacher's kind is within the bounds on {target}: the token table alone may be above them; trim the \
         vocabulary, allow more, or take a smaller --fit-scheme"
    )]
    NothingFits {
        /// The device.
        target: String,
    },
    /// No set of so many layers can be a model of the family.
    #[error(
        "--depth {count}: no {count} layers of the teacher are a model of {family} by themselves; name them with --layers"
    )]
    NoLayers {
        /// Asked for.
        count: usize,
        /// `model_type`.
        family: &'static str,
    },
    /// A configuration that is not a smaller teacher.
    #[error(
        "{}: --init slice takes a configuration that differs from the teacher's in layers, heads, network and hidden width \
         alone; {what} differs", path.display()
    )]
    OtherModel {
        /// The configuration.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A student of some layers cannot be made.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Moments of a layer that are not finite.
    #[error("layer {layer}: {source}")]
    Moments {
        /// The teacher's layer.
        layer: usize,
        /// Why.
        source: MomentsError,
    },
    /// The residual stream has no principal directions.
    #[error(
        "the residual stream of the teacher is not finite over the text; the checkpoint overflows, take another text"
    )]
    NoDirections,
    /// The residual stream cannot be rotated.
    #[error(
        "--hidden-method pca: the residual stream of {family} cannot be rotated, which takes RMS norms that stand before \
         their layers alone; take --hidden-method channels"
    )]
    NotRotatable {
        /// `model_type`.
        family: &'static str,
    },
    /// A parameter that is not among the student's.
    #[error("`{0}` has no value; the student's specification is not the one it was cut for")]
    NoValue(ParameterId),
    /// Fitting left the numbers.
    #[error("`{0}` is not finite after fitting; the text makes the teacher overflow, take another one")]
    NotFinite(ParameterId),
}

/// How a student is cut.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Layers of the teacher, ascending.
    pub layers: Vec<usize>,
    /// Widths.
    pub widths: Widths,
    /// How the hidden width is cut; by the family where absent.
    pub hidden: Option<HiddenMethod>,
    /// Whether matrices are fitted.
    pub refit: bool,
}

/// A student, and how well its matrices could be fitted.
#[derive(Clone, Debug)]
pub struct Student {
    /// With its values, in f32.
    pub model: Model,
    /// By group of matrices, in the order of the forward.
    pub fits: Vec<GroupFit>,
}

/// The directions that a plan keeps of a teacher's residual stream.
fn basis_of(spec: &ModelSpec, importance: &Importance, plan: &Plan) -> Result<Basis, ShrinkError> {
    let kept = plan.widths.hidden;
    if kept == spec.hidden {
        return Ok(Basis::Whole);
    }
    match plan.hidden.unwrap_or(HiddenMethod::Channels) {
        HiddenMethod::Channels => Ok(Basis::channels(&importance.hidden, kept)),
        HiddenMethod::Pca if can_rotate(spec) => Basis::principal(&importance.residual, kept),
        HiddenMethod::Pca => Err(ShrinkError::NotRotatable { family: spec.family }),
    }
}

/// The description of a student: the teacher's configuration with fewer layers and other widths.
///
/// # Errors
/// A configuration that cannot say it.
pub fn describe(teacher: &Model, plan: &Plan) -> Result<Description, ConfigError> {
    let mut config = teacher.config.clone();
    if plan.layers.len() < teacher.spec.layers.len() {
        config = families::with_layers(&config, &plan.layers)?;
    }
    let config = families::with_widths(&config, plan.widths)?;
    Ok(Description { config, companions: teacher.companions.clone(), path: teacher.path.clone() })
}

/// Cuts a student out of its teacher and fits it on sequences; `description` is [`describe`]'s, or a configuration that asks
/// for the same shape.
///
/// # Errors
/// [`ShrinkError`].
pub fn cut(
    teacher: &Model,
    importance: &Importance,
    (plan, description): (&Plan, Description),
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
) -> Result<Student, ShrinkError> {
    let spec = description.spec()?;
    let basis = basis_of(&teacher.spec, importance, plan)?;
    let selection = select(importance, &plan.layers, Widths::of(&teacher.spec), plan.widths, basis);
    let cut = Cut { teacher, selection: &selection, spec: &spec };
    let values = cut.values()?;
    let whole = plan.layers.len() == teacher.spec.layers.len() && plan.widths == Widths::of(&teacher.spec);
    let (values, fits) = if whole || (!plan.refit && selection.hidden.is_whole()) {
        (values, Vec::new())
    } else {
        Walk { cut, sequences, device, refit: plan.refit, progress }.run(values)?
    };
    Ok(Student { model: with_values(spec, description, values)?, fits })
}
