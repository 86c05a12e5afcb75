//! Results that a lock names, found again in the caches: by the stage's key, which a released version shares with every
//! machine of its class; of other builds by what their keys would be, on this machine alone.

use super::key;
use super::lock::Released;
use crate::progress::Progress;
use crate::store::{Chain, Entry, Found, digest_of};
use serde_json::Value;

/// The entry of a result; `None` where no cache has it.
pub(super) fn entry(chain: &Chain, released: &Released, progress: &dyn Progress) -> Option<Entry> {
    found(chain, released, progress).map(|found| found.entry)
}

fn found(chain: &Chain, released: &Released, progress: &dyn Progress) -> Option<Found> {
    if let Some(found) = chain.find_any(&released.key, progress)
        && found.entry.output() == released.output
    {
        return Some(found);
    }
    // A build that is not a release has keys of its own; what they would be of a release is in the lock.
    let listed = chain.local()?.list().ok()?;
    let same = |key: &Value| digest_of(&key::released(key)) == released.key;
    let mut found = listed
        .iter()
        .filter(|listed| same(&listed.about.key))
        .filter_map(|listed| chain.find_any(&listed.key, progress));
    found.find(|found| found.entry.output() == released.output)
}
