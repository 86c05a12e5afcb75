//! A graph for an engine that lacks some operators: their constant parts computed ahead, from the bytes of the file and by the
//! definitions of ONNX and of onnxruntime's contributed operators alone, so that nothing is shared with the writer.
//!
//! ```text
//! MatMulNBits              MatMul by (q − 2^(bits − 1)) · scale[n, k / block], turned, of 8 bits or with padding
//! GatherBlockQuantized     Gather of (q − 2^(bits − 1)) · scale[v, h / block]
//! DequantizeLinear, int4   q · scale, q of two's complement, the first of a byte below; blocks along `axis`
//! ```

use super::messages::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use std::collections::BTreeMap;

const FLOAT: i32 = 1;
const INT4: i32 = 22;
/// Type of an attribute.
const INT: i32 = 2;

/// The graph without those operators.
pub(crate) fn lowered(mut model: ModelProto) -> ModelProto {
    let graph = model.graph.take().expect("a graph");
    let tensors: BTreeMap<String, TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.clone(), tensor.clone())).collect();
    let makers: BTreeMap<String, NodeProto> =
        graph.node.iter().map(|node| (node.output[0].clone(), node.clone())).collect();
    let mut out = GraphProto { node: Vec::new(), ..graph };
    for mut node in graph.node {
        match node.op_type.as_str() {
            "MatMulNBits" if int(&node, "bits") == Some(8) || has_padding(&node) => {
                let (rows, columns) = (required(&node, "N"), required(&node, "K"));
                let values = blocks(&tensors[&node.input[1]], &tensors[&node.input[2]], &node, rows);
                let width = values.len() / rows;
                let turned = (0..columns).flat_map(|k| (0..rows).map(move |n| n * width + k)).map(|at| values[at]);
                let name = format!("{}.lowered", node.name);
                out.initializer.push(tensor(&name, &[columns, rows], turned.collect()));
                node = NodeProto { op_type: "MatMul".to_owned(), domain: String::new(), attribute: Vec::new(), ..node };
                node.input = vec![node.input[0].clone(), name];
            }
            "GatherBlockQuantized" => {
                // The table itself, or a tensor in another shape.
                let data = tensors.get(&node.input[0]).unwrap_or_else(|| &tensors[&makers[&node.input[0]].input[0]]);
                let (scales, name) = (&tensors[&node.input[2]], format!("{}.lowered", node.name));
                let rows = scales.dims[0] as usize;
                let values = blocks(data, scales, &node, rows);
                out.initializer.push(tensor(&name, &[rows, values.len() / rows], values));
                let along =
                    vec![AttributeProto { name: "axis".to_owned(), i: Some(0), kind: INT, ..Default::default() }];
                node = NodeProto { op_type: "Gather".to_owned(), domain: String::new(), attribute: along, ..node };
                node.input = vec![name, node.input[1].clone()];
            }
            "DequantizeLinear" if tensors[&node.input[0]].data_type == INT4 || int(&node, "block_size").is_some() => {
                let (data, scales) = (&tensors[&node.input[0]], &tensors[&node.input[1]]);
                out.initializer.push(dequantized(&node, data, scales));
                continue;
            }
            _ => {}
        }
        out.node.push(node);
    }
    // What only they have read, and this engine has no type for.
    out.initializer.retain(|tensor| tensor.data_type != INT4);
    model.graph = Some(out);
    model
}

/// Whether the last block of a row is not full, which this engine does not multiply.
fn has_padding(node: &NodeProto) -> bool {
    !required(node, "K").is_multiple_of(required(node, "block_size"))
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name)?.i
}

fn required(node: &NodeProto, name: &str) -> usize {
    int(node, name).unwrap_or_else(|| panic!("{} has {name}", node.name)) as usize
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    assert_eq!(tensor.data_type, FLOAT);
    let bytes = tensor.raw_data.as_ref().expect("raw data");
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn tensor(name: &str, shape: &[usize], values: Vec<f32>) -> TensorProto {
    assert_eq!(values.len(), shape.iter().product::<usize>());
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto {
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: FLOAT,
        name: name.to_owned(),
        raw_data: Some(bytes),
    }
}

/// Rows of unsigned integers in blocks, as numbers; the columns that pad the last block among them.
fn blocks(data: &TensorProto, scales: &TensorProto, node: &NodeProto, rows: usize) -> Vec<f32> {
    let (bits, block) = (required(node, "bits"), required(node, "block_size"));
    let (bytes, scales) = (data.raw_data.as_ref().expect("raw data"), floats(scales));
    let per_byte = 8 / bits;
    let columns = bytes.len() * per_byte / rows;
    let middle = 1i32 << (bits - 1);
    assert_eq!(scales.len(), rows * columns / block, "{}", node.name);
    let value = |index: usize| {
        let stored = bytes[index / per_byte] as u32 >> (bits * (index % per_byte)) & ((1 << bits) - 1);
        let (row, column) = (index / columns, index % columns);
        (stored as i32 - middle) as f32 * scales[row * (columns / block) + column / block]
    };
    (0..rows * columns).map(value).collect()
}

/// A matrix of signed integers as numbers.
fn dequantized(node: &NodeProto, data: &TensorProto, scales: &TensorProto) -> TensorProto {
    let shape: Vec<usize> = data.dims.iter().map(|&size| size as usize).collect();
    let &[outer, inner] = shape.as_slice() else { panic!("{} is a matrix", node.name) };
    let (axis, bytes) = (required(node, "axis"), data.raw_data.as_ref().expect("raw data"));
    let numbers = floats(scales);
    let block = int(node, "block_size").map(|block| block as usize);
    let value = |(row, column): (usize, usize)| {
        let index = row * inner + column;
        let stored = match data.data_type {
            INT4 => ((bytes[index / 2] >> (4 * (index % 2)) << 4) as i8) >> 4,
            _ => bytes[index] as i8,
        };
        let scale = match (block, axis) {
            (None, 0) => numbers[row],
            (None, _) => numbers[column],
            (Some(block), 0) => numbers[row / block * inner + column],
            (Some(block), _) => numbers[row * inner.div_ceil(block) + column / block],
        };
        f32::from(stored) * scale
    };
    let values = (0..outer).flat_map(|row| (0..inner).map(move |column| (row, column))).map(value).collect();
    tensor(&node.output[0], &shape, values)
}
