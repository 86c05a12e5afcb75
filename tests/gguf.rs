//! GGUF against the format's own packages: tests/data/gguf holds golden checkpoints as gguf-py writes them, blocks of every
//! type with its values, tokenizers with the tokens of their own libraries (make.py beside them). A model opened from a file
//! must equal the checkpoint it was made from, bit for bit: rows of queries and keys in another order still load, and still
//! answer plausibly.

mod damaged;
pub(crate) mod draft;
mod imports;
mod tokenizers;

use crate::support::{golden, root};
use safetensors::SafeTensors;
use slmc::formats::gguf::BlockType;
use slmc::formats::open_model;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::id::ParameterId;
use slmc::model::spec::{Embedding, LayerSpec, Mixer, ModelSpec, Pooling};
use slmc::model::weights::Model;
use std::path::{Path, PathBuf};

/// Files that were made of the golden checkpoint of the same name, value for value.
const EQUAL: [&str; 10] = [
    "bert-classifier",
    "bert-encoder",
    "gemma3-text",
    "gpt2",
    "lfm2-short-conv",
    "llama-gqa-tied",
    "llama3-rope-scaling",
    "phi3-fused-qkv",
    "qwen2-qkv-bias",
    "qwen3-qk-norm",
];

/// A file of tests/data/gguf.
fn data(name: &str) -> PathBuf {
    let path = root("tests/data/gguf").join(name);
    assert!(path.exists(), "{} is part of the repository", path.display());
    path
}

/// Logits of a few tokens, as bits.
fn logits(model: &Model) -> Vec<u32> {
    let device = device("flex").expect("the default backend");
    let weights = DenseWeights::new(model, &device).expect("finite values");
    let tokens: Vec<u32> = (0..24).map(|n| n * 7 % model.spec.vocabulary as u32).collect();
    let batch = Batch::new(&model.spec, tokens, 1).expect("a sequence");
    let output = Forward::new(&model.spec, &weights, &device).run(&batch, &mut Unobserved);
    let values = output.logits.into_data().try_to_vec::<f32>().expect("f32");
    values.into_iter().map(f32::to_bits).collect()
}

fn same_values(ours: &Model, theirs: &Model, name: &str) {
    assert_eq!(ours.parameters.keys().collect::<Vec<_>>(), theirs.parameters.keys().collect::<Vec<_>>(), "{name}");
    for id in ours.parameters.keys() {
        let bits = |model: &Model| -> Vec<u32> {
            model.values_f32(*id).expect("finite values").into_iter().map(f32::to_bits).collect()
        };
        assert!(bits(ours) == bits(theirs), "{name}: the values of {id} differ");
    }
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).unwrap_or_else(|_| panic!("{name} is recorded"));
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

#[test]
fn every_block_type_has_the_values_of_its_own_package() {
    let bytes = std::fs::read(data("blocks.safetensors")).expect("reads");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let quantized: Vec<BlockType> = BlockType::all().filter(|kind| !kind.is_float()).collect();
    assert_eq!((quantized.len(), file.len()), (12, 24), "every type is recorded");
    for kind in quantized {
        let blocks = file.tensor(&format!("{kind}.blocks")).expect("blocks");
        let expected = floats(&file, &format!("{kind}.values"));
        let count = blocks.data().len() / kind.bytes();
        assert_eq!((count * kind.bytes(), count * kind.values()), (blocks.data().len(), expected.len()), "{kind}");
        let mut values = vec![0.0; expected.len()];
        kind.decode(blocks.data(), &mut values);
        assert_eq!(values.into_iter().map(f32::to_bits).collect::<Vec<_>>(), expected, "{kind}");
    }
}

/// The specification of a golden checkpoint as far as a file can say it.
fn said(name: &str, mut spec: ModelSpec) -> ModelSpec {
    if name == "gemma3-text" {
        // The width that scores are scaled by is not stored: it is that of a head.
        for LayerSpec { mixer, .. } in &mut spec.layers {
            let Mixer::Attention(attention) = mixer else { panic!("Gemma attends in every layer") };
            attention.score_scale = 1.0 / (attention.head_dim as f64).sqrt();
        }
    }
    if name == "bert-encoder" {
        spec.embedding = Some(Embedding { pooling: Pooling::Mean, normalize: false });
    }
    spec
}

/// Norms after the way through the file, which holds them with one added, rounded.
fn with_one_added(model: Model) -> Model {
    let norms = model.parameters.keys().filter(|id| matches!(id, ParameterId::Norm(..)));
    let rounded = |id: &ParameterId| {
        let values = model.values_f32(*id).expect("finite values");
        (*id, values.into_iter().map(|value| (value + 1.0) - 1.0).collect())
    };
    let values = norms.map(rounded).collect();
    model.clone().with_values(values).expect("the same shapes")
}

