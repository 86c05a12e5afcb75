//! The seals of a log: what they vouch for, and how much comes after the last of them.

use super::chain::{Broken, Chain};
use super::keys::SealKeys;
use serde::Serialize;
use slm_runtime::audit::Kind;

/// What seals vouch for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seals {
    /// Seals that there are.
    pub seals: usize,
    /// Seals that a given key holds: all of them, or none where no key was given.
    pub checked: usize,
    /// Records up to the last seal that was checked, itself included.
    pub sealed_records: usize,
    /// Records after it, which whoever holds the file can write anew.
    pub unsealed_records: usize,
}

/// Checks the seals of a log, where keys are given.
///
/// # Errors
/// The first seal that does not hold.
pub fn check(chain: &Chain<'_>, keys: &mut SealKeys) -> Result<Seals, Broken> {
    let mut found = Seals::default();
    for (index, record) in chain.iter().enumerate().filter(|(_, record)| record.kind == Kind::Seal as u8) {
        found.seals += 1;
        if !keys.is_empty() {
            keys.check(&record).map_err(|fault| Broken { record: record.sequence, fault })?;
            found.checked += 1;
            found.sealed_records = index + 1;
        }
    }
    found.unsealed_records = chain.len() - found.sealed_records;
    Ok(found)
}
