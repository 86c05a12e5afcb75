//! The options of exit heads: where they stand, and what is trained with them.

use super::groups::EXITS;
use crate::model::families::check_places;
use crate::model::spec::{Head, ModelSpec};
use crate::stages::stage::Faults;
use crate::train::loss::schedule::Schedule;
use crate::train::loss::table::{LossKind, LossWeights};
use crate::train::scope::ScopeSettings;
use anyhow::anyhow;

/// Names of the parameters of exit heads, as patterns select them.
const EXIT_HEADS: &str = "exit";

/// What is trained beside the exit heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ExitBody {
    /// Everything.
    #[default]
    Joint,
    /// Nothing.
    Frozen,
}

/// Exit heads.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = EXITS)]
pub struct ExitArgs {
    /// Heads after so many layers, where a text may leave: 2,4
    ///
    /// For classifiers. Each is a pooler and a classifier over the output of that layer, which start as copies of the model's
    /// own; exits that the model has elsewhere are dropped. `slmc compile --exit-data` decides when a text leaves.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    exits: Vec<usize>,

    /// Train joint or frozen: everything, or the exit heads alone
    ///
    /// joint: the early layers learn to serve their heads, which costs the last head little and gives the early ones much.
    /// frozen: the answers of the last head stay what they were. [default: joint]
    #[arg(long, value_name = "KIND", value_enum, hide_possible_values = true, requires = "exits")]
    exit_body: Option<ExitBody>,

    /// Weight of the exit heads [default: 1 where there are any]
    ///
    /// Of the sum over exits of half the cross entropy and half the divergence from the last head, at --temperature.
    #[arg(long, value_name = "WEIGHT")]
    exit_weight: Option<Schedule>,
}

impl ExitArgs {
    /// After how many layers; none where the model keeps the exits that it has.
    pub fn exits(&self) -> Option<Vec<usize>> {
        (!self.exits.is_empty()).then(|| self.exits.clone())
    }

    /// The first option that is given.
    pub fn given(&self) -> Option<&'static str> {
        let all = [("exits", !self.exits.is_empty()), ("exit-weight", self.exit_weight.is_some())];
        all.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// The losses with the weight that is given.
    pub fn weights(&self, mut loss: LossWeights) -> LossWeights {
        if let Some(weight) = self.exit_weight {
            loss.set(LossKind::Exits, weight);
        }
        loss
    }

    fn is_frozen(&self) -> bool {
        self.exit_body == Some(ExitBody::Frozen)
    }

    /// What is trained, of what is asked for elsewhere.
    pub fn scope(&self, other: ScopeSettings) -> ScopeSettings {
        match self.is_frozen() {
            true => ScopeSettings { train_only: vec![EXIT_HEADS.to_owned()], lora: None },
            false => other,
        }
    }

    /// Notes exits that the student cannot have, as far as it is known, and options that exclude each other. A bare encoder that
    /// gains a classifier has its layers already.
    pub fn check(
        &self,
        (student, gains): (Option<&ModelSpec>, bool),
        scope: Option<&'static str>,
        faults: &mut Faults,
    ) {
        if let (Some(option), true) = (scope, self.is_frozen()) {
            faults.add("exit-body", anyhow!("--exit-body frozen trains the exit heads alone; leave --{option} out"));
        }
        if self.is_frozen() && gains {
            faults.add(
                "exit-body",
                anyhow!(
                    "--exit-body frozen keeps the last head, and this model has none yet; train it first, or jointly"
                ),
            );
        }
        if let (Some(spec), false) = (student, self.exits.is_empty()) {
            let headless = gains && matches!(spec.head, Head::Hidden);
            let found =
                if headless { check_places(&self.exits, spec.layers.len()) } else { spec.check_exits(&self.exits) };
            faults.check("exits", found);
        }
        let has = student.is_none_or(|spec| !spec.exits.is_empty()) || !self.exits.is_empty();
        if self.exit_weight.is_some() && !has {
            faults.add("exit-weight", anyhow!("--exit-weight is of exit heads, and the model has none; add --exits"));
        }
    }
}