#[test]
fn every_architecture_opens_to_the_checkpoint_it_was_made_from() {
    for name in EQUAL {
        let ours = open_model(&data(&format!("{name}.gguf"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut theirs = open_model(&golden(name)).expect("a golden checkpoint");
        if name == "gemma3-text" {
            theirs = with_one_added(theirs);
        }
        assert_eq!(ours.spec, said(name, theirs.spec.clone()), "{name}");
        same_values(&ours, &theirs, name);
        let theirs = Model { spec: ours.spec.clone(), ..theirs };
        assert!(logits(&ours) == logits(&theirs), "{name}: logits differ");
    }
}

#[test]
fn interleaved_rows_of_integers_are_put_back() {
    let model = open_model(&data("llama-mha.gguf")).expect("it opens");
    let bytes = std::fs::read(data("llama-mha.safetensors")).expect("reads");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let names = [
        ("layers.0.attn.q", "self_attn.q_proj"),
        ("layers.0.attn.k", "self_attn.k_proj"),
        ("layers.0.attn.v", "self_attn.v_proj"),
        ("layers.0.attn.o", "self_attn.o_proj"),
    ];
    for (id, name) in names {
        let matrix = model.matrix(id.parse().expect("a name")).expect("finite values");
        let expected = floats(&file, &format!("model.layers.0.{name}.weight"));
        assert_eq!(matrix.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected, "{id}");
    }
    // Near the checkpoint that was rounded; in the order of the file the rows would be others.
    let theirs = open_model(&golden("llama-mha")).expect("a golden checkpoint");
    for id in ["layers.1.attn.q", "layers.1.attn.k", "layers.2.attn.k"] {
        let matrix = |model: &Model| model.matrix(id.parse().expect("a name")).expect("finite values");
        let (ours, theirs) = (matrix(&model), matrix(&theirs));
        let error = (&ours - &theirs).iter().map(|d| d * d).sum::<f32>() / theirs.iter().map(|t| t * t).sum::<f32>();
        assert!(error < 0.01, "{id}: {error}");
    }
}

#[test]
fn integers_times_their_scales_are_the_values() {
    // 0x2000 is 2^-7.
    let blocks_of_4_bits = |rows: u8| -> Vec<u8> {
        (0..rows)
            .flat_map(|row| [0x00, 0x20].into_iter().chain((0..16).map(move |n| row.wrapping_mul(37) ^ (n * 17))))
            .collect()
    };
    let draft = draft::Draft::llama().changed("blk.0.attn_k.weight", |tensor| {
        (tensor.kind, tensor.data) = (2, blocks_of_4_bits(draft::HIDDEN as u8));
    });
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("draft.gguf");
    std::fs::write(&path, draft.bytes()).expect("writes");
    let source = slmc::formats::open(&path).expect("it opens");
    for id in ["layers.0.attn.q", "layers.0.attn.k", "layers.0.ffn.down", "embed.token"] {
        let id = id.parse().expect("a name");
        let values = source.model().expect("readable").matrix(id).expect("finite values");
        let integers = source.integers(id).expect("readable").expect("blocks with one scale each");
        // Rows of one scale have it once.
        let group = integers.group;
        assert!([32, values.ncols()].contains(&group) && integers.values.dim() == values.dim(), "{id}: {group}");
        for ((row, column), value) in values.indexed_iter() {
            let product = integers.scales[[row, column / group]] * f32::from(integers.values[[row, column]]);
            assert_eq!(product.to_bits(), value.to_bits(), "{id} {row} {column}");
        }
    }
    let dense = slmc::formats::open(&data("llama-gqa-tied.gguf")).expect("it opens");
    assert_eq!(dense.integers("layers.0.attn.q".parse().expect("a name")).expect("readable"), None);
}

#[test]
fn a_model_in_several_files_is_one() {
    let whole = open_model(&data("llama-gqa-tied.gguf")).expect("it opens");
    let parts = open_model(&data("split-00001-of-00002.gguf")).expect("it opens");
    assert_eq!(parts.spec, whole.spec);
    same_values(&parts, &whole, "split");
    let refused = |path: &Path| open_model(path).expect_err("it is refused").to_string();
    let second = refused(&data("split-00002-of-00002.gguf"));
    assert!(second.contains("part 2 of 2; pass the first") && second.contains("split-00001-of-00002.gguf"), "{second}");
    let directory = tempfile::tempdir().expect("a directory");
    let alone = directory.path().join("split-00001-of-00002.gguf");
    std::fs::copy(data("split-00001-of-00002.gguf"), &alone).expect("copies");
    let missing = refused(&alone);
    assert!(missing.contains("split-00002-of-00002.gguf: is missing, part 2 of 2"), "{missing}");
    std::fs::copy(data("gpt2.gguf"), directory.path().join("split-00002-of-00002.gguf")).expect("copies");
    let other = refused(&alone);
    assert!(other.contains("its keys do not say that it is part 2 of 2"), "{other}");
    let renamed = directory.path().join("first.gguf");
    std::fs::copy(&alone, &renamed).expect("copies");
    let named = refused(&renamed);
    assert!(named.contains("the others cannot be found; give all parts the names they were fetched by"), "{named}");
    let second = directory.path().join("split-00002-of-00002.gguf");
    std::fs::copy(data("split-00001-of-00002.gguf"), &second).expect("copies");
    assert!(refused(&alone).contains("its keys do not say that it is part 2 of 2"));
    std::fs::remove_file(&second).expect("removes");
    std::os::unix::fs::symlink("../../blobs/gone", &second).expect("links");
    let link = refused(&alone);
    assert!(link.contains("split-00002-of-00002.gguf: a link to ../../blobs/gone"), "{link}");
    std::fs::remove_file(&second).expect("removes");
    std::fs::create_dir(&second).expect("makes");
    let folder = open_model(&alone).expect_err("it is refused");
    let cause = std::error::Error::source(&folder).map(ToString::to_string).unwrap_or_default();
    assert!(folder.to_string().contains("split-00002-of-00002.gguf: cannot be read"), "{folder}");
    assert!(cause.contains("not a regular file; put the file itself in its place"), "{cause}");
}
