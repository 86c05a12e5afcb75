//! `model::graph` against the f32 forward, for every golden checkpoint: the linears that the forward computes, in its
//! order, with the widths of their inputs; those of one input read the same values, and values of another come from
//! another.

use crate::support::golden_folders;
use burn::tensor::Tensor;
use slmc::formats::open_model;
use slmc::model::device::device;
use slmc::model::forward::{Batch, DenseWeights, Forward, Observer};
use slmc::model::graph::Graph;
use slmc::model::id::{LinearId, ParameterId};

#[derive(Default)]
struct Inputs(Vec<(LinearId, usize, Vec<f32>)>);

impl Observer for Inputs {
    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        self.0.push((id, input.dims()[1], input.to_data().try_to_vec().expect("f32")));
    }

    fn attention(&mut self, _layer: usize, _query: &Tensor<4>, _key: &Tensor<4>) {}
}

#[test]
fn the_graph_is_what_the_forward_computes() {
    let device = device("flex").expect("a device");
    for folder in golden_folders() {
        let label = folder.display();
        let model = open_model(&folder).expect("a golden checkpoint opens");
        let weights = DenseWeights::new(&model, &device).expect("it has weights");
        let batch = Batch::new(&model.spec, vec![5, 3, 8, 1, 9], 1).expect("its tokens");
        let mut seen = Inputs::default();
        Forward::new(&model.spec, &weights, &device).run(&batch, &mut seen);
        let graph = Graph::new(&model.spec);
        let mut order = Vec::new();
        for input in graph.inputs() {
            order.extend(input.readers.iter().map(|linear| (linear.id, input.width)));
        }
        assert_eq!(order, seen.0.iter().map(|(id, width, _)| (*id, *width)).collect::<Vec<_>>(), "{label}");
        let values = |id: LinearId| &seen.0.iter().find(|(other, ..)| *other == id).expect("the order is the same").2;
        let mut before: Option<&Vec<f32>> = None;
        for input in graph.inputs() {
            let first = values(input.readers[0].id);
            assert!(input.readers.iter().all(|linear| values(linear.id) == first), "{label}: {:?}", input.ids());
            assert!(before != Some(first), "{label}: {:?}", input.ids());
            before = Some(first);
        }
        // Every matrix of the checkpoint is a table or a linear of the graph, with its shape.
        let mut matrices: Vec<ParameterId> = Vec::new();
        for (id, rows, columns) in graph.matrices() {
            let parameter = ParameterId::weight(id);
            let count = model.values_f32(parameter).expect("the checkpoint has it").len();
            assert_eq!(count, rows * columns, "{label}: {id}");
            matrices.push(parameter);
        }
        assert!(matrices.is_sorted(), "{label}: {matrices:?}");
        assert_eq!(graph.groups().concat().len(), matrices.len(), "{label}");
    }
}
