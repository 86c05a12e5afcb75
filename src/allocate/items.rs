//! Items, the units that bits are allocated to. An item is a matrix, or the matrices that read one input and that a runtime may
//! therefore compute as one (query, key and value; gate and up): they share a scheme. A tied token table and head are one matrix
//! already. Bytes are those of [`stored_tensors`], the one function that counts them.

use super::error::AllocationError;
use crate::model::graph::Graph;
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::pattern::matches;
use crate::model::scheme::{Assignment, Preset, QuantScheme, SPLIT_ROWS};
use crate::model::size::{SizeError, StoredTensor, stored_tensors};
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::quantize::policy::{Keep, assign};
use slm_runtime::layout::Layout;
use std::collections::BTreeMap;

/// One way of storing an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// Scheme of all its matrices.
    pub scheme: QuantScheme,
    /// Bytes of all its matrices together, in the target's layout.
    pub bytes: u64,
    /// Picoseconds of a token with all of them on the target; 0 where the time is not bounded.
    pub time: u64,
}

/// Matrices that share a scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The matrix, or `layers.3.attn.{q,k,v}`.
    pub name: String,
    /// In forward order.
    pub members: Vec<LinearId>,
    /// Largest first; one alone where --keep pins it or no other scheme takes its rows.
    pub codings: Vec<Coding>,
}

/// Items of a model, and the bytes of everything else: norms, biases, kernels, key maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items {
    /// In forward order.
    pub items: Vec<Item>,
    /// Bytes of everything else.
    pub fixed_bytes: u64,
    /// Picoseconds of a token with everything else.
    pub fixed_time: u64,
}

/// What is counted of a tensor.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    bytes: u64,
    time: u64,
}

impl Counted {
    fn add(&mut self, other: Counted) {
        self.bytes += other.bytes;
        self.time += other.time;
    }
}

/// The schemes that a matrix may have, largest first. One whose rows are tokens may have its first rows in 8 bits, in steps of an
/// eighth of the vocabulary.
fn schemes(id: LinearId, [rows, columns]: [usize; 2], sparsity: &Sparsity) -> Vec<QuantScheme> {
    if columns > QuantScheme::W4G32.max_columns() {
        return vec![QuantScheme::W8];
    }
    let tile = SPLIT_ROWS as usize;
    let step = tile * (rows as f64 / (8 * tile) as f64).round().max(1.0) as usize;
    let whole = sparsity.get(&id).is_some_and(|pattern| pattern.is_two_of_four());
    let splits = (step..rows).step_by(step).map(|rows| QuantScheme::Split { wide_rows: rows as u32 });
    let splits: Vec<QuantScheme> = splits.filter(|split| !whole && split.check(id, rows).is_ok()).collect();
    [QuantScheme::W8].into_iter().chain(splits.into_iter().rev()).chain([QuantScheme::W4G32]).collect()
}

/// `layers.3.attn.{q,k,v}` of several, the name of one.
fn name(members: &[LinearId]) -> String {
    match members {
        [one] => one.to_string(),
        _ => {
            let first = members.first().map(ToString::to_string).unwrap_or_default();
            let stem = first.rsplit_once('.').map_or("", |(stem, _)| stem).to_owned();
            let last = |id: &LinearId| id.role.name().rsplit_once('.').map_or("", |(_, last)| last);
            format!("{stem}.{{{}}}", members.iter().map(last).collect::<Vec<_>>().join(","))
        }
    }
}

