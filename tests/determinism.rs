//! The same inputs give the same bytes and the same bits: two builds, any number of threads, every layout, every way to
//! cut a prompt into chunks.

use crate::fixture::{Family, Size, compiled, quantized};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;
use slm_runtime::session::Session;
use slmc::compile::fit::Device;
use slmc::compile::host::{SessionMemory, kernels};
use slmc::model::scheme::Preset;

/// Bits of the logits of all positions, the tokens given in pieces.
fn logits(artifact: &[u8], tokens: &[u32], piece: usize) -> Vec<u32> {
    let view = ArtifactView::open(artifact).expect("it is sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, kernels(), memory.as_mut_slice()).expect("the memory is the planned one");
    let mut bits = Vec::new();
    for piece in tokens.chunks(piece) {
        let mut keep = |_: usize, row: &[f32]| bits.extend(row.iter().map(|value| value.to_bits()));
        session.run(piece, &mut keep).expect("the tokens run");
    }
    bits
}

fn tokens(vocabulary: usize, count: usize) -> Vec<u32> {
    (0..count as u64).map(|n| (slm_runtime::sample::random_u64(7, n) % vocabulary as u64) as u32).collect()
}

#[test]
fn layouts_and_chunks_do_not_change_a_bit() {
    let mut wrong = Vec::new();
    for family in Family::ALL {
        for preset in Preset::ALL {
            let model = quantized(family, Size::SMALL, preset);
            let tokens = tokens(model.spec.vocabulary, Size::SMALL.context);
            // A decoder's prompt comes in pieces; an encoder sees its sequence whole.
            let pieces = if family.decoder() { &[1, 7, 64, 96][..] } else { &[96] };
            let expected =
                logits(&compiled(&model, &Device::unlimited("test", Layout::ALL[0]), None).bytes, &tokens, 96);
            assert!(expected.iter().any(|bits| *bits != expected[0]), "{}: all logits are equal", family.name());
            for layout in Layout::ALL {
                let bytes = compiled(&model, &Device::unlimited("test", layout), None).bytes;
                for &piece in pieces {
                    if logits(&bytes, &tokens, piece) != expected {
                        wrong.push(format!("{} {} {} pieces of {piece}", family.name(), preset.name(), layout.name()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

/// With less RAM the plan pushes fewer tokens through a layer together, which must not be seen in the results.
#[test]
fn the_planned_chunk_does_not_change_a_bit() {
    for family in Family::ALL {
        let model = quantized(family, Size::SMALL, Preset::Mixed);
        let tokens = tokens(model.spec.vocabulary, Size::SMALL.context);
        let roomy = Device::unlimited("test", Layout::R4K4);
        let whole = compiled(&model, &roomy, None);
        let expected = logits(&whole.bytes, &tokens, 96);
        let mut seen = vec![whole.footprint.chunk];
        let mut ram = whole.footprint.ram_bytes();
        // One byte less than the last plan took halves the chunk, down to one token.
        while *seen.last().expect("it has one") > 1 {
            let tight = compiled(&model, &Device { ram_bytes: Some(ram - 1), ..roomy.clone() }, None);
            let chunk = tight.footprint.chunk;
            assert!(tight.footprint.ram_bytes() < ram, "{}: the plan is above the limit", family.name());
            assert_eq!(chunk * 2, *seen.last().expect("it has one"), "{}: {seen:?}", family.name());
            assert!(logits(&tight.bytes, &tokens, 96) == expected, "{}: chunks of {chunk} differ", family.name());
            ram = tight.footprint.ram_bytes();
            seen.push(chunk);
        }
        assert_eq!(seen, [64, 32, 16, 8, 4, 2, 1], "{}", family.name());
    }
}

#[test]
fn two_builds_give_identical_bytes() {
    for family in Family::ALL {
        let device = Device::unlimited("test", Layout::R8K8);
        let build = || compiled(&quantized(family, Size::SMALL, Preset::Mixed), &device, None).bytes;
        // One build on the test's thread pool, one on a single thread.
        let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
        let (first, second) = (build(), single.install(build));
        assert!(first == second, "{}: two builds differ", family.name());
    }
}
