//! The length of an artifact, the artifact, and an update package for it: refused, or a slot whose leaves are those of the
//! package's chunk list, and then the package can be inspected too. The slot cannot grow beyond what inputs of this length may
//! make.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::{ChunkList, Leaves};
use slm_runtime::format::header::Header;
use slm_runtime::format::tree::leaf_digest;
use slm_runtime::sha256::Software;
use slm_runtime::update::package::Head;
use slmc::update::apply::updated;
use slmc::update::inspect::summary;

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk() else { return };
    let Some((old, package)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { return };
    let inspected = summary(package);
    let Ok(base) = ArtifactView::open(old) else { return };
    let Ok(new) = updated(&base, package) else { return };
    let inspected = inspected.expect("what is applied can be inspected");
    assert_eq!(inspected.device_bytes, new.len() as u64);
    let head = Head::from_bytes(package);
    let list = ChunkList::new(&package[head.list_start() as usize..head.records_start() as usize]);
    for (leaf, digest) in Leaves::of(&new, &Header::from_bytes(&new)).iter().zip(list.iter()) {
        assert_eq!(leaf_digest(&Software, &new[leaf.offset as usize..][..leaf.bytes as usize]), digest);
    }
});