impl Items {
    /// The items of a model. `keeps` pin the matrices they match; everything else may have every scheme its columns allow.
    /// `time` gives the picoseconds of a token with a tensor.
    ///
    /// # Errors
    /// [`AllocationError::Policy`], [`AllocationError::Size`] and [`AllocationError::Split`].
    pub fn of(
        spec: &ModelSpec,
        keeps: &[Keep],
        sparsity: &Sparsity,
        layout: Layout,
        time: &dyn Fn(&StoredTensor) -> u64,
    ) -> Result<Self, AllocationError> {
        // Patterns that match nothing and tied tensors with two schemes are refused as they are for presets.
        let pinned = assign(spec, Preset::W8, keeps)?;
        let head = LinearId::global(Role::LmHead);
        let is_pinned = |id: LinearId| {
            let other = (spec.tied_head() && id.role == Role::TokenEmbedding).then_some(head);
            keeps.iter().any(|keep| matches(&keep.pattern, id) || other.is_some_and(|id| matches(&keep.pattern, id)))
        };
        let shapes = spec.matrices();
        let candidates: BTreeMap<LinearId, Vec<QuantScheme>> = shapes
            .iter()
            .map(|&(id, rows, columns)| match is_pinned(id) {
                true => (id, vec![pinned[&id]]),
                false => (id, schemes(id, [rows, columns], sparsity)),
            })
            .collect();
        let mut counts: BTreeMap<(LinearId, QuantScheme), Counted> = BTreeMap::new();
        let mut fixed = Counted::default();
        for number in 0..candidates.values().map(Vec::len).max().unwrap_or(0) {
            // Every matrix in its scheme of this number, counted at once; those that have fewer are there already.
            let taken = candidates.iter().map(|(id, schemes)| (*id, schemes[number.min(schemes.len() - 1)]));
            let everywhere: Assignment = taken.collect();
            let tensors = stored_tensors(spec, &everywhere, sparsity, layout, spec.context, true)?;
            fixed = Counted::default();
            let mut counted: BTreeMap<(LinearId, QuantScheme), Counted> = BTreeMap::new();
            for tensor in tensors {
                let own = Counted { bytes: tensor.bytes, time: time(&tensor) };
                match tensor.id {
                    // The parts of a split add up.
                    ParameterId::Linear(id, Part::Weight) => {
                        counted.entry((id, everywhere[&id])).or_default().add(own);
                    }
                    _ => fixed.add(own),
                }
            }
            counts.extend(counted);
        }
        let item = |members: Vec<LinearId>| {
            let name = name(&members);
            let mut pins = members.iter().filter(|id| is_pinned(**id)).map(|id| (*id, pinned[id]));
            let pin = pins.next();
            if let Some((first, first_scheme)) = pin
                && let Some((second, second_scheme)) = pins.find(|(_, scheme)| *scheme != first_scheme)
            {
                return Err(AllocationError::Split { item: name, first, first_scheme, second, second_scheme });
            }
            let of_all = |scheme| {
                let counts: Option<Vec<Counted>> =
                    members.iter().map(|id| counts.get(&(*id, scheme)).copied()).collect();
                let mut sum = Counted::default();
                counts?.into_iter().for_each(|count| sum.add(count));
                Some(sum)
            };
            let allowed = match pin {
                Some((_, pin)) => &[pin][..],
                None => &candidates[&members[0]],
            };
            let coding = |scheme: &QuantScheme| {
                let Counted { bytes, time } = of_all(*scheme)?;
                Some(Coding { scheme: *scheme, bytes, time })
            };
            let codings: Vec<Coding> = allowed.iter().filter_map(coding).collect();
            if codings.is_empty() {
                return Err(SizeError::NoScheme(members[0]).into());
            }
            Ok(Item { name, members, codings })
        };
        let items = Graph::new(spec).groups().into_iter().map(item).collect::<Result<Vec<_>, _>>()?;
        Ok(Items { items, fixed_bytes: fixed.bytes, fixed_time: fixed.time })
    }

    /// Fewest bytes of any allocation.
    pub fn smallest_bytes(&self) -> u64 {
        let least = |item: &Item| item.codings.iter().map(|coding| coding.bytes).min().unwrap_or(0);
        self.fixed_bytes + self.items.iter().map(least).sum::<u64>()
    }

    /// Least time of a token of any allocation, in picoseconds.
    pub fn least_time(&self) -> u64 {
        let least = |item: &Item| item.codings.iter().map(|coding| coding.time).min().unwrap_or(0);
        self.fixed_time + self.items.iter().map(least).sum::<u64>()
    }

    /// Time of a token with a selection of codings, in picoseconds.
    pub fn time(&self, selection: &[usize]) -> u64 {
        let taken = self.items.iter().zip(selection);
        self.fixed_time + taken.map(|(item, &coding)| item.codings[coding].time).sum::<u64>()
    }

    /// The coding of every item that takes least of something.
    pub fn least(&self, of: impl Fn(&Coding) -> u64) -> Vec<usize> {
        let least = |item: &Item| {
            let codings = item.codings.iter().enumerate();
            codings.min_by_key(|(_, coding)| of(coding)).map_or(0, |(number, _)| number)
        };
        self.items.iter().map(least).collect()
    }

    /// Bytes of a selection of codings.
    pub fn bytes(&self, selection: &[usize]) -> u64 {
        let taken = self.items.iter().zip(selection);
        self.fixed_bytes + taken.map(|(item, &coding)| item.codings[coding].bytes).sum::<u64>()
    }

    /// The scheme of every matrix under a selection of codings.
    pub fn assignment(&self, selection: &[usize]) -> Assignment {
        let of_item = |(item, &coding): (&Item, &usize)| {
            let scheme = item.codings[coding].scheme;
            item.members.iter().map(move |id| (*id, scheme)).collect::<Vec<_>>()
        };
        self.items.iter().zip(selection).flat_map(of_item).collect()
    }
}
