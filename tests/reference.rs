//! The artifact and its executor against the reference of the arithmetic: stories260k quantized by the reference's own
//! simple rule, compiled for every layout, must give the logits whose digests the reference recorded.

use crate::shared;
use crate::support::root;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;
use slm_runtime::session::Session;
use slm_runtime::sha256::Sha256;
use slmc::artifact::host::SessionMemory;
use slmc::compile::fit::Footprint;
use slmc::compile::{HostSections, TextSection, compile};
use slmc::disk::DenseTensor;
use slmc::formats::open_model;
use slmc::machine::kernels::kernels;
use slmc::model::id::{Class, KeyMapPart, ParameterId, Role};
use slmc::model::matrix::from_rows;
use slmc::model::quantized::QuantizedMatrix;
use slmc::model::scheme::QuantScheme;
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::target::Target;

/// reference.py, `quantize`: integers in [-127, 127] and one scale.
fn quantize_row(x: &[f32]) -> (Vec<i8>, f32) {
    let mut q = vec![0; x.len()];
    let scale = slm_runtime::numerics::quantize(x, &mut q).expect("weights are finite");
    (q, scale)
}

/// reference.py, `Matrix`: w8 by rows; w4.g32 with the element of largest magnitude at -8.
fn reference_rule(weights: &[f32], columns: usize, scheme: QuantScheme) -> QuantizedMatrix {
    let (mut values, mut row_scale, mut multiplier) = (Vec::new(), Vec::new(), Vec::new());
    for row in weights.chunks_exact(columns) {
        let Some(group) = scheme.def().group else {
            let (q, scale) = quantize_row(row);
            values.extend(q);
            row_scale.push(scale);
            continue;
        };
        let steps: Vec<f32> = row
            .chunks(group)
            .map(|group| {
                let largest = group.iter().fold(0f32, |most, &w| if w.abs() > most.abs() { w } else { most });
                largest * -0.125
            })
            .collect();
        let (mut multipliers, scale) = quantize_row(&steps);
        multipliers.iter_mut().filter(|m| **m == 0).for_each(|m| *m = 1);
        for (group, &multiplier) in row.chunks(group).zip(&multipliers) {
            let unit = scale * f32::from(multiplier);
            let inverse = 1.0 / if unit == 0.0 { 1.0 } else { unit };
            values.extend(group.iter().map(|w| (w * inverse).clamp(-8.0, 7.0).round_ties_even() as i8));
        }
        multiplier.extend(multipliers);
        row_scale.push(scale);
    }
    QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier)
}

/// Every matrix by the reference's rule: tables and the head in `embedding`, everything else in `linear`.
pub(crate) fn quantize_model(dense: &Model, linear: QuantScheme, embedding: QuantScheme) -> Model {
    let mut model = dense.clone();
    for (id, _, columns) in dense.spec.matrices() {
        let weights = dense.values_f32(ParameterId::weight(id)).expect("weights read");
        let table = id.role.class() == Class::Embedding || id.role == Role::LmHead;
        let matrix = reference_rule(&weights, columns, if table { embedding } else { linear });
        model.parameters.insert(ParameterId::weight(id), Parameter::Quantized(matrix));
    }
    model
}

pub(crate) fn reference_model(linear: QuantScheme, embedding: QuantScheme) -> Option<Model> {
    let model = open_model(&shared("models/stories260k")?).expect("the checkpoint opens");
    Some(quantize_model(&model, linear, embedding))
}

fn add_key_map(model: &mut Model, key_map: &serde_json::Value) {
    for (layer, maps) in key_map.as_array().expect("one map per layer").iter().enumerate() {
        for (part, name) in KeyMapPart::ALL.into_iter().zip(["mean", "balance", "inverse"]) {
            let heads = maps[name].as_array().expect("one row per head");
            let bits = heads.iter().flat_map(|head| head.as_array().expect("channels"));
            let values: Vec<f32> =
                bits.map(|bits| f32::from_bits(bits.as_u64().expect("a bit pattern") as u32)).collect();
            let tensor = DenseTensor::from_f32(vec![heads.len(), values.len() / heads.len()], &values);
            let tensor = tensor.expect("the shape holds the values");
            model.parameters.insert(ParameterId::KeyMap(layer as u16, part), Parameter::Dense(tensor));
        }
    }
}

/// The artifact of a quantized model, and what it takes of the device.
pub(crate) fn artifact_for(model: &Model, device: &Target) -> (Vec<u8>, Footprint) {
    let text = TextSection { vocabulary: vec![Vec::new(); model.spec.vocabulary], ..TextSection::default() };
    let compiled = compile(model, device, None, &text, &HostSections::default(), &Silent).expect("it compiles");
    (compiled.bytes, compiled.footprint)
}

/// SHA-256 of the logits of all positions, the prompt given in pieces of `piece` tokens.
pub(crate) fn logits_sha256(artifact: &ArtifactView<'_>, tokens: &[u32], piece: usize) -> String {
    let mut memory = SessionMemory::for_artifact(artifact);
    let mut session = Session::new(artifact, kernels(), memory.as_mut_slice()).expect("the memory is the planned one");
    let mut hash = Sha256::new();
    for piece in tokens.chunks(piece) {
        let mut feed = |_: usize, row: &[f32]| row.iter().for_each(|value| hash.update(&value.to_le_bytes()));
        session.run(piece, &mut feed).expect("the prompt runs");
    }
    hash.finish().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn logits_equal_the_reference_bit_for_bit() {
    let vectors = std::fs::read(root("tests/data/numerics/vectors.json")).expect("vectors.json reads");
    let vectors: serde_json::Value = serde_json::from_slice(&vectors).expect("vectors.json parses");
    let stories = &vectors["stories260k"];
    let mut wrong = Vec::new();
    for run in stories["runs"].as_array().expect("runs") {
        let scheme = |key: &str| run[key].as_str().expect("a scheme").parse().expect("a known scheme");
        let Some(mut model) = reference_model(scheme("linear"), scheme("embedding")) else { return };
        if run["key_map"] == true {
            add_key_map(&mut model, &vectors["keymap"]);
        }
        let tokens: Vec<u32> = stories["tokens"][run["sequence"].as_str().expect("a sequence")]
            .as_array()
            .expect("tokens")
            .iter()
            .map(|token| token.as_u64().expect("a token") as u32)
            .collect();
        // Every layout on the short sequence, every way to cut it; the long ones once.
        let short = tokens.len() <= 64;
        for layout in if short { &Layout::ALL[..] } else { &Layout::ALL[..1] } {
            let (bytes, _) = artifact_for(&model, &Target::unlimited("test", *layout));
            let view = ArtifactView::open(&bytes).expect("it reads back");
            view.verify_digests().expect("its digests hold");
            for piece in if short { &[1, 7, 64][..] } else { &[64][..] } {
                let digest = logits_sha256(&view, &tokens, *piece);
                if run["logits_sha256"] != digest.as_str() {
                    wrong.push(format!(
                        "{} {} map {} sequence {} {} pieces of {piece}",
                        run["linear"],
                        run["embedding"],
                        run["key_map"],
                        run["sequence"],
                        layout.name()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}
