//! Every family through the artifact: the logits' digests that the reference of the arithmetic gives for the golden
//! checkpoints it knows, closeness to the f32 forward for all of them, and the same bits for every layout, every chunk
//! and every way to cut a prompt.

use crate::reference::{artifact_for, logits_sha256, quantize_model};
use crate::shared;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::HEADER_BYTES;
use slm_runtime::format::spec::{LayerRecord, ModelRecord};
use slm_runtime::layout::Layout;
use slmc::artifact::host::run_sequence;
use slmc::artifact::inspect::{classes, weight_size};
use slmc::compile::estimate::{Rates, estimate};
use slmc::compile::fit::Device;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, NoTaps};
use slmc::model::id::ParameterId;
use slmc::model::scheme::QuantScheme;
use slmc::model::size::{parameter_id, tensor_key};
use slmc::model::spec::ModelKind;
use slmc::model::weights::Model;

/// Printed by `reference.py ../shared/golden/NAME --scheme SCHEME --tokens …` for [`tokens`]: w8, then w4.g32 with its
/// table in w8.
const REFERENCE: [(&str, [&str; 2]); 9] = [
    (
        "gpt2",
        [
            "cec2d3a6d5b5a888914a12b1d94c0d10039ebac704ac05df5d561c69d87326c5",
            "106d041a3220bf4fada3a3b47df22ce8d57149dee6c3cdbb399c48beb2d26cd2",
        ],
    ),
    (
        "gpt2-unprefixed-with-buffers",
        [
            "801d43e13aaf302b08cd997f538ebc50031281c1be6ecf5fc6f4a7a85eb602d7",
            "09b97a8afbe3b23839b22cdcee2b0340b8caee14d4223447a9792bac7c938630",
        ],
    ),
    (
        "mistral",
        [
            "ee9abba87219ac2c1a480e3d0fad1a7550bb4cbf17298fd592cf518a293d6ec2",
            "36e6fcc3fd06533a9582371ee9d8dcf02de3a6ad7beaf28aec8fd4768283da37",
        ],
    ),
    (
        "mistral-sliding-window-8",
        [
            "2226b75660484c69af987668f7704967badca131dd72df4008d11341710589d7",
            "919c428617c6b5449713090c6c2276b0c49beb954d5a603415ad0692e9a3154e",
        ],
    ),
    (
        "qwen2-qkv-bias",
        [
            "f8c4a08825711d3ea61be1733ba0f7f48cdcb5288454953732f4292d62e3dab6",
            "e98259a6c6438a942593a4d6ffce9a2d5e3e31a4e5a5353bf5598ea90455212e",
        ],
    ),
    (
        "qwen3-qk-norm",
        [
            "1057637671ba75957c3daa615277ab6c5e9da53c54083d00b8b29fd75b5289a3",
            "bd67d902e13d9b58094b5dc4a2246f8c2ab6fe2aaa6056f57ea8e5e5d2883a1e",
        ],
    ),
    (
        "bert-encoder",
        [
            "a372323dd4adcf730392a92d3a7ff1c8626f747a13d5663cf09b24f57351f10d",
            "2900eab60eb9aa7bad6677c6dbbb02dceafbec09956b45bab087a198aad55bdb",
        ],
    ),
    (
        "bert-mlm",
        [
            "62f9983eb631d22b775a8f75931cabceee7ce1831805dbb7984ae55299af4d9e",
            "2ddbca81cc106a944d15637ebfbe600115a830eebef99613c9c4aa58fc7ff46c",
        ],
    ),
    (
        "bert-classifier",
        [
            "d55a857458a9518998a26de4c44dbcf9b1542b4ed7467e7fcd01532c174bbdcc",
            "da6fdcf4b49c21791c36e82b30074faffad79464963f4d5301e2a64f2bb63b15",
        ],
    ),
];

/// Largest difference between logits of w8 artifacts and of f32, as a part of the largest f32 logit.
const CLOSE: f32 = 0.06;

/// A hundred tokens: more than one block of rotary positions, one chunk and one window.
fn tokens() -> Vec<u32> {
    (0..100).map(|n| (n * 37 + 5) % 320).collect()
}

/// Every golden checkpoint by name.
fn checkpoints() -> Vec<(String, Model)> {
    let Some(root) = shared("golden") else { return Vec::new() };
    let entries = std::fs::read_dir(root).expect("the folder lists").map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    let name = |path: &std::path::PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    folders.iter().map(|path| (name(path), Model::open(path).expect("it opens"))).collect()
}

