//! Every row of the table of schemes through the whole way, on every golden checkpoint: rounded, packed for every layout and
//! run, the logits are the same bits in every layout and by every table of kernels, and close to the f32 forward of the
//! weights that the integers stand for.

use crate::reference::artifact_for;
use crate::support::{golden_folders, name};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{MINOR_DRAFTS, MINOR_FAMILIES, MINOR_HEADS, MINOR_MIXTURES};
use slm_runtime::format::spec::CurveId;
use slm_runtime::kernels::available;
use slm_runtime::layout::Layout;
use slm_runtime::session::Session;
use slmc::artifact::host::SessionMemory;
use slmc::formats::{ModelSink, open_model, slmc_quantized};
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Unobserved};
use slmc::model::id::ParameterId;
use slmc::model::scheme::{QuantScheme, SCHEMES};
use slmc::model::weights::{Model, Parameter};
use slmc::quantize::search::quantize_matrix;
use slmc::target::Target;

/// Largest difference between logits of the artifact and of f32 with the same weights, as a part of the largest f32 logit:
/// what 8-bit activations, keys and values cost.
const CLOSE: f32 = 0.06;

fn tokens() -> Vec<u32> {
    (0..70).map(|n| (n * 37 + 5) % 96).collect()
}

/// Every matrix of a model in one scheme.
fn in_scheme(dense: &Model, scheme: QuantScheme) -> Model {
    let mut model = dense.clone();
    for (id, ..) in dense.spec.matrices() {
        let matrix = quantize_matrix(dense.matrix(id).expect("weights read").view(), scheme, None);
        model.parameters.insert(ParameterId::weight(id), Parameter::Quantized(matrix));
    }
    model
}

/// Logits of all positions from every table of kernels this CPU can run, which must not differ.
fn logits(bytes: &[u8], about: &str) -> Vec<f32> {
    let view = ArtifactView::open(bytes).expect("it reads back");
    view.verify_digests().expect("its digests hold");
    let by = |kernels| {
        let mut memory = SessionMemory::for_artifact(&view);
        let mut session = Session::new(&view, kernels, memory.as_mut_slice()).expect("the memory is the planned one");
        let mut logits = Vec::new();
        session.run(&tokens(), &mut |_: usize, row: &[f32]| logits.extend_from_slice(row)).expect("it runs");
        logits
    };
    let mut tables = available().map(|kernels| (kernels.name, by(kernels)));
    let (first, expected) = tables.next().expect("there is always the scalar table");
    for (other, found) in tables {
        assert!(found == expected, "{about}: {first} and {other} differ");
    }
    expected
}

#[test]
fn every_scheme_runs_as_the_weights_it_stands_for() {
    let flex = device("flex").expect("flex is built in");
    let batch = |model: &Model| Batch::new(&model.spec, tokens(), 1).expect("a batch");
    let mut far = Vec::new();
    for path in golden_folders() {
        let dense = open_model(&path).expect("it opens");
        for def in &SCHEMES {
            let about = format!("{} in {}", name(&path), def.name);
            let model = in_scheme(&dense, def.scheme);
            let weights = DenseWeights::new(&model, &flex).expect("weights read");
            let exact = Forward::new(&model.spec, &weights, &flex).run(&batch(&model), &mut Unobserved).logits;
            let exact = exact.into_data().try_to_vec::<f32>().expect("f32");
            let (bytes, _) = artifact_for(&model, &Target::unlimited("test", Layout::R8K4Offset8));
            let minor = u16::from_le_bytes([bytes[10], bytes[11]]);
            // A sliding window that keeps a ring needs a later version.
            let view = ArtifactView::open(&bytes).expect("it is sound");
            let ring = (0..view.spec().layers as usize).any(|layer| view.layer(layer).cache_format != 0);
            let of_families = (0..view.spec().layers as usize).map(|layer| view.layer(layer)).any(|layer| {
                layer.activation == CurveId::Relu as u8
                    || (4..6).contains(&layer.norm_placement)
                    || layer.query_key_norm > 1
            });
            let of_heads = (0..view.spec().layers as usize).map(|layer| view.layer(layer)).any(|layer| {
                let later = layer.norm_placement > 5 || layer.norm == 3 || layer.score_cap != 0.0;
                later || (!view.spec().is_decoder() && layer.window > 0)
            });
            let spec = view.spec();
            let labels = spec.output == 4 && (spec.is_decoder() || spec.pooling == 2);
            let of_heads = of_heads || labels || spec.output > 4 || spec.logit_cap != 0.0;
            let of_heads = of_heads || spec.embedding_width != 0 || spec.head_norm != 0;
            let of_families = of_families || (view.spec().output == 4 && view.spec().head_activation != 0);
            let mixture = (0..view.spec().layers as usize).any(|layer| view.layer(layer).is_mixture());
            let further = [
                (ring, MINOR_DRAFTS),
                (of_families, MINOR_FAMILIES),
                (of_heads, MINOR_HEADS),
                (mixture, MINOR_MIXTURES),
            ];
            let further = further.into_iter().filter(|(there, _)| *there).map(|(_, minor)| minor);
            let expected = further.fold(def.storage.def().minor, u16::max);
            assert_eq!(minor, expected, "{about}");
            let computed = logits(&bytes, &about);
            assert_eq!(exact.len(), computed.len(), "{about}");
            let largest = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
            let error = exact.iter().zip(&computed).fold(0f32, |most, (x, y)| most.max((x - y).abs())) / largest;
            if error.is_nan() || error > CLOSE {
                far.push(format!("{about}: {error}"));
            }
            for layout in Layout::ALL {
                let (bytes, _) = artifact_for(&model, &Target::unlimited("test", layout));
                assert!(logits(&bytes, &about) == computed, "{about}: {} differs", layout.name());
            }
        }
    }
    assert!(far.is_empty(), "{far:#?}");
}

/// A directory of every scheme is written and read back as it was, and its artifact with it.
#[test]
fn directories_of_every_scheme_are_read_back() {
    let dense = open_model(&crate::support::golden("llama-gqa-tied")).expect("it opens");
    for def in &SCHEMES {
        let model = in_scheme(&dense, def.scheme);
        let out = tempfile::tempdir().expect("a directory");
        let path = out.path().join("quantized");
        let provenance = serde_json::json!({"schema": "slmc.provenance/1"});
        slmc_quantized::Directory(&path).write(&model, &provenance).expect("it is written");
        let again = open_model(&path).expect("it is read back");
        assert_eq!(again.schemes(), model.schemes());
        let device = Target::unlimited("test", Layout::R4K16);
        assert!(artifact_for(&again, &device).0 == artifact_for(&model, &device).0, "{}", def.name);
    }
}
