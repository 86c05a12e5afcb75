//! Every family through the artifact: the logits' digests that the reference of the arithmetic gives for the golden
//! checkpoints it knows, closeness to the f32 forward for all of them, and the same bits for every layout, every chunk
//! and every way to cut a prompt.

use crate::reference::{artifact_for, logits_sha256, quantize_model};
use crate::support::{golden, golden_folders, name};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::HEADER_BYTES;
use slm_runtime::format::spec::{LayerRecord, ModelRecord};
use slm_runtime::layout::Layout;
use slmc::artifact::host::run_sequence;
use slmc::artifact::inspect::{classes, weight_size};
use slmc::compile::estimate::{Rates, estimate};
use slmc::formats::open_model;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::id::ParameterId;
use slmc::model::scheme::QuantScheme;
use slmc::model::size::{parameter_id, tensor_key};
use slmc::model::spec::ModelKind;
use slmc::model::weights::Model;
use slmc::target::Target;
use std::path::PathBuf;

/// Checkpoints of the families that were there first: the others are to be as near as they are.
const FIRST: [&str; 17] = [
    "bert-mlm",
    "bert-mlm-padded",
    "distilbert-mlm",
    "gemma3-text",
    "gpt2",
    "gpt2-unprefixed-with-buffers",
    "lfm2-short-conv",
    "llama-bf16-sharded",
    "llama-gqa-tied",
    "llama-mha",
    "llama3-rope-scaling",
    "llama3-v4-config-keys",
    "mistral",
    "mistral-sliding-window-8",
    "phi3-fused-qkv",
    "qwen2-qkv-bias",
    "qwen3-qk-norm",
];

/// Printed by `reference.py tests/data/golden/NAME --scheme SCHEME --tokens …` of ../shared/design/numerics for [`tokens`]: w8,
/// then w4.g32 with its table in w8. The reference knows llama, mistral, qwen2, qwen3, gpt2 and bert.
const REFERENCE: [(&str, [&str; 2]); 15] = [
    (
        "bert-classifier",
        [
            "b16d4567cf437edcb5abcaaf64b7a93edb9682fd6375c49b2f59eb80a2d7fc45",
            "ed37f230e14fee8c95d1e901bc0812422c60ebbb780f0d0cdbc3e587bef087d2",
        ],
    ),
    (
        "bert-encoder",
        [
            "28f9b087d883443976b2b6c49567d459ca16490feb55eaef54528eb71df19e91",
            "58aa9963843c04c0a81d627c97ba4416c2e1dfdafe6a940cf58deeab108c3242",
        ],
    ),
    (
        "bert-mlm",
        [
            "d2b13d0da4b723dcc70fade71e0113837ff06b7231a58f9a4450da8665ca6aa7",
            "db608490fcd21e90a06ecdc4278451a0f06b55db42dca0b9b9e2472915e2181d",
        ],
    ),
    (
        "bert-mlm-padded",
        [
            "7da24063a3d3452417e375cf92551561fb2a98648209b63fdb59e860b294a148",
            "6e8c13903e2c8f3f5ba581ad9175c52bb04ac1f3b43fd64dd6e6d99a38d00234",
        ],
    ),
    (
        "gpt2",
        [
            "541dfd52598b00c703b1cebed823bbf15e4a3cb9c4b0ffd5f2afa397dd56433e",
            "448163a5db4aafbf07f4804b3bb54573112ef4fdaf13f343a872ba33078f5c6f",
        ],
    ),
    (
        "gpt2-unprefixed-with-buffers",
        [
            "5c685680540d5ea1fc713348cdda67a0890118ed7af2171f549098a44a249f3d",
            "490b6982583df99f5456f0099250de1e20725f99ff270bee57fcd27ff7f0755f",
        ],
    ),
    (
        "llama-bf16-sharded",
        [
            "e88e4a24524b02555fb863190f638d5f1c61af0bc1131c210adc4208950b5b3a",
            "dcda59991749e7322e9857e0102475a90e1fde950420e84758c67e7684bedaee",
        ],
    ),
    (
        "llama-gqa-tied",
        [
            "b5b86f9c811b3128bf7ecc1d1a339abd7bb17c96e80df4cb58ae68b6829143c5",
            "24e658c9e54afb17648d81cba493bd9fed45a7a39737d8ad0433a716507c4378",
        ],
    ),
    (
        "llama-mha",
        [
            "17f85e24fa3075ac42ad086d974ae0f8a0c813dfef0387f061194c8399352418",
            "39d139e4db7a7b9fbfe2b9eaf645a9731591c4a1c3cfc56eb3bf2d697a405b71",
        ],
    ),
    (
        "llama3-rope-scaling",
        [
            "e003da654dee6413ff32fbeef74d0c264a88f6cef69e1aaa399c9699903c4d34",
            "558a94550cb436243c1c79959077ac248aee85f3da34363dc98b9bbb7b078fd6",
        ],
    ),
    (
        "llama3-v4-config-keys",
        [
            "aba20ac3d30b704b4d5ddc6fb6b299a3de98eb6220af5b82163f53fd81412300",
            "8fac5c29829678d3489402adedc65167e78007618fb085cb57a953963dd24215",
        ],
    ),
    (
        "mistral",
        [
            "601a765ce400bae866da06bab2bac1b3b04b8b4e0844669a6fe25746c33025d6",
            "26b0becc6877ddcd68eb191b9fa7fbe18b52c478f2d2a4a2bfef999956d5471c",
        ],
    ),
    (
        "mistral-sliding-window-8",
        [
            "a4071f46d657cd7d6d5b43ec230149fdf3b68b8d04ff20beeb9d5228ce71069a",
            "3827166b360ef130faa3b9dabf0430d05cea423708465fc5ff949c16a412bd74",
        ],
    ),
    (
        "qwen2-qkv-bias",
        [
            "8053abd9530914827e5abda91249771cedd9b784c0a1abe95215affd3256758a",
            "7dd7fac7e61ca58bac513af000fd6885374ed125836d5fd30a992ebaf3b66f66",
        ],
    ),
    (
        "qwen3-qk-norm",
        [
            "453ee8ed175344a2a161de894b4e3650fdc60692269af426af686e2a6ab7cb1c",
            "0d534a080dfb858e59f5c050b077027b60231a2150e3cbe2a8e4bfae7e95bc9b",
        ],
    ),
];

