//! Which values of a model a run trains: all, the parameters that patterns select, adapters of low rank on matrices that stay as
//! they are, or adapters and some parameters.
//!
//! ```text
//! no option             every parameter
//! --train-only P        the parameters that P selects
//! --lora-rank R         adapters on the matrices of --lora-targets, and the head of a classifier
//! both                  adapters, the head of a classifier, and the parameters that P selects
//! ```
//!
//! A parameter outside has neither gradient nor moments, and is written as it was read.

use crate::model::id::{Class, LinearId, ParameterId, Part, Role};
use crate::model::pattern::{matches, matches_parameter};
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Adapters of low rank as they are asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoraSettings {
    /// Rank of B · A.
    pub rank: usize,
    /// B · A is multiplied by alpha / rank.
    pub alpha: f64,
    /// Patterns of matrices; every matrix of the layers where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

/// What is trained, as it is asked for. Its JSON is part of a run's fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ScopeSettings {
    /// Patterns of parameters; all where there is none and no adapter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub train_only: Vec<String>,
    /// Adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSettings>,
}

/// Why a model has no such part.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScopeError {
    /// A pattern selects nothing.
    #[error("--{option} {pattern} selects no {what} of this model; it has {examples}")]
    NoMatch {
        /// The option.
        option: &'static str,
        /// As it was given.
        pattern: String,
        /// What it should have selected, in the plural.
        what: &'static str,
        /// Names that there are.
        examples: String,
    },
    /// A tied head has no weights of its own.
    #[error(
        "--{option} {pattern} selects the head, which in this model is the token table; select `embed.token`, or other matrices"
    )]
    TiedHead {
        /// The option.
        option: &'static str,
        /// As it was given.
        pattern: String,
    },
    /// An adapter on a table.
    #[error(
        "--lora-targets {pattern} selects {id}, a table, which takes no adapter here; train it whole with --train-only {id}"
    )]
    Table {
        /// As it was given.
        pattern: String,
        /// The table.
        id: LinearId,
    },
    /// An adapter on a matrix whose zeros are held.
    #[error(
        "--lora-targets selects {id}, which is pruned: an adapter would fill its zeros; take other targets, or train without --lora-rank"
    )]
    Sparse {
        /// The matrix.
        id: LinearId,
    },
    /// A rank that is not below the matrix's.
    #[error(
        "--lora-rank {rank} is not below the size of {id}, ({rows}, {columns}); take a smaller rank, or train it whole"
    )]
    Rank {
        /// Asked for.
        rank: usize,
        /// The matrix.
        id: LinearId,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// A rank of 0.
    #[error("--lora-rank is 0; expected at least 1")]
    NoRank,
    /// A factor that is not above 0.
    #[error("--lora-alpha is {alpha}; expected a number above 0")]
    Alpha {
        /// Asked for.
        alpha: f64,
    },
}

/// The adapter of one matrix (rows, columns): W + scale · B · A with B (rows, rank) and A (rank, columns).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterShape {
    /// Rows of the matrix.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// Rank.
    pub rank: usize,
    /// alpha / rank.
    pub scale: f32,
}

impl AdapterShape {
    /// Values of A and B.
    pub fn count(&self) -> usize {
        self.rank * (self.rows + self.columns)
    }
}

/// The part of one model that is trained.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Parameters that are trained whole; `None` for all.
    whole: Option<BTreeSet<ParameterId>>,
    adapters: BTreeMap<LinearId, AdapterShape>,
}

impl ScopeSettings {
    /// Whether everything is trained.
    pub fn is_all(&self) -> bool {
        self.train_only.is_empty() && self.lora.is_none()
    }

    /// The part of a model; `sparsity` are its matrices whose zeros are held.
    ///
    /// # Errors
    /// [`ScopeError`] for a pattern that selects nothing, or what takes no adapter.
    pub fn of(&self, spec: &ModelSpec, sparsity: &Sparsity) -> Result<Scope, ScopeError> {
        if self.is_all() {
            return Ok(Scope::default());
        }
        let parameters: Vec<ParameterId> = spec.parameters().into_iter().map(|parameter| parameter.id).collect();
        let mut whole = BTreeSet::new();
        for pattern in &self.train_only {
            let selected: Vec<ParameterId> =
                parameters.iter().copied().filter(|id| matches_parameter(pattern, *id)).collect();
            if selected.is_empty() {
                return Err(nothing(spec, "train-only", pattern));
            }
            whole.extend(selected);
        }
        let Some(lora) = &self.lora else { return Ok(Scope { whole: Some(whole), adapters: BTreeMap::new() }) };
        if spec.is_classifier() {
            // Of a new classifier the head is random; PEFT saves the head of every classifier whole.
            let of_head = |id: &&ParameterId| matches!(id, ParameterId::Linear(linear, _) if matches!(linear.role.class(), Class::Head | Class::Exit));
            whole.extend(parameters.iter().filter(of_head));
        }
        let adapters = lora.adapters(spec, sparsity, &whole)?;
        Ok(Scope { whole: Some(whole), adapters })
    }
}