#[test]
fn logits_of_the_families_equal_the_reference_bit_for_bit() {
    let (checkpoints, tokens) = (checkpoints(), tokens());
    let mut wrong = Vec::new();
    for (name, digests) in REFERENCE {
        let Some((_, model)) = checkpoints.iter().find(|(other, _)| other == name) else { continue };
        for (scheme, expected) in [QuantScheme::W8, QuantScheme::W4G32].into_iter().zip(digests) {
            let quantized = quantize_model(model, scheme, QuantScheme::W8);
            let (bytes, _) = artifact_for(&quantized, &Device::unlimited("test", Layout::R8K4Offset8));
            let view = ArtifactView::open(&bytes).expect("it reads back");
            let digest = logits_sha256(&view, &tokens, tokens.len());
            if digest != expected {
                wrong.push(format!("{name} {scheme}: {digest}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

#[test]
fn logits_of_w8_artifacts_are_close_to_the_f32_forward() {
    let (flex, tokens) = (device("flex").expect("flex is built in"), tokens());
    let mut far = Vec::new();
    for (name, model) in checkpoints() {
        let weights = DenseWeights::new(&model, &flex).expect("weights read");
        let batch = Batch::new(&model.spec, tokens.clone(), 1).expect("a batch");
        let exact = Forward::new(&model.spec, &weights, &flex).run(&batch, &mut NoTaps).logits;
        let exact = exact.into_data().try_to_vec::<f32>().expect("f32");
        let quantized = quantize_model(&model, QuantScheme::W8, QuantScheme::W8);
        let (bytes, _) = artifact_for(&quantized, &Device::unlimited("test", Layout::R8K4Offset8));
        let computed = run_sequence(&ArtifactView::open(&bytes).expect("it reads back"), &tokens).expect("it runs");
        assert_eq!(exact.len(), computed.len(), "{name}");
        let largest = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
        let error = exact.iter().zip(&computed).fold(0f32, |most, (x, y)| most.max((x - y).abs())) / largest;
        if error.is_nan() || error > CLOSE {
            far.push(format!("{name}: {error}"));
        }
    }
    assert!(far.is_empty(), "{far:#?}");
}

#[test]
fn sizes_work_and_names_of_every_family_are_counted_alike() {
    for (name, model) in checkpoints() {
        let quantized = quantize_model(&model, QuantScheme::W4G32, QuantScheme::W8);
        let device = Device::unlimited("test", Layout::R8K4Offset8);
        let (bytes, _) = artifact_for(&quantized, &device);
        let view = ArtifactView::open(&bytes).expect("it reads back");
        let estimated = estimate(&model.directory, &device, &Rates::default(), None).expect("it can be estimated");
        let macs: u64 = classes(&view).iter().map(|(_, sum)| sum.macs_per_token).sum();
        assert_eq!((estimated.macs_per_token, estimated.parameters), (macs, weight_size(&view).parameters), "{name}");
        let parameters: Vec<ParameterId> = model.spec.parameters().into_iter().map(|parameter| parameter.id).collect();
        for id in &parameters {
            assert_eq!(parameter_id(tensor_key(*id)), Some(*id), "{name}");
        }
        assert_eq!(view.tensor_count(), parameters.len(), "{name}");
        let conv = model.spec.layers.iter().any(|layer| layer.attention().is_none());
        assert_eq!(classes(&view).iter().any(|(class, _)| *class == "conv"), conv, "{name}");
    }
}

#[test]
fn a_damaged_specification_is_refused_or_runs_and_never_panics() {
    for (name, model) in checkpoints().into_iter().filter(|(name, _)| name.contains("gemma") || name.contains("lfm2")) {
        let quantized = quantize_model(&model, QuantScheme::W4G32, QuantScheme::W8);
        let (mut bytes, _) = artifact_for(&quantized, &Device::unlimited("test", Layout::R8K4Offset8));
        let records = ModelRecord::BYTES + model.spec.layers.len() * LayerRecord::BYTES;
        let mut accepted = 0;
        for at in HEADER_BYTES..HEADER_BYTES + records {
            let whole = bytes[at];
            for damaged in [whole ^ 1, whole ^ 2, whole ^ 3, whole ^ 0x80, 0, 0xff].into_iter().filter(|b| *b != whole)
            {
                bytes[at] = damaged;
                if let Ok(view) = ArtifactView::open(&bytes) {
                    accepted += 1;
                    // Values out of range are an answer too.
                    let _ = run_sequence(&view, &[1, 2, 3]);
                }
            }
            bytes[at] = whole;
        }
        // Scales, epsilons, windows and special tokens have many legal values; sizes and kinds have one.
        assert!((1..records).contains(&accepted), "{name}: {accepted}");
    }
}

#[test]
fn layouts_chunks_and_pieces_change_no_bit() {
    let tokens = tokens();
    let mut wrong = Vec::new();
    for (name, model) in checkpoints() {
        let quantized = quantize_model(&model, QuantScheme::W4G32, QuantScheme::W8);
        let (bytes, footprint) = artifact_for(&quantized, &Device::unlimited("test", Layout::R8K4Offset8));
        let expected = logits_sha256(&ArtifactView::open(&bytes).expect("it reads back"), &tokens, tokens.len());
        let mut check = |what: String, bytes: &[u8], piece: usize| {
            let view = ArtifactView::open(bytes).expect("it reads back");
            view.verify_digests().expect("its digests hold");
            if logits_sha256(&view, &tokens, piece) != expected {
                wrong.push(format!("{name}: {what}, pieces of {piece}"));
            }
        };
        // An encoder sees a sequence whole.
        let decoder = model.spec.kind == ModelKind::Decoder;
        let pieces = if decoder { &[1, 7, 64][..] } else { &[100][..] };
        for layout in Layout::ALL {
            let (bytes, _) = artifact_for(&quantized, &Device::unlimited("test", layout));
            pieces.iter().for_each(|&piece| check(layout.name().to_owned(), &bytes, piece));
        }
        // A device with one byte less than a chunk needs gets half the chunk.
        let (mut chunk, mut ram_bytes) = (footprint.chunk, footprint.ram_bytes());
        while chunk > 1 {
            let device = Device { ram_bytes: Some(ram_bytes - 1), ..Device::unlimited("test", Layout::R8K4Offset8) };
            let (bytes, smaller) = artifact_for(&quantized, &device);
            assert!(smaller.chunk < chunk, "{name}");
            (chunk, ram_bytes) = (smaller.chunk, smaller.ram_bytes());
            check(format!("chunk {chunk}"), &bytes, tokens.len());
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}