/// Largest difference between logits of w8 artifacts and of f32, as a part of the largest f32 logit.
const CLOSE: f32 = 0.06;

/// A hundred tokens: more than one block of rotary positions, one chunk and one window.
fn tokens() -> Vec<u32> {
    (0..100).map(|n| (n * 37 + 5) % 96).collect()
}

/// Every golden checkpoint by name.
fn checkpoints() -> Vec<(String, Model)> {
    let open = |path: &PathBuf| (name(path).to_owned(), open_model(path).expect("it opens"));
    golden_folders().iter().map(open).collect()
}

#[test]
fn logits_of_the_families_equal_the_reference_bit_for_bit() {
    let tokens = tokens();
    let mut wrong = Vec::new();
    for (name, digests) in REFERENCE {
        let model = &open_model(&golden(name)).expect("it opens");
        for (scheme, expected) in [QuantScheme::W8, QuantScheme::W4G32].into_iter().zip(digests) {
            let quantized = quantize_model(model, scheme, QuantScheme::W8);
            let (bytes, _) = artifact_for(&quantized, &Target::unlimited("test", Layout::R8K4Offset8));
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
    let (mut far, mut divergences) = (Vec::new(), Vec::new());
    for (name, model) in checkpoints() {
        let weights = DenseWeights::new(&model, &flex).expect("weights read");
        let batch = Batch::new(&model.spec, tokens.clone(), 1).expect("a batch");
        let exact = Forward::new(&model.spec, &weights, &flex).run(&batch, &mut Unobserved).logits;
        let exact = exact.into_data().try_to_vec::<f32>().expect("f32");
        let quantized = quantize_model(&model, QuantScheme::W8, QuantScheme::W8);
        let (bytes, _) = artifact_for(&quantized, &Target::unlimited("test", Layout::R8K4Offset8));
        let computed = run_sequence(&ArtifactView::open(&bytes).expect("it reads back"), &tokens).expect("it runs");
        assert_eq!(exact.len(), computed.len(), "{name}");
        let largest = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
        let error = exact.iter().zip(&computed).fold(0f32, |most, (x, y)| most.max((x - y).abs())) / largest;
        if error.is_nan() || error > CLOSE {
            far.push(format!("{name}: {error}"));
        }
        if model.spec.output_width() == model.spec.vocabulary {
            let rows = exact.chunks_exact(model.spec.vocabulary).zip(computed.chunks_exact(model.spec.vocabulary));
            let each: Vec<f64> = rows.map(|(exact, computed)| divergence(exact, computed)).collect();
            divergences.push((each.iter().sum::<f64>() / each.len() as f64, name));
        }
    }
    assert!(far.is_empty(), "{far:#?}");
    let mut of_first: Vec<f64> =
        divergences.iter().filter(|(_, name)| FIRST.contains(&name.as_str())).map(|(kld, _)| *kld).collect();
    assert_eq!(of_first.len(), FIRST.len());
    of_first.sort_by(f64::total_cmp);
    let most = 2.0 * of_first[of_first.len() / 2];
    divergences.retain(|(kld, name)| *kld > most && !FIRST.contains(&name.as_str()));
    assert!(divergences.is_empty(), "more than {most}: {divergences:#?}");
}

/// KL(exact ‖ computed) of two rows of logits.
fn divergence(exact: &[f32], computed: &[f32]) -> f64 {
    let log_sum = |row: &[f32]| row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
    let [of_exact, of_computed] = [exact, computed].map(log_sum);
    let pairs = exact.iter().zip(computed).map(|(&x, &y)| (f64::from(x) - of_exact, f64::from(y) - of_computed));
    pairs.map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn sizes_work_and_names_of_every_family_are_counted_alike() {
    for (name, model) in checkpoints() {
        let quantized = quantize_model(&model, QuantScheme::W4G32, QuantScheme::W8);
        let device = Target::unlimited("test", Layout::R8K4Offset8);
        let (bytes, _) = artifact_for(&quantized, &device);
        let view = ArtifactView::open(&bytes).expect("it reads back");
        let estimated = estimate(&model.path, &device, &Rates::default(), None, None).expect("it can be estimated");
        let macs: u64 = classes(&view).iter().map(|(_, sum)| sum.macs_per_token).sum();
        assert_eq!((estimated.macs_per_token, estimated.parameters), (macs, weight_size(&view).parameters), "{name}");
        let parameters: Vec<ParameterId> = model.spec.parameters().into_iter().map(|parameter| parameter.id).collect();
        for id in &parameters {
            assert_eq!(tensor_key(*id).and_then(parameter_id), Some(*id), "{name}");
        }
        assert_eq!(view.tensor_count(), parameters.len(), "{name}");
        let conv = model.spec.layers.iter().any(|layer| layer.attention().is_none());
        assert_eq!(classes(&view).iter().any(|(class, _)| *class == "conv"), conv, "{name}");
    }
}

#[test]
fn a_damaged_specification_is_refused_or_runs_and_never_panics() {
    for (name, model) in checkpoints()
        .into_iter()
        .filter(|(name, _)| name.contains("gemma") || name.contains("lfm2") || name == "granitemoe")
    {
        let quantized = quantize_model(&model, QuantScheme::W4G32, QuantScheme::W8);
        let (mut bytes, _) = artifact_for(&quantized, &Target::unlimited("test", Layout::R8K4Offset8));
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
        let (bytes, footprint) = artifact_for(&quantized, &Target::unlimited("test", Layout::R8K4Offset8));
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
            let (bytes, _) = artifact_for(&quantized, &Target::unlimited("test", layout));
            pieces.iter().for_each(|&piece| check(layout.name().to_owned(), &bytes, piece));
        }
        // A device with one byte less than a chunk needs gets half the chunk.
        let (mut chunk, mut ram_bytes) = (footprint.chunk, footprint.ram_bytes());
        while chunk > 1 {
            let device = Target { ram_bytes: Some(ram_bytes - 1), ..Target::unlimited("test", Layout::R8K4Offset8) };
            let (bytes, smaller) = artifact_for(&quantized, &device);
            assert!(smaller.chunk < chunk, "{name}");
            (chunk, ram_bytes) = (smaller.chunk, smaller.ram_bytes());
            check(format!("chunk {chunk}"), &bytes, tokens.len());
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}
