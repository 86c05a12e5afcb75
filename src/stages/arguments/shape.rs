//! Options of the shape of a student that is cut out of its teacher.

use super::TargetName;
use super::size::Size;
use crate::model::scheme::Preset;
use crate::shrink::basis::HiddenMethod;
use crate::shrink::fit::Goal;
use crate::shrink::shape::{Depth, Wanted};
use crate::stages::shaping::ShapeStart;
use crate::stages::stage::Faults;
use crate::target::Target;
use anyhow::anyhow;

/// Heading of these options.
pub const STUDENT: &str = "Student";

/// Every option that has a student cut out of its teacher.
pub const CUTTING: [&str; 6] = ["depth", "heads", "key_heads", "ffn", "hidden_width", "fit"];

/// What a configuration without weights starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Init {
    /// Random weights
    #[default]
    Random,
    /// The teacher's, cut to the configuration's shape by importance and fitted
    Slice,
}

/// The shape of a student.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = STUDENT)]
pub struct ShapeArgs {
    /// Keep N layers of the teacher, those whose loss costs most
    ///
    /// Up to 12 layers by measurement: runs of neighbours, and layers left out one by one. More by how little a layer
    /// turns the residual stream.
    #[arg(long, value_name = "N", conflicts_with_all = ["layers", "student"])]
    pub depth: Option<usize>,

    /// Keep N attention heads, those that carry most
    ///
    /// Whole heads, so rotary positions stay. Key heads follow: as many heads on each as in the teacher.
    #[arg(long, value_name = "N", conflicts_with = "student")]
    pub heads: Option<usize>,

    /// Keep N key heads; heads follow unless they are given
    #[arg(long, value_name = "N", conflicts_with = "student")]
    pub key_heads: Option<usize>,

    /// Keep N channels of every feed-forward network
    ///
    /// Those of the largest mean |act(gate) · up| times the norm of their column in down.
    #[arg(long, value_name = "N", conflicts_with = "student")]
    pub ffn: Option<usize>,

    /// Keep N hidden channels: of tables, matrices and norms
    ///
    /// Where the heads of a family share the hidden width (bert, distilbert, gpt2), as many of them go.
    #[arg(long, value_name = "N", conflicts_with = "student")]
    pub hidden_width: Option<usize>,

    /// How hidden channels are cut: channels or pca
    ///
    /// channels: those of the largest outputs of norms stay. pca: the residual stream is rotated to its principal directions
    /// first; for models whose norms are RMS and stand before their layers. [default: channels]
    #[arg(long, value_name = "METHOD", value_enum, hide_possible_values = true)]
    pub hidden_method: Option<HiddenMethod>,

    /// Fit kept matrices by least squares: true or false
    ///
    /// Layer after layer, on inputs of the student as it is by then, to the teacher's outputs. [default: true, and false where
    /// --layers alone makes the student]
    #[arg(long, value_name = "BOOL")]
    pub refit: Option<bool>,

    /// Sequences of --data that importance is measured on
    ///
    /// Spread evenly over them. Matrices are fitted on the same, and students compared on others. [default: 256]
    #[arg(long, value_name = "N")]
    pub shape_samples: Option<usize>,

    /// Choose the shape for a target of `slmc targets`
    ///
    /// Within its flash and RAM, and --budget, --macs and --parameters where they are given: depth, heads, network and hidden
    /// width are each cut and measured, the most promising shapes cut, fitted and measured together, and the nearest to the
    /// teacher is trained. What is given beside it stays as given.
    #[arg(long, value_name = "TARGET", conflicts_with = "student")]
    pub fit: Option<TargetName>,

    /// Most bytes of weights, for --fit: 500kB, 2MiB
    #[arg(long, value_name = "BYTES", requires = "fit")]
    pub budget: Option<Size>,

    /// Scheme in which --fit counts bytes: w8, mixed, w4
    ///
    /// [default: w8]
    #[arg(long, value_name = "SCHEME", requires = "fit")]
    pub fit_scheme: Option<Preset>,

