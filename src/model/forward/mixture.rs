//! What the channels of a mixture's experts are multiplied with ([`crate::model::spec::Mixture`]), by burn's operations.
//! Experts are chosen by their scores, and the choice has no gradient; the softmax of the chosen scores has. On flex it is one operation with the product, [`slm_fused::mixture`].

use crate::model::spec::Mixture;
use burn::tensor::{Tensor, TensorData, activation};
use slm_fused::mixture::choose;

/// Shares of inner channels, (batch, length, width), from scores (batch, length, experts).
pub(super) fn shares(scores: Tensor<3>, mixture: Mixture, width: usize) -> Tensor<3> {
    let [batch, length, experts] = scores.dims();
    let mut hidden = vec![f32::NEG_INFINITY; batch * length * experts];
    let values = scores.to_data().convert::<f32>();
    let rows = values.as_slice::<f32>().unwrap_or_else(|_| unreachable!("the data were converted"));
    for (row, hidden) in rows.chunks_exact(experts).zip(hidden.chunks_exact_mut(experts)) {
        choose(row, mixture.chosen).into_iter().for_each(|expert| hidden[expert] = 0.0);
    }
    let hidden = Tensor::from_data(TensorData::new(hidden, [batch, length, experts]), &scores.device());
    let shares = activation::softmax(scores + hidden, 2);
    let of_one = width / experts;
    shares.unsqueeze_dim::<4>(3).expand([batch, length, experts, of_one]).reshape([batch, length, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::device;

    #[test]
    fn shares_are_those_of_the_chosen_experts_and_the_lower_of_equals_is_chosen() {
        let scores = [1.0f32, 3.0, 3.0, 3.0, 0.0, 2.0, -1.0, 2.0];
        let tensor = Tensor::<3>::from_data(TensorData::new(scores.to_vec(), [1, 2, 4]), &device("flex").unwrap());
        let shares = shares(tensor, Mixture { experts: 4, chosen: 2 }, 8).to_data().try_to_vec::<f32>().unwrap();
        let half = 0.5;
        assert_eq!(shares[..8], [0.0, 0.0, half, half, half, half, 0.0, 0.0]);
        assert_eq!(shares[8..], [0.0, 0.0, half, half, 0.0, 0.0, half, half]);
    }
}
