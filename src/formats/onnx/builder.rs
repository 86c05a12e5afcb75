//! A graph under construction: nodes in the order of the computation, the tensors they read, inputs and outputs. Values have
//! names; a node's first output is called as the node. The bytes of a tensor are made when the file is written, one tensor at a
//! time, so that the model is never in memory a second time.

use super::messages::{AttributeProto, DataType, Dimension, NodeProto, ValueInfoProto};
use crate::formats::error::ModelFormatError;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Where operators of onnxruntime are that ONNX does not have.
pub(super) const CONTRIB: &str = "com.microsoft";

/// What the names of numbers begin with that belong to the graph and not to the model.
pub(super) const CONSTANT: &str = "constant.";

/// Makes the bytes of a tensor, little-endian and row-major.
pub(super) type Make<'m> = Box<dyn Fn() -> Result<Cow<'m, [u8]>, ModelFormatError> + 'm>;

/// A tensor of the file.
pub(super) struct Initializer<'m> {
    /// Its name.
    pub(super) name: String,
    /// Format of its values.
    pub(super) data_type: DataType,
    /// Dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    /// Its bytes.
    pub(super) make: Make<'m>,
}

impl Initializer<'_> {
    /// Bytes of its values.
    pub(super) fn bytes(&self) -> usize {
        self.data_type.bytes(self.shape.iter().product())
    }
}

/// A graph under construction.
#[derive(Default)]
pub(super) struct GraphBuilder<'m> {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<Initializer<'m>>,
    pub(super) inputs: Vec<ValueInfoProto>,
    pub(super) outputs: Vec<ValueInfoProto>,
    /// Tensors and values that several nodes read, by their names: each is there once.
    shared: BTreeSet<String>,
}

impl<'m> GraphBuilder<'m> {
    /// An input; returns its name.
    pub(super) fn input(&mut self, name: &str, data_type: DataType, dimensions: &[Dimension]) -> String {
        self.inputs.push(ValueInfoProto::tensor(name, data_type, dimensions));
        name.to_owned()
    }

    /// Makes a value an output under this name, which no node has yet.
    pub(super) fn output(&mut self, name: &str, value: &str, dimensions: &[Dimension]) {
        self.node("Identity", name, &[value], Vec::new());
        self.declare_output(name, dimensions);
    }

    /// Says that a value, which a node makes under its name, is an output, of 32-bit floats.
    pub(super) fn declare_output(&mut self, name: &str, dimensions: &[Dimension]) {
        self.outputs.push(ValueInfoProto::tensor(name, DataType::Float32, dimensions));
    }

    /// A tensor of the file, which is there once however often it is asked for; returns its name.
    pub(super) fn initializer(
        &mut self,
        name: String,
        data_type: DataType,
        shape: Vec<usize>,
        make: impl Fn() -> Result<Cow<'m, [u8]>, ModelFormatError> + 'm,
    ) -> String {
        if self.shared.insert(name.clone()) {
            self.initializers.push(Initializer { name: name.clone(), data_type, shape, make: Box::new(make) });
        }
        name
    }

    /// A node of a standard operator with one output, which is called as the node.
    pub(super) fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.add("", operator, inputs, &[name], attributes);
        name.to_owned()
    }

    /// A node of an operator of onnxruntime; it is called as its first output.
    pub(super) fn contrib(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.add(CONTRIB, operator, inputs, outputs, attributes);
        outputs[0].to_owned()
    }

    /// A node of a standard operator with several outputs.
    pub(super) fn several(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) {
        self.add("", operator, inputs, outputs, attributes);
    }

    fn add(&mut self, domain: &str, operator: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.nodes.push(NodeProto {
            input: names(inputs),
            output: names(outputs),
            name: outputs[0].to_owned(),
            op_type: operator.to_owned(),
            attribute,
            domain: domain.to_owned(),
        });
    }

    /// A name that two of nodes, tensors and inputs have: a graph gives every value once.
    pub(super) fn repeated(&self) -> Option<&str> {
        let inputs = self.inputs.iter().map(|input| &input.name);
        let tensors = self.initializers.iter().map(|tensor| &tensor.name);
        let made = self.nodes.iter().flat_map(|node| &node.output);
        let mut names = BTreeSet::new();
        inputs.chain(tensors).chain(made).find(|name| !names.insert(*name)).map(String::as_str)
    }

    /// The value of a name that one node makes for all who ask: `make` adds it the first time.
    pub(super) fn once(&mut self, name: &str, make: impl FnOnce(&mut Self, &str)) -> String {
        if self.shared.insert(name.to_owned()) {
            make(self, name);
        }
        name.to_owned()
    }

    /// A vector of integers.
    pub(super) fn integers(&mut self, values: &[i64]) -> String {
        let named: Vec<String> = values.iter().map(i64::to_string).collect();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(format!("{CONSTANT}integers.{}", named.join("_")), DataType::Int64, vec![values.len()], bytes)
    }

    /// One integer, without a dimension.
    pub(super) fn integer(&mut self, value: i64) -> String {
        self.constant(format!("{CONSTANT}integer.{value}"), DataType::Int64, Vec::new(), value.to_le_bytes().to_vec())
    }

    /// One number, without a dimension.
    pub(super) fn number(&mut self, value: f32) -> String {
        self.constant(
            format!("{CONSTANT}number.{value:?}"),
            DataType::Float32,
            Vec::new(),
            value.to_le_bytes().to_vec(),
        )
    }

    fn constant(&mut self, name: String, data_type: DataType, shape: Vec<usize>, bytes: Vec<u8>) -> String {
        self.initializer(name, data_type, shape, move || Ok(Cow::Owned(bytes.clone())))
    }

    /// `Cast`.
    pub(super) fn cast(&mut self, name: &str, value: &str, to: DataType) -> String {
        self.node("Cast", name, &[value], vec![AttributeProto::int("to", i64::from(to.number()))])
    }

    /// `Reshape`: 0 keeps a dimension, −1 is what is left.
    pub(super) fn reshape(&mut self, name: &str, value: &str, shape: &[i64]) -> String {
        let shape = self.integers(shape);
        self.node("Reshape", name, &[value, &shape], Vec::new())
    }

    /// `Transpose`.
    pub(super) fn transpose(&mut self, name: &str, value: &str, order: &[i64]) -> String {
        self.node("Transpose", name, &[value], vec![AttributeProto::ints("perm", order)])
    }

    /// `Unsqueeze`.
    pub(super) fn unsqueeze(&mut self, name: &str, value: &str, axes: &[i64]) -> String {
        let axes = self.integers(axes);
        self.node("Unsqueeze", name, &[value, &axes], Vec::new())
    }

    /// `Concat`.
    pub(super) fn concat(&mut self, name: &str, values: &[&str], axis: i64) -> String {
        self.node("Concat", name, values, vec![AttributeProto::int("axis", axis)])
    }

    /// `Gather` of rows.
    pub(super) fn gather(&mut self, name: &str, table: &str, indices: &str) -> String {
        self.node("Gather", name, &[table, indices], vec![AttributeProto::int("axis", 0)])
    }

    /// The size of a value along an axis, without a dimension.
    pub(super) fn size_of(&mut self, name: &str, value: &str, axis: i64) -> String {
        let shape = self.once(&format!("{value}.shape"), |graph, name| {
            graph.node("Shape", name, &[value], Vec::new());
        });
        let axis = self.integer(axis);
        self.gather(name, &shape, &axis)
    }
}
