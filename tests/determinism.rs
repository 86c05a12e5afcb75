//! The same inputs give the same bytes and the same bits: two builds, any number of threads, every layout, every way to
//! cut a prompt into chunks.

use crate::fixture::{Family, Size, compiled, quantized, with_tokens};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::kernels::pool::Pool;
use slm_runtime::kernels::{Kernels, SCALAR, Width, available};
use slm_runtime::layout::Layout;
use slm_runtime::session::{Extent, Session};
use slm_runtime::sha256::{Digest, Sha256};
use slmc::artifact::host::SessionMemory;
use slmc::machine::kernels::kernels;
use slmc::model::id::{LinearId, ParameterId, Role};
use slmc::model::scheme::{Preset, QuantScheme};
use slmc::model::weights::{Model, Parameter};
use slmc::target::Target;

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

/// Of a vocabulary of 150 tokens, the first ones in 8 bits and the others in 4.
const SPLITS: [QuantScheme; 2] = [QuantScheme::Split { wide_rows: 64 }, QuantScheme::Split { wide_rows: 128 }];

#[test]
fn layouts_and_chunks_do_not_change_a_bit() {
    let mut wrong = Vec::new();
    for family in Family::ALL {
        let presets = Preset::ALL.map(|preset| (preset.name().to_owned(), quantized(family, Size::SMALL, preset)));
        let split = |scheme: QuantScheme| {
            (scheme.to_string(), with_tokens(quantized(family, Size::SMALL, Preset::W4), 150, scheme))
        };
        for (name, model) in presets.into_iter().chain(SPLITS.map(split)) {
            let tokens = tokens(model.spec.vocabulary, Size::SMALL.context);
            // A decoder's prompt comes in pieces; an encoder sees its sequence whole.
            let pieces = if family.decoder() { &[1, 7, 64, 96][..] } else { &[96] };
            let expected =
                logits(&compiled(&model, &Target::unlimited("test", Layout::ALL[0]), None).bytes, &tokens, 96);
            assert!(expected.iter().any(|bits| *bits != expected[0]), "{}: all logits are equal", family.name());
            for layout in Layout::ALL {
                let bytes = compiled(&model, &Target::unlimited("test", layout), None).bytes;
                for &piece in pieces {
                    if logits(&bytes, &tokens, piece) != expected {
                        wrong.push(format!("{} {name} {} pieces of {piece}", family.name(), layout.name()));
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
        let roomy = Target::unlimited("test", Layout::R4K4);
        let whole = compiled(&model, &roomy, None);
        let expected = logits(&whole.bytes, &tokens, 96);
        let mut seen = vec![whole.footprint.chunk];
        let mut ram = whole.footprint.ram_bytes();
        // One byte less than the last plan took halves the chunk, down to one token.
        while *seen.last().expect("it has one") > 1 {
            let tight = compiled(&model, &Target { ram_bytes: Some(ram - 1), ..roomy.clone() }, None);
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
        let device = Target::unlimited("test", Layout::R8K8);
        let build = || compiled(&quantized(family, Size::SMALL, Preset::Mixed), &device, None).bytes;
        // One build on the test's thread pool, one on a single thread.
        let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
        let (first, second) = (build(), single.install(build));
        assert!(first == second, "{}: two builds differ", family.name());
    }
}

/// Digest of the logits of all positions, by some kernels and threads, the tokens given in pieces.
fn digest(artifact: &[u8], tokens: &[u32], kernels: &'static Kernels, threads: usize, piece: usize) -> Digest {
    let view = ArtifactView::open(artifact).expect("it is sound");
    let pool = Pool::new(threads).expect("threads start");
    let mut memory = SessionMemory::for_extent(&view, Extent::of_workers(threads));
    let session = Session::with_workers(&view, kernels, &pool, 1, memory.as_mut_slice());
    let mut session = session.expect("the memory is the planned one");
    let mut hash = Sha256::new();
    for piece in tokens.chunks(piece) {
        let mut keep = |_: usize, row: &[f32]| row.iter().for_each(|value| hash.update(&value.to_le_bytes()));
        session.run(piece, &mut keep).expect("the tokens run");
    }
    hash.finish()
}

/// The model with 16-bit activations for every second linear, so that linears that share an input differ in width.
fn with_wide_activations(mut model: Model) -> Model {
    let matrices = model.parameters.values_mut().filter_map(|parameter| match parameter {
        Parameter::Quantized(matrix) => Some(matrix),
        Parameter::Dense(_) => None,
    });
    matrices.step_by(2).for_each(|matrix| matrix.activations = Width::Bits16);
    model
}

/// One digest for every table of kernels that this CPU can run, one to four threads and every way to cut the prompt; small
/// models of every family, and stories260k where it is there, in w8, w4 and with 16-bit activations.
#[test]
fn kernels_threads_and_pieces_do_not_change_a_bit() {
    let mut models: Vec<(String, Model)> = Vec::new();
    for family in Family::ALL {
        let model = || quantized(family, Size::SMALL, Preset::Mixed);
        models.push((family.name().to_owned(), model()));
        models.push((format!("{} with 16-bit activations", family.name()), with_wide_activations(model())));
        let split = with_tokens(model(), 150, SPLITS[0]);
        models.push((format!("{} in two parts", family.name()), split.clone()));
        models.push((format!("{} in two parts with 16-bit activations", family.name()), with_wide_activations(split)));
    }
    for scheme in [QuantScheme::W8, QuantScheme::W4G32] {
        let Some(model) = crate::reference::reference_model(scheme, QuantScheme::W8) else { continue };
        models.push((format!("stories260k {scheme}"), model.clone()));
        models.push((format!("stories260k {scheme} with 16-bit activations"), with_wide_activations(model)));
    }
    let mut wrong = Vec::new();
    let mut narrow: Option<Digest> = None;
    for (name, model) in &models {
        let bytes = compiled(model, &Target::unlimited("test", Layout::R8K4Offset8), Some(96)).bytes;
        let tokens = tokens(model.spec.vocabulary, 96);
        let decoder = ArtifactView::open(&bytes).expect("it is sound").spec().is_decoder();
        let expected = digest(&bytes, &tokens, &SCALAR, 1, 96);
        // The digest tells one model from the next, and wide activations from narrow ones.
        assert_ne!(narrow.replace(expected), Some(expected), "{name}");
        for kernels in available() {
            for threads in 1..=4 {
                for &piece in if decoder { &[1, 7, 64, 96][..] } else { &[96] } {
                    if digest(&bytes, &tokens, kernels, threads, piece) != expected {
                        wrong.push(format!("{name}, {}, {threads} threads, pieces of {piece}", kernels.name));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

/// A table in two parts is looked up, and a head in two parts multiplied, as if all rows were in the scheme of the row.
#[test]
fn parts_give_the_logits_of_their_schemes() {
    let model = quantized(Family::Llama, Size::SMALL, Preset::Mixed);
    let (rows, wide_rows) = (150, 64);
    let id = |role| ParameterId::weight(LinearId::global(role));
    let made = |table: QuantScheme, head: QuantScheme| {
        let mut mixed = with_tokens(model.clone(), rows, table);
        let mut other = with_tokens(model.clone(), rows, head).parameters;
        let head = other.remove(&id(Role::LmHead)).expect("it has a head of its own");
        mixed.parameters.insert(id(Role::LmHead), head);
        mixed
    };
    let (w8, w4, split) = (QuantScheme::W8, QuantScheme::W4G32, QuantScheme::Split { wide_rows });
    let (frequent, rare): (Vec<u32>, Vec<u32>) = tokens(rows, 192).into_iter().partition(|token| *token < wide_rows);
    for layout in Layout::ALL {
        let run = |table, head, tokens: &[u32]| {
            let bytes = compiled(&made(table, head), &Target::unlimited("test", layout), None).bytes;
            logits(&bytes, &tokens[..tokens.len().min(96)], 7)
        };
        let (of_split, of_w8, of_w4) = (run(w8, split, &rare), run(w8, w8, &rare), run(w8, w4, &rare));
        let wide = |n: usize| n % rows < wide_rows as usize;
        let expected: Vec<u32> = (0..of_w8.len()).map(|n| if wide(n) { of_w8[n] } else { of_w4[n] }).collect();
        assert!(of_w8 != of_w4 && of_split == expected, "{}", layout.name());
        assert!(run(split, w8, &frequent) == run(w8, w8, &frequent), "{}", layout.name());
        assert!(run(split, w8, &rare) == run(w4, w8, &rare) && run(w4, w8, &rare) != of_w8, "{}", layout.name());
    }
}