impl LoraSettings {
    /// Rank and factor are possible.
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn check(&self) -> Result<(), ScopeError> {
        if self.rank == 0 {
            return Err(ScopeError::NoRank);
        }
        match self.alpha.is_finite() && self.alpha > 0.0 {
            true => Ok(()),
            false => Err(ScopeError::Alpha { alpha: self.alpha }),
        }
    }

    fn adapters(
        &self,
        spec: &ModelSpec,
        sparsity: &Sparsity,
        whole: &BTreeSet<ParameterId>,
    ) -> Result<BTreeMap<LinearId, AdapterShape>, ScopeError> {
        self.check()?;
        let matrices = spec.matrices();
        let mut selected = BTreeSet::new();
        if self.targets.is_empty() {
            selected.extend(
                matrices.iter().map(|(id, ..)| *id).filter(|id| id.role.in_layer() && id.role.class() != Class::Exit),
            );
        }
        for pattern in &self.targets {
            let own: Vec<LinearId> = matrices.iter().map(|(id, ..)| *id).filter(|id| matches(pattern, *id)).collect();
            if own.is_empty() {
                return Err(nothing(spec, "lora-targets", pattern));
            }
            if let Some(id) = own.iter().find(|id| id.role.class() == Class::Embedding) {
                return Err(ScopeError::Table { pattern: pattern.clone(), id: *id });
            }
            selected.extend(own);
        }
        let mut adapters = BTreeMap::new();
        for (id, rows, columns) in matrices {
            if !selected.contains(&id) || whole.contains(&ParameterId::weight(id)) {
                continue;
            }
            if sparsity.contains_key(&id) {
                return Err(ScopeError::Sparse { id });
            }
            if self.rank >= rows.min(columns) {
                return Err(ScopeError::Rank { rank: self.rank, id, rows, columns });
            }
            let scale = (self.alpha / self.rank as f64) as f32;
            adapters.insert(id, AdapterShape { rows, columns, rank: self.rank, scale });
        }
        Ok(adapters)
    }
}

fn nothing(spec: &ModelSpec, option: &'static str, pattern: &str) -> ScopeError {
    let pattern = pattern.to_owned();
    if spec.tied_head() && matches(&pattern, LinearId::global(Role::LmHead)) {
        return ScopeError::TiedHead { option, pattern };
    }
    let whole = option == "train-only";
    let names: Vec<String> = match whole {
        true => spec.parameters().iter().map(|parameter| parameter.id.to_string()).collect(),
        false => spec.matrices().iter().map(|(id, ..)| id.to_string()).collect(),
    };
    let first = names.first().cloned().unwrap_or_default();
    let in_layer = names.iter().rev().find(|name| name.starts_with("layers.")).cloned().unwrap_or_default();
    let what = if whole { "parameter" } else { "matrix" };
    ScopeError::NoMatch { option, pattern, what, examples: format!("{first}, {in_layer} and others") }
}

impl Scope {
    /// Whether everything is trained.
    pub fn is_all(&self) -> bool {
        self.whole.is_none()
    }

    /// Whether a parameter itself is trained.
    pub fn trains(&self, id: ParameterId) -> bool {
        self.whole.as_ref().is_none_or(|whole| whole.contains(&id))
    }

    /// Parameters that are trained whole; `None` for all.
    pub fn whole(&self) -> Option<&BTreeSet<ParameterId>> {
        self.whole.as_ref()
    }

    /// The adapter of a matrix.
    pub fn adapter(&self, id: LinearId) -> Option<AdapterShape> {
        self.adapters.get(&id).copied()
    }

    /// Every adapter.
    pub fn adapters(&self) -> &BTreeMap<LinearId, AdapterShape> {
        &self.adapters
    }

    /// Whether the forward needs a gradient by a parameter: it is trained, or its adapter is.
    pub fn needs_gradient(&self, id: ParameterId) -> bool {
        let adapted = matches!(id, ParameterId::Linear(linear, Part::Weight) if self.adapters.contains_key(&linear));
        adapted || self.trains(id)
    }

    /// Values that are trained.
    pub fn trained_count(&self, spec: &ModelSpec) -> u64 {
        let Some(whole) = &self.whole else { return spec.parameter_count() };
        let parameters = spec.parameters();
        let of_whole = parameters.iter().filter(|parameter| whole.contains(&parameter.id));
        let of_whole: usize = of_whole.map(|parameter| parameter.shape.iter().product::<usize>()).sum();
        (of_whole + self.adapters.values().map(AdapterShape::count).sum::<usize>()) as u64
    }

    /// Weights that adapters change.
    pub fn adapted_count(&self) -> u64 {
        self.adapters.values().map(|shape| (shape.rows * shape.columns) as u64).sum()
    }
}
