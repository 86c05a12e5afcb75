//! What graphs are made of: matrices that are multiplied or looked up, norms, functions, layers. How matrices stand in the file
//! is [`super::layout`]'s; here are the nodes that read them.

use super::builder::GraphBuilder;
use super::layout::{Order, PartLayout, parts};
use super::messages::{AttributeProto, DataType};
use super::variant::Operators;
use crate::disk::{DenseTensor, DenseType};
use crate::formats::error::ModelFormatError;
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::quantized::QuantizedMatrix;
use crate::model::spec::{Activation, ModelSpec, Norm, NormKind, RotarySpec};
use crate::model::weights::{Model, ModelError, Parameter};
use std::borrow::Cow;

/// Sums in 32-bit floats of inputs that are not rounded: the default of some versions rounds them to 8 bits.
const ACCURACY_F32: i64 = 1;

/// A graph under construction and the model that it is of.
pub(super) struct Composer<'m> {
    pub(super) model: &'m Model,
    pub(super) operators: Operators,
    pub(super) graph: GraphBuilder<'m>,
    /// Rotations that have tables, with the width of their heads.
    pub(super) rotations: Vec<(RotarySpec, usize)>,
}

impl<'m> Composer<'m> {
    pub(super) fn new(model: &'m Model, operators: Operators) -> Self {
        Composer { model, operators, graph: GraphBuilder::default(), rotations: Vec::new() }
    }

