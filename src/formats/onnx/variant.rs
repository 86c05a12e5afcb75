//! The two ways in which a graph is written: with operators of onnxruntime that multiply integers and keep a cache, or with
//! operators of the ONNX standard alone.

use crate::formats::export::Variant;

/// Which operators a graph has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operators {
    /// Those of onnxruntime too.
    OnnxRuntime,
    /// The standard's alone.
    Standard,
}

/// The ways, the usual one first.
pub(super) const VARIANTS: [Variant; 2] = [
    Variant {
        name: "onnxruntime",
        about: "MatMulNBits, GatherBlockQuantized and GroupQueryAttention, for onnxruntime and onnxruntime-genai",
    },
    Variant { name: "standard", about: "operators of the ONNX standard alone, opset 21, with DequantizeLinear" },
];

impl Operators {
    /// Both, in the order of [`VARIANTS`].
    pub(super) const ALL: [Operators; 2] = [Operators::OnnxRuntime, Operators::Standard];

    /// By the name of a variant; the first where none is asked for.
    pub(super) fn of(variant: Option<&str>) -> Option<Self> {
        let Some(name) = variant else { return Some(Operators::OnnxRuntime) };
        VARIANTS.iter().position(|variant| variant.name == name).map(|index| Operators::ALL[index])
    }

    /// The variant's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Operators::OnnxRuntime => VARIANTS[0].name,
            Operators::Standard => VARIANTS[1].name,
        }
    }
}
