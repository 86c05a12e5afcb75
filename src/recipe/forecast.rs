//! How long stages will take: their work in multiply-accumulates over a rate. The rate is that of the last stage of the kind
//! that ran on this machine, noted beside its cache; before there is one, a share of what a product of matrices reaches here,
//! measured when it is asked for. Either way it is an estimate, and says where it comes from.

use crate::machine::product_rate;
use crate::stages::Prediction;
use crate::store::FileStore;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The note, and its schema.
const NOTE: &str = "rates.json";
const SCHEMA: &str = "slmc.rates/1";
/// Part of the rate of products that whole stages reach, by the name of their rate: measured on the quickstart and on a
/// checkpoint of 135 M parameters. What only moves weights waits for files.
const SHARES: [(&str, f64); 7] = [
    ("train", 0.4),
    ("distill", 0.4),
    ("prune: recovered", 0.4),
    ("quantize: gptq, tuned", 0.4),
    ("quantize: rtn", 0.07),
    ("compile", 0.06),
    ("eval", 0.6),
];
/// That of others.
const SHARE: f64 = 0.3;
/// Shorter stages say nothing of a rate.
const LEAST_SECONDS: f64 = 0.05;

/// Where an estimate of time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The last stage of the kind on this machine.
    EarlierStage,
    /// A product of matrices, measured just now.
    Product,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    schema: String,
    /// Multiply-accumulates per second by kind of stage, and the way of its work where that has several.
    kinds: BTreeMap<String, f64>,
}

/// The rates of this machine.
#[derive(Debug)]
pub(super) struct Rates {
    noted: Noted,
    store: Option<FileStore>,
    product: Option<f64>,
}

impl Rates {
    /// Those that are noted beside a store.
    pub(super) fn noted(store: Option<&FileStore>) -> Self {
        let read = store.and_then(|store| store.read_note("", NOTE));
        let noted: Option<Noted> = read.and_then(|text| serde_json::from_slice(&text).ok());
        let noted = noted.filter(|noted| noted.schema == SCHEMA).unwrap_or_default();
        Rates { noted, store: store.cloned(), product: None }
    }

    /// Seconds that a stage will take.
    pub(super) fn seconds(&mut self, kind: &str, predicted: &Prediction) -> Option<(f64, Basis)> {
        let work = predicted.work_macs? as f64;
        if let Some(rate) = self.noted.kinds.get(&named(kind, predicted)).filter(|rate| **rate > 0.0) {
            return Some((work / rate, Basis::EarlierStage));
        }
        let rate = *self.product.get_or_insert_with(product_rate);
        let name = named(kind, predicted);
        let share = SHARES.into_iter().find(|(of, _)| *of == name).map_or(SHARE, |(_, share)| share);
        Some((work / (share * rate), Basis::Product))
    }

    /// Notes what a stage took; a note that cannot be written costs nothing but a worse estimate.
    pub(super) fn learn(&mut self, kind: &str, predicted: &Prediction, seconds: f64) {
        let Some(work) = predicted.work_macs.filter(|work| *work > 0 && seconds >= LEAST_SECONDS) else { return };
        SCHEMA.clone_into(&mut self.noted.schema);
        self.noted.kinds.insert(named(kind, predicted), work as f64 / seconds);
        if let (Some(store), Ok(text)) = (&self.store, serde_json::to_vec(&self.noted)) {
            drop(store.write_note("", NOTE, &text));
        }
    }
}

/// The name of a rate: `train`, or `quantize: rtn`.
fn named(kind: &str, predicted: &Prediction) -> String {
    predicted.way.map_or_else(|| kind.to_owned(), |way| format!("{kind}: {way}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_ran_is_its_own_measure() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = FileStore::new(directory.path().to_owned());
        let predicted = Prediction { work_macs: Some(1_000_000), ..Prediction::default() };
        let mut rates = Rates::noted(Some(&store));
        let (seconds, basis) = rates.seconds("train", &predicted).expect("an estimate");
        assert!(seconds > 0.0 && seconds < 1.0 && basis == Basis::Product, "{seconds}");
        rates.learn("train", &predicted, 0.01);
        rates.learn("train", &predicted, 4.0);
        let mut rates = Rates::noted(Some(&store));
        let twice = Prediction { work_macs: Some(2_000_000), ..Prediction::default() };
        assert_eq!(rates.seconds("train", &twice), Some((8.0, Basis::EarlierStage)));
        assert_eq!(rates.seconds("eval", &Prediction::default()), None);
        // Another way of the same kind has a rate of its own.
        let other = Prediction { way: Some("rtn"), ..twice.clone() };
        assert_eq!(rates.seconds("train", &other).map(|(_, basis)| basis), Some(Basis::Product));
        store.write_note("", NOTE, b"{\"schema\":\"another\",\"kinds\":{\"train\":1}}").expect("written");
        assert_eq!(Rates::noted(Some(&store)).seconds("train", &twice).map(|(_, basis)| basis), Some(Basis::Product));
    }
}