    pub(super) fn spec(&self) -> &'m ModelSpec {
        &self.model.spec
    }

    fn parameter(&self, id: ParameterId) -> Result<&'m Parameter, ModelFormatError> {
        self.model.parameters.get(&id).ok_or(ModelFormatError::MissingParameter(id))
    }

    /// A vector of the model, under its own name.
    fn vector(&mut self, id: ParameterId) -> Result<String, ModelFormatError> {
        match self.parameter(id)? {
            Parameter::Dense(tensor) => Ok(self.dense(id, tensor)),
            Parameter::Quantized(_) => Err(ModelError::Quantized(id).into()),
        }
    }

    /// Floating-point values in f32, under their own name.
    fn dense(&mut self, id: ParameterId, tensor: &'m DenseTensor) -> String {
        self.graph.initializer(id.to_string(), DataType::Float32, tensor.shape().to_vec(), move || {
            Ok(Cow::Owned(DenseType::F32.encode(&tensor.to_f32(&id.to_string())?)))
        })
    }

    /// The parts of a quantized matrix.
    fn parts(&self, id: LinearId, matrix: &QuantizedMatrix) -> Vec<PartLayout> {
        parts(self.spec(), id, matrix.scheme, matrix.values.dim(), self.operators)
    }

    /// Integers and scales of a part.
    fn stored(&mut self, part: &PartLayout, matrix: &'m QuantizedMatrix) -> [String; 2] {
        let (of_values, of_scales) = (part.clone(), part.clone());
        let values = self.graph.initializer(part.values_name(), part.data_type(), part.values_shape(), move || {
            Ok(Cow::Owned(of_values.encode_values(matrix)))
        });
        let scales = self.graph.initializer(part.scales_name(), DataType::Float32, part.scales_shape(), move || {
            Ok(Cow::Owned(of_scales.encode_scales(matrix)))
        });
        [values, scales]
    }

    /// input · weightᵀ + bias over the last dimension; called as the linear.
    pub(super) fn linear(&mut self, id: LinearId, input: &str) -> Result<String, ModelFormatError> {
        self.linear_as(id, input, &id.to_string())
    }

    /// The same by another name.
    pub(super) fn linear_as(&mut self, id: LinearId, input: &str, name: &str) -> Result<String, ModelFormatError> {
        let tied = id.role == Role::LmHead && self.spec().tied_head();
        let weight = if tied { LinearId::global(Role::TokenEmbedding) } else { id };
        let biased = self.spec().has_bias(id);
        let product = if biased { format!("{id}.product") } else { name.to_owned() };
        match self.parameter(ParameterId::weight(weight))? {
            Parameter::Dense(tensor) => {
                let values = self.dense(ParameterId::weight(weight), tensor);
                let turned = self.graph.once(&format!("{values}.transposed"), |graph, name| {
                    graph.transpose(name, &values, &[1, 0]);
                });
                self.graph.node("MatMul", &product, &[input, &turned], Vec::new());
            }
            Parameter::Quantized(matrix) => {
                let parts = self.parts(weight, matrix);
                match parts.as_slice() {
                    [part] => self.product(part, matrix, input, &product),
                    parts => {
                        let mut products = Vec::new();
                        for (index, part) in parts.iter().enumerate() {
                            let name = format!("{id}.product{index}");
                            self.product(part, matrix, input, &name);
                            products.push(name);
                        }
                        let products: Vec<&str> = products.iter().map(String::as_str).collect();
                        self.graph.concat(&product, &products, -1);
                    }
                }
            }
        }
        if biased {
            let bias = self.vector(ParameterId::bias(id))?;
            self.graph.node("Add", name, &[&product, &bias], Vec::new());
        }
        Ok(name.to_owned())
    }

    /// input · (integers · scales)ᵀ of a part.
    fn product(&mut self, part: &PartLayout, matrix: &'m QuantizedMatrix, input: &str, name: &str) {
        let [values, scales] = self.stored(part, matrix);
        match part.order {
            Order::Blocked | Order::Table => {
                let attributes = vec![
                    AttributeProto::size("K", part.columns),
                    AttributeProto::size("N", part.rows.len()),
                    AttributeProto::size("bits", part.bits),
                    AttributeProto::size("block_size", part.block()),
                    AttributeProto::int("accuracy_level", ACCURACY_F32),
                ];
                self.graph.contrib("MatMulNBits", &[input, &values, &scales], &[name], attributes);
            }
            Order::Columns => {
                let weights = self.dequantized(part, [&values, &scales]);
                self.graph.node("MatMul", name, &[input, &weights], Vec::new());
            }
            Order::Rows => {
                let weights = self.dequantized(part, [&values, &scales]);
                let turned = self.graph.once(&format!("{weights}.transposed"), |graph, name| {
                    graph.transpose(name, &weights, &[1, 0]);
                });
                self.graph.node("MatMul", name, &[input, &turned], Vec::new());
            }
        }
    }

    /// Integers times scales by `DequantizeLinear`, once for all who read them.
    fn dequantized(&mut self, part: &PartLayout, [values, scales]: [&str; 2]) -> String {
        // One scale a row goes along the rows, blocks along the columns.
        let axis = i64::from((part.order == Order::Columns) != part.is_blocked());
        let mut attributes = vec![AttributeProto::int("axis", axis)];
        attributes.extend(part.is_blocked().then(|| AttributeProto::size("block_size", part.block())));
        self.graph.once(&format!("{}.dequantized", part.stem), |graph, name| {
            graph.node("DequantizeLinear", name, &[values, scales], attributes);
        })
    }

    /// Rows of a table by their numbers; called as the table.
    pub(super) fn lookup(&mut self, table: LinearId, ids: &str) -> Result<String, ModelFormatError> {
        let name = format!("{table}.rows");
        match self.parameter(ParameterId::weight(table))? {
            Parameter::Dense(tensor) => {
                let values = self.dense(ParameterId::weight(table), tensor);
                Ok(self.graph.gather(&name, &values, ids))
            }
            Parameter::Quantized(matrix) => match self.parts(table, matrix).as_slice() {
                [part] => Ok(self.lookup_part(part, matrix, ids, &name)),
                // The scheme of a table in two parts has its frequent rows first.
                [first, rest] => Ok(self.lookup_split([first, rest], matrix, ids, &name)),
                _ => Err(ModelFormatError::MissingParameter(ParameterId::weight(table))),
            },
        }
    }

    /// Rows of a table whose first rows have another scheme: looked up in both parts, and the right one taken.
    fn lookup_split(
        &mut self,
        [first, rest]: [&PartLayout; 2],
        matrix: &'m QuantizedMatrix,
        ids: &str,
        name: &str,
    ) -> String {
        let (last, start) = (self.graph.integer(first.rows.end as i64 - 1), self.graph.integer(rest.rows.start as i64));
        let nothing = self.graph.integer(0);
        let in_first = self.graph.node("Min", &format!("{name}.in_first"), &[ids, &last], Vec::new());
        let beyond = self.graph.node("Sub", &format!("{name}.beyond"), &[ids, &start], Vec::new());
        let in_rest = self.graph.node("Max", &format!("{name}.in_rest"), &[&beyond, &nothing], Vec::new());
        let of_first = self.lookup_part(first, matrix, &in_first, &format!("{name}.first"));
        let of_rest = self.lookup_part(rest, matrix, &in_rest, &format!("{name}.rest"));
        let is_first = self.graph.node("Less", &format!("{name}.is_first"), &[ids, &start], Vec::new());
        let is_first = self.graph.unsqueeze(&format!("{name}.chosen"), &is_first, &[-1]);
        self.graph.node("Where", name, &[&is_first, &of_first, &of_rest], Vec::new())
    }

    fn lookup_part(&mut self, part: &PartLayout, matrix: &'m QuantizedMatrix, ids: &str, name: &str) -> String {
        let [values, scales] = self.stored(part, matrix);
        let whole = part.stored_columns() == part.columns;
        let looked_up = if whole { name.to_owned() } else { format!("{name}.padded") };
        match part.order {
            Order::Blocked | Order::Table => {
                let data = match part.order {
                    // The tensor that is multiplied too, seen as a table.
                    Order::Blocked => self.graph.once(&format!("{values}.table"), |graph, name| {
                        graph.reshape(name, &values, &[0, -1]);
                    }),
                    _ => values,
                };
                let attributes = vec![
                    AttributeProto::size("bits", part.bits),
                    AttributeProto::size("block_size", part.block()),
                    AttributeProto::int("gather_axis", 0),
                    AttributeProto::int("quantize_axis", 1),
                ];
                self.graph.contrib("GatherBlockQuantized", &[&data, ids, &scales], &[&looked_up], attributes);
                if !whole {
                    let [start, end, axis] = [0, part.columns as i64, -1].map(|bound| self.graph.integers(&[bound]));
                    self.graph.node("Slice", name, &[&looked_up, &start, &end, &axis], Vec::new());
                }
                name.to_owned()
            }
            // Rows of bytes can be taken out; rows of half bytes only once they are numbers.
            Order::Columns | Order::Rows if part.bits == 8 => {
                let rows = self.graph.gather(&format!("{name}.integers"), &values, ids);
                let rows = self.graph.cast(&format!("{name}.numbers"), &rows, DataType::Float32);
                let scales = self.graph.gather(&format!("{name}.scale"), &scales, ids);
                let scales = self.graph.unsqueeze(&format!("{name}.scales"), &scales, &[-1]);
                self.graph.node("Mul", name, &[&rows, &scales], Vec::new())
            }
            Order::Columns | Order::Rows => {
                let weights = self.dequantized(part, [&values, &scales]);
                self.graph.gather(name, &weights, ids)
            }
        }
    }

    /// A norm over the last dimension; called as the norm.
    pub(super) fn norm(
        &mut self,
        norm: Norm,
        layer: Option<u16>,
        site: NormSite,
        input: &str,
    ) -> Result<String, ModelFormatError> {
        let weight_id = ParameterId::Norm(layer, site, Part::Weight);
        let mut weight = self.vector(weight_id)?;
        let name = weight.trim_end_matches(".weight").to_owned();
        let epsilon = norm.epsilon as f32;
        if norm.kind == NormKind::RmsOnePlus {
            let one = self.graph.number(1.0);
            weight = self.graph.once(&format!("{weight}.plus_one"), |graph, name| {
                graph.node("Add", name, &[&weight, &one], Vec::new());
            });
        }
        if norm.kind == NormKind::Layer {
            let bias = self.vector(ParameterId::Norm(layer, site, Part::Bias))?;
            let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon)];
            return Ok(self.graph.node("LayerNormalization", &name, &[input, &weight, &bias], attributes));
        }
        match self.operators {
            // An operator of onnxruntime's in the domain of the standard.
            Operators::OnnxRuntime => {
                let attributes = vec![
                    AttributeProto::int("axis", -1),
                    AttributeProto::float("epsilon", epsilon),
                    AttributeProto::int("stash_type", 1),
                ];
                Ok(self.graph.node("SimplifiedLayerNormalization", &name, &[input, &weight], attributes))
            }
            // As runtimes find it to make one operator of it.
            Operators::Standard => {
                let (two, epsilon, last) =
                    (self.graph.number(2.0), self.graph.number(epsilon), self.graph.integers(&[-1]));
                let square = self.graph.node("Pow", &format!("{name}.square"), &[input, &two], Vec::new());
                let mean = vec![AttributeProto::int("keepdims", 1)];
                let mean = self.graph.node("ReduceMean", &format!("{name}.mean"), &[&square, &last], mean);
                let sum = self.graph.node("Add", &format!("{name}.sum"), &[&mean, &epsilon], Vec::new());
                let root = self.graph.node("Sqrt", &format!("{name}.root"), &[&sum], Vec::new());
                let ratio = self.graph.node("Div", &format!("{name}.ratio"), &[input, &root], Vec::new());
                Ok(self.graph.node("Mul", &name, &[&ratio, &weight], Vec::new()))
            }
        }
    }

    /// One of the element-wise functions.
    pub(super) fn activate(&mut self, activation: Activation, input: &str, name: &str) -> String {
        let gelu = |approximate| vec![AttributeProto::text("approximate", approximate)];
        match activation {
            Activation::Silu => {
                let sigmoid = self.graph.node("Sigmoid", &format!("{name}.sigmoid"), &[input], Vec::new());
                self.graph.node("Mul", name, &[input, &sigmoid], Vec::new())
            }
            Activation::Gelu => self.graph.node("Gelu", name, &[input], gelu("none")),
            Activation::GeluTanh => self.graph.node("Gelu", name, &[input], gelu("tanh")),
            Activation::Relu => self.graph.node("Relu", name, &[input], Vec::new()),
        }
    }

    /// a + b
    pub(super) fn sum(&mut self, name: &str, a: &str, b: &str) -> String {
        self.graph.node("Add", name, &[a, b], Vec::new())
    }
}
