//! The hash tree of RFC 6962: a leaf is SHA-256(0 ‖ bytes), a node SHA-256(1 ‖ left ‖ right), split at the largest power of
//! two below the number of leaves. The root over tensors' digests (`weights_root`) and over the chunk list (`chunks_root`).

use crate::sha256::{Digest, Engine};

/// Nodes of a path of a tree over as many leaves as a file can have, and one more.
const MAX_HEIGHT: usize = 41;

/// The digest of a leaf.
pub fn leaf_digest(engine: &(impl Engine + ?Sized), bytes: &[u8]) -> Digest {
    engine.digest(&[&[0], bytes])
}

/// Joins the last two of `height` nodes, and gives how many there are then.
#[inline(never)]
fn join(pending: &mut [Digest; MAX_HEIGHT], height: usize, engine: &(impl Engine + ?Sized)) -> usize {
    let [.., left, right] = &mut pending[..height] else { return height };
    *left = engine.digest(&[&[1], left, right]);
    height - 1
}

/// The root over digests of leaves, in the memory of one path; 32 zeros where there are none.
pub fn root(leaves: impl Iterator<Item = Digest>, engine: &(impl Engine + ?Sized)) -> Digest {
    // One pending node per set bit of the count, as in binary addition: complete subtrees from the left, so that what remains
    // is joined from the right, and a level's last node without a sibling moves up unchanged.
    let mut pending: [Digest; MAX_HEIGHT] = [[0; 32]; MAX_HEIGHT];
    let (mut count, mut height) = (0u64, 0);
    for leaf in leaves {
        // There are fewer leaves than a path of this length has.
        let Some(place) = pending.get_mut(height) else { return [0; 32] };
        *place = leaf;
        height += 1;
        for _ in 0..count.trailing_ones() {
            height = join(&mut pending, height, engine);
        }
        count += 1;
    }
    while height > 1 {
        height = join(&mut pending, height, engine);
    }
    // Zeros where there are none.
    pending[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256::Software;
    use std::vec::Vec;

    /// RFC 6962, 2.1, word by word.
    fn recursive(leaves: &[Digest]) -> Digest {
        match leaves.len() {
            0 => [0; 32],
            1 => leaves[0],
            n => {
                let (left, right) = leaves.split_at(n.next_power_of_two() / 2);
                Software.digest(&[&[1], &recursive(left), &recursive(right)])
            }
        }
    }

    #[test]
    fn any_number_of_leaves_gives_the_root_of_the_rfc() {
        let leaves: Vec<Digest> = (0..130u8).map(|n| leaf_digest(&Software, &[n; 5])).collect();
        for count in 0..=leaves.len() {
            assert_eq!(root(leaves[..count].iter().copied(), &Software), recursive(&leaves[..count]), "{count}");
        }
    }

    /// The tree of certificate-transparency-go's tests: leaves "", 00, 10, 2021, 3031, 40414243, 5051525354555657 and
    /// 606162636465666768696a6b6c6d6e6f.
    #[test]
    fn known_root() {
        let bytes: Vec<u8> = (0x60..=0x6f).collect();
        let leaves: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &bytes,
        ];
        let found = root(leaves.iter().map(|leaf| leaf_digest(&Software, leaf)), &Software);
        assert_eq!(found[..4], [0x5d, 0xc9, 0xda, 0x79]);
        assert_eq!(found[28..], [0xf4, 0x60, 0x43, 0x28]);
    }
}
