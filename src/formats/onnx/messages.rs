//! The messages of an ONNX file, as far as slmc writes and reads them (`onnx/onnx.proto` of ONNX, IR version 10):
//!
//! ```text
//! ModelProto      1 ir_version    2 producer_name    3 producer_version    7 graph    8 opset_import    14 metadata_props
//! GraphProto      1 node    2 name    5 initializer    11 input    12 output
//! NodeProto       1 input    2 output    3 name    4 op_type    5 attribute    7 domain
//! AttributeProto  1 name    2 f    3 i    4 s    8 ints    20 type
//! TensorProto     1 dims    2 data_type    8 name    9 raw_data    13 external_data    14 data_location
//! ValueInfoProto  1 name    2 type: TypeProto 1 tensor_type: 1 elem_type    2 shape: 1 dim: 1 dim_value or 2 dim_param
//! ```
//!
//! Fields of other numbers are skipped in reading. Every scalar that counts is written even where it is zero, since the
//! readers of ONNX are generated from the older syntax, which tells an absent field from a zero.

use prost::bytes::Bytes;

/// Data types of tensors, as far as slmc has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    Float32,
    Uint8,
    Int8,
    Int32,
    Int64,
    Bool,
    /// Two values a byte, the first in the lower half, two's complement.
    Int4,
}

impl DataType {
    /// As a tensor states it.
    pub(super) fn number(self) -> i32 {
        match self {
            DataType::Float32 => 1,
            DataType::Uint8 => 2,
            DataType::Int8 => 3,
            DataType::Int32 => 6,
            DataType::Int64 => 7,
            DataType::Bool => 9,
            DataType::Int4 => 22,
        }
    }

    /// As messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            DataType::Float32 => "float32",
            DataType::Uint8 => "uint8",
            DataType::Int8 => "int8",
            DataType::Int32 => "int32",
            DataType::Int64 => "int64",
            DataType::Bool => "bool",
            DataType::Int4 => "int4",
        }
    }

    /// Bytes of so many values.
    pub(super) fn bytes(self, values: usize) -> usize {
        match self {
            DataType::Float32 | DataType::Int32 => 4 * values,
            DataType::Uint8 | DataType::Int8 | DataType::Bool => values,
            DataType::Int64 => 8 * values,
            DataType::Int4 => values.div_ceil(2),
        }
    }
}

/// `AttributeProto.AttributeType`.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const INTS: i32 = 7;
/// `TensorProto.DataLocation` of values in another file.
pub(super) const EXTERNAL: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OperatorSetIdProto {
    /// Empty for the standard operators.
    #[prost(string, optional, tag = "1")]
    pub(super) domain: Option<String>,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeProto {
    /// Names of values; an empty one is an input that is left out.
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub(super) domain: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(float, optional, tag = "2")]
    pub(super) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(super) s: Option<Bytes>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub(super) kind: i32,
}

impl AttributeProto {
    fn named(name: &str, kind: i32) -> Self {
        AttributeProto { name: name.to_owned(), kind, ..AttributeProto::default() }
    }

    pub(super) fn float(name: &str, value: f32) -> Self {
        AttributeProto { f: Some(value), ..AttributeProto::named(name, FLOAT) }
    }

    pub(super) fn int(name: &str, value: i64) -> Self {
        AttributeProto { i: Some(value), ..AttributeProto::named(name, INT) }
    }

    /// A size.
    pub(super) fn size(name: &str, value: usize) -> Self {
        AttributeProto::int(name, value as i64)
    }

    pub(super) fn ints(name: &str, values: &[i64]) -> Self {
        AttributeProto { ints: values.to_vec(), ..AttributeProto::named(name, INTS) }
    }

    pub(super) fn text(name: &str, value: &'static str) -> Self {
        AttributeProto { s: Some(Bytes::from_static(value.as_bytes())), ..AttributeProto::named(name, STRING) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(super) raw_data: Option<Bytes>,
    #[prost(message, repeated, tag = "13")]
    pub(super) external_data: Vec<StringStringEntryProto>,
    #[prost(int32, optional, tag = "14")]
    pub(super) data_location: Option<i32>,
}

/// Number of [`TensorProto::raw_data`], which is written in pieces.
pub(super) const RAW_DATA: u32 = 9;
/// Number of [`GraphProto::initializer`].
pub(super) const INITIALIZER: u32 = 5;
/// Number of [`ModelProto::graph`].
pub(super) const GRAPH: u32 = 7;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

impl StringStringEntryProto {
    pub(super) fn new(key: &str, value: String) -> Self {
        StringStringEntryProto { key: key.to_owned(), value }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<DimensionProto>,
}

/// One of the two.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    pub(super) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) dim_param: Option<String>,
}

/// A dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dimension {
    /// Always so many.
    Fixed(usize),
    /// As many as there are, by this name.
    Named(&'static str),
}

impl ValueInfoProto {
    /// A tensor.
    pub(super) fn tensor(name: &str, data_type: DataType, dimensions: &[Dimension]) -> Self {
        let dimension = |dimension: &Dimension| match dimension {
            Dimension::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
            Dimension::Named(name) => DimensionProto { dim_value: None, dim_param: Some((*name).to_owned()) },
        };
        let shape = TensorShapeProto { dim: dimensions.iter().map(dimension).collect() };
        let tensor_type = TensorTypeProto { elem_type: data_type.number(), shape: Some(shape) };
        ValueInfoProto { name: name.to_owned(), kind: Some(TypeProto { tensor_type: Some(tensor_type) }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn messages_have_the_bytes_of_the_format() {
        // `SerializeToString().hex()` of what onnx.helper of onnx 1.23.2 makes with the same arguments.
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let input = ValueInfoProto::tensor("x", DataType::Int64, &[Dimension::Named("b"), Dimension::Fixed(2)]);
        let cases = [
            (AttributeProto::int("axis", 0).encode_to_vec(), "0a04617869731800a00102"),
            (AttributeProto::int("axis", -1).encode_to_vec(), "0a046178697318ffffffffffffffffff01a00102"),
            (AttributeProto::ints("perm", &[0, 2, 1]).encode_to_vec(), "0a047065726d400040024001a00107"),
            (AttributeProto::float("epsilon", 1e-5).encode_to_vec(), "0a07657073696c6f6e15acc52737a00101"),
            (
                AttributeProto::text("approximate", "tanh").encode_to_vec(),
                "0a0b617070726f78696d617465220474616e68a00103",
            ),
            (input.encode_to_vec(), "0a0178120f0a0d080712090a031201620a020802"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(hex(bytes), expected);
        }
    }
}