    /// Most multiply-accumulates of a token, for --fit
    #[arg(long, value_name = "N", requires = "fit")]
    pub macs: Option<u64>,

    /// Most weights, tables among them, for --fit
    #[arg(long, value_name = "N", requires = "fit")]
    pub parameters: Option<u64>,

    /// What a --student without weights starts from: random or slice
    ///
    /// slice: the teacher's weights, cut to the configuration's shape by importance and fitted. [default: random]
    #[arg(long, value_name = "KIND", value_enum, hide_possible_values = true, requires = "student")]
    pub init: Option<Init>,
}

/// Sequences that importance is measured on.
const SAMPLES: usize = 256;

impl ShapeArgs {
    /// Whether a student is cut, given layers by name.
    fn cuts(&self, layers: &[usize]) -> bool {
        self.depth.is_some()
            || self.widths_given()
            || self.fit.is_some()
            || (!layers.is_empty() && self.refit == Some(true))
    }

    /// Whether a shape is to be chosen for something that is not there, which is said already.
    pub fn is_faulty(&self) -> bool {
        self.fit.is_some()
    }

    fn widths_given(&self) -> bool {
        [self.heads, self.key_heads, self.ffn, self.hidden_width].iter().any(Option::is_some)
    }

    /// The student that is cut; `None` where these options ask for none. Notes options without one.
    pub fn start(&self, layers: &[usize], sliced: bool, faults: &mut Faults) -> Option<ShapeStart> {
        let samples = self.shape_samples.unwrap_or(SAMPLES);
        if samples == 0 {
            faults.add("shape-samples", anyhow!("--shape-samples 0 measures nothing; ask for at least 1"));
        }
        if !self.cuts(layers) && !sliced {
            let given = [
                ("hidden-method", self.hidden_method.is_some()),
                ("shape-samples", self.shape_samples.is_some()),
                ("refit", self.refit == Some(true)),
            ];
            for (option, _) in given.into_iter().filter(|(_, given)| *given) {
                let error = anyhow!(
                    "--{option} says how a student is cut out of its teacher, and none is; add --depth, --heads, --ffn, \
                     --hidden-width or --fit, or leave it out"
                );
                faults.add(option, error);
            }
            return None;
        }
        if self.hidden_method.is_some() && self.hidden_width.is_none() && self.fit.is_none() && !sliced {
            let error = anyhow!("--hidden-method says how --hidden-width is cut; add that, or leave it out");
            faults.add("hidden-method", error);
        }
        let depth = match (self.depth, layers) {
            (Some(count), _) => Depth::Count(count),
            (None, []) => Depth::All,
            (None, layers) => Depth::Layers(layers.to_vec()),
        };
        let wanted =
            Wanted { depth, heads: self.heads, key_heads: self.key_heads, ffn: self.ffn, hidden: self.hidden_width };
        let goal = match &self.fit {
            Some(name) => Some(self.goal(name, faults)?),
            None => None,
        };
        Some(ShapeStart { wanted, hidden: self.hidden_method, refit: self.refit.unwrap_or(true), goal, samples })
    }

    fn goal(&self, name: &str, faults: &mut Faults) -> Option<Goal> {
        let target = faults.check("fit", Target::named(name))?;
        if self.refit == Some(false) {
            faults.add("refit", anyhow!("--fit compares students as they are fitted; leave --refit false out"));
        }
        for (option, bound) in [("macs", self.macs), ("parameters", self.parameters)] {
            if bound == Some(0) {
                faults.add(option, anyhow!("--{option} 0 leaves nothing; ask for more, or leave it out"));
            }
        }
        let goal = Goal {
            target,
            scheme: self.fit_scheme.unwrap_or(Preset::W8),
            bytes: self.budget.map(Size::bytes),
            macs: self.macs,
            parameters: self.parameters,
        };
        if !goal.bounds() {
            let error = anyhow!(
                "--fit {name}: the target has neither flash nor RAM that is known, so nothing bounds the student; add \
                 --budget, --macs or --parameters, or name a device"
            );
            faults.add("fit", error);
        }
        Some(goal)
    }
}
