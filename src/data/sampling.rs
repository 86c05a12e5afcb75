//! The held-out split, and how often each text is written: chosen by hashes of content and seed, so that the choice depends
//! neither on threads nor on the order of files.
//!
//! ```text
//! split     clusters in the order of the hash of their first text, until the share of texts is held out; whole clusters
//! copies    weight w of a group of n texts: ⌊w⌋ of each, and one more of the ⌊n · (w − ⌊w⌋) + ½⌋ texts whose hash is least
//! balance   weight = texts of the rarest value / texts of the value
//! ```

use slm_runtime::sample::random_u64;
use std::collections::BTreeMap;

/// A purpose of random numbers, so that one choice does not follow from another.
const SPLIT: u64 = 1;
const COPIES: u64 = 2;

/// A text as far as choices look at it.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// 64 bits of its content.
    pub content: u64,
    /// Place of the first text of its cluster.
    pub cluster: u32,
    /// The texts among which weights choose: those of one file and one value.
    pub group: u32,
}

fn draw(seed: u64, purpose: u64, content: u64) -> u64 {
    random_u64(random_u64(seed, purpose), content)
}

/// Whether each text is held out.
pub fn held_out(texts: &[Chosen], share: f64, seed: u64) -> Vec<bool> {
    let mut clusters: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
    for text in texts {
        clusters.entry(text.cluster).or_insert((text.content, 0)).1 += 1;
    }
    let mut order: Vec<(u64, u32, usize)> =
        clusters.into_iter().map(|(first, (content, size))| (draw(seed, SPLIT, content), first, size)).collect();
    order.sort_unstable();
    let wanted = (share * texts.len() as f64).round().max(if share > 0.0 { 1.0 } else { 0.0 }) as usize;
    let (mut held, mut count) = (std::collections::BTreeSet::new(), 0);
    for (_, first, size) in order {
        if count >= wanted {
            break;
        }
        // A cluster that is far too large for what is left goes to the other side.
        if count + size <= wanted + wanted / 10 + 1 {
            held.insert(first);
            count += size;
        }
    }
    texts.iter().map(|text| held.contains(&text.cluster)).collect()
}

/// How often each text is written, where its group has this weight.
pub fn copies(texts: &[Chosen], weights: &BTreeMap<u32, f64>, seed: u64) -> Vec<u32> {
    let mut groups: BTreeMap<u32, Vec<(u64, usize)>> = BTreeMap::new();
    for (place, text) in texts.iter().enumerate() {
        groups.entry(text.group).or_default().push((draw(seed, COPIES, text.content), place));
    }
    let mut copies = vec![0; texts.len()];
    for (group, mut members) in groups {
        let weight = weights.get(&group).copied().unwrap_or(1.0);
        let more = (members.len() as f64 * weight.fract() + 0.5).floor() as usize;
        members.sort_unstable();
        for (rank, (_, place)) in members.into_iter().enumerate() {
            copies[place] = weight.floor() as u32 + u32::from(rank < more);
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(count: usize) -> Vec<Chosen> {
        let text = |place: usize| Chosen {
            content: random_u64(7, place as u64),
            cluster: (place - place % 3) as u32,
            group: (place % 2) as u32,
        };
        (0..count).map(text).collect()
    }

    #[test]
    fn clusters_go_to_one_side_whole() {
        let texts = texts(300);
        let held = held_out(&texts, 0.1, 0);
        for cluster in held.chunks(3) {
            assert!(cluster.iter().all(|side| *side == cluster[0]));
        }
        assert_eq!(held.iter().filter(|side| **side).count(), 30);
        assert_ne!(held, held_out(&texts, 0.1, 1));
        assert!(held_out(&texts, 0.0, 0).iter().all(|side| !side));
        assert_eq!(held_out(&texts[..3], 0.01, 0), [false; 3], "its only cluster would leave nothing");
        // The same texts in another order are on the same sides.
        let mut turned: Vec<Chosen> = texts.clone();
        turned.reverse();
        let mut sides = held_out(&turned, 0.1, 0);
        sides.reverse();
        let contents = |held: &[bool]| held.iter().filter(|side| **side).count();
        assert_eq!(contents(&sides), contents(&held));
    }

    #[test]
    fn weights_are_met_exactly() {
        let texts = texts(301);
        let weights = BTreeMap::from([(0, 2.25), (1, 0.4)]);
        let copies = copies(&texts, &weights, 3);
        let of = |group: u32| -> u32 { (0..301).filter(|n| texts[*n].group == group).map(|n| copies[n]).sum() };
        assert_eq!((of(0), of(1)), (2 * 151 + 38, 60));
        assert!(copies.iter().all(|copies| *copies <= 3));
    }
}
