//! The coder and op 3: what is coded comes back, whatever the bits, the tensors and the changes are.

use super::*;
use crate::update::coder::{BitCoder, Decoder, Encoder};
use crate::update::contexts::Contexts;
use crate::update::delta::code_leaf;
use crate::update::geometry::Geometry;
use crate::update::surroundings::Surroundings;
use proptest::collection::vec as list;
use proptest::prelude::*;

fn decoder(bytes: &[u8]) -> Decoder<impl FnMut() -> u8 + '_> {
    let mut rest = bytes.iter();
    Decoder::new(move || rest.next().copied().unwrap_or(0))
}

proptest! {
    #[test]
    fn bits_come_back(bits in list((0usize..40, any::<bool>(), 0u8..20), 0..3000), priors in list(any::<[u8; 2]>(), 40)) {
        // Most bits of most contexts are 0, as of differences.
        let bits: Vec<(usize, bool, bool)> =
            bits.into_iter().map(|(index, bit, rare)| (index, bit && rare == 0, index < 3)).collect();
        let mut start = Contexts::EVEN;
        start[..40].copy_from_slice(&priors);
        let (mut out, mut probabilities) = (Vec::new(), start);
        let mut encoder = Encoder::new(|byte| out.push(byte));
        let mut contexts = Contexts::new(&mut probabilities);
        for &(index, bit, even) in &bits {
            if even { encoder.even_bit(bit) } else { encoder.bit(&mut contexts, index, bit) };
        }
        encoder.finish();
        let used = out.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let mut decoder = decoder(&out[..used]);
        let mut probabilities = start;
        let mut contexts = Contexts::new(&mut probabilities);
        for &(index, bit, even) in &bits {
            // The decoder is told the wrong bit, and must not listen.
            let found = if even { decoder.even_bit(!bit) } else { decoder.bit(&mut contexts, index, !bit) };
            prop_assert_eq!(found, bit);
        }
    }

    #[test]
    fn leaves_come_back(layout in 0usize..7, seed in any::<u64>(), changed in 0u64..100, far in any::<bool>()) {
        let layout = Layout::ALL[layout];
        let mut draws = Draws::new(seed);
        let old = sections(layout, seed, 0);
        let mut new = sections(layout, seed, 0);
        for (_, content) in &mut new {
            for byte in content.iter_mut() {
                if draws.below(100) < changed {
                    *byte = if far { draws.number() as u8 } else { byte.wrapping_add(draws.below(5) as u8).wrapping_sub(2) };
                }
            }
        }
        // The table stays: its numbers are what op 3 goes by.
        new[1].1.clone_from(&old[1].1);
        let (old, new) = (artifact(layout, &old, 0), artifact(layout, &new, 0));
        let base = Geometry::read(old.first_chunk().expect("a page"), None).expect("sound");
        let geometry = Geometry::read(new.first_chunk().expect("a page"), None).expect("sound");
        for index in geometry.order() {
            let (leaf, from) = (geometry.leaf(index).expect("a leaf"), base.leaf(index).expect("a leaf"));
            let content = &new[leaf.offset as usize..][..leaf.bytes as usize];
            let (mut coded, mut probabilities) = (Vec::new(), Contexts::EVEN);
            let mut pair = packer::Pair(&old, &new);
            let mut around = Surroundings::new(&mut pair, Slot::A, (&geometry, &leaf), (&base, &from));
            let mut encoder = Encoder::new(|byte| coded.push(byte));
            let mut kept = content.to_vec();
            code_leaf(&mut encoder, &mut Contexts::new(&mut probabilities), &mut kept, &mut around);
            encoder.finish();
            prop_assert_eq!(&kept, content, "the encoder leaves the leaf as it is");
            // A decoder sees what is written of the new artifact: the small sections, and of the weights later leaves.
            let mut partial = new.clone();
            partial[leaf.offset as usize..][..leaf.bytes as usize].fill(0);
            let mut pair = packer::Pair(&old, &partial);
            let mut around = Surroundings::new(&mut pair, Slot::A, (&geometry, &leaf), (&base, &from));
            let (mut made, mut probabilities) = (vec![0; content.len()], Contexts::EVEN);
            code_leaf(&mut decoder(&coded), &mut Contexts::new(&mut probabilities), &mut made, &mut around);
            prop_assert_eq!(&made, content, "leaf {}", index);
            prop_assert!(!around.failed());
        }
    }
}

#[test]
fn an_unchanged_leaf_takes_a_few_bytes() {
    let layout = Layout::R8K4;
    let (old, new) = (artifact(layout, &sections(layout, 9, 0), 0), artifact(layout, &sections(layout, 9, 1), 0));
    let size = |old: &[u8], new: &[u8]| packer::package(old, new, |_| crate::update::package::Op::Delta).len();
    let head = 64 + Contexts::BYTES + HEADER_BYTES + 32 * 24;
    let (same, changed) = (size(&old, &old), size(&old, &new));
    assert!(same < head + 24 * 64, "{same}");
    assert!(changed > same + 1000 && changed < new.len(), "{changed} of {}", new.len());
}
