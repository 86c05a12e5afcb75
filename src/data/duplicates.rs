//! Clusters of near duplicates, from signatures alone. Texts that agree in a band are compared by their signatures; those at
//! least as alike as asked for are joined, and with them whatever each is joined with. One band is sorted at a time: 16 bytes
//! a text beside its signature. A bucket whose texts are all unlike each other is compared with its first
//! `REPRESENTATIVES` kinds only, which bounds the work on boilerplate.

use super::minhash::{BANDS, Signature, band, similarity};
use rayon::prelude::*;

/// Kinds of texts in a bucket that others are compared with.
const REPRESENTATIVES: usize = 64;

/// The first text of every text's cluster, by place.
pub fn clusters(signatures: &[Signature], threshold: f64) -> Vec<u32> {
    let mut sets = Sets((0..signatures.len() as u32).collect());
    for number in 0..BANDS {
        let mut buckets: Vec<(u64, u32)> = signatures
            .par_iter()
            .enumerate()
            .map(|(place, signature)| (band(signature, number), place as u32))
            .collect();
        buckets.par_sort_unstable();
        for bucket in buckets.chunk_by(|a, b| a.0 == b.0).filter(|bucket| bucket.len() > 1) {
            join(bucket, signatures, threshold, &mut sets);
        }
    }
    (0..signatures.len() as u32).map(|place| sets.first(place)).collect()
}

fn join(bucket: &[(u64, u32)], signatures: &[Signature], threshold: f64, sets: &mut Sets) {
    let mut representatives: Vec<u32> = Vec::new();
    for &(_, place) in bucket {
        let alike = |other: &&u32| similarity(&signatures[**other as usize], &signatures[place as usize]) >= threshold;
        match representatives.iter().find(alike) {
            Some(&other) => sets.join(other, place),
            None if representatives.len() < REPRESENTATIVES => representatives.push(place),
            None => {}
        }
    }
}

/// Disjoint sets, each known by its least place.
struct Sets(Vec<u32>);

impl Sets {
    fn first(&mut self, place: u32) -> u32 {
        let mut place = place;
        while self.0[place as usize] != place {
            // Halving the way keeps it short.
            self.0[place as usize] = self.0[self.0[place as usize] as usize];
            place = self.0[place as usize];
        }
        place
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.first(a), self.first(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::super::minhash::{shingles, signature};
    use super::*;

    #[test]
    fn alike_texts_are_joined_with_all_they_are_joined_with() {
        let words: Vec<String> = (0..200).map(|n| format!("w{n}")).collect();
        let text = |from: usize, to: usize| words[from..to].join(" ");
        let other: String = (300..500).map(|n| format!("w{n} ")).collect();
        // Each of the first three is a little shifted from the one before; the last is a copy of the second to the letter.
        let texts = [text(0, 160), other.clone(), text(8, 168), text(16, 176), format!("{other}!")];
        let signatures: Vec<_> = texts.iter().map(|text| signature(&shingles(text))).collect();
        assert_eq!(clusters(&signatures, 0.8), [0, 1, 0, 0, 1]);
        assert_eq!(clusters(&signatures, 1.0), [0, 1, 2, 3, 1]);
        assert_eq!(clusters(&[], 0.8), Vec::<u32>::new());
    }
}
