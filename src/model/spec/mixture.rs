//! A mixture of experts: a feed-forward network whose inner channels belong to experts, of which every token has few. A router
//! scores the experts; those with the highest scores are chosen, of equal ones the lower, and the softmax of their scores alone
//! is what their channels are multiplied with:
//!
//! ```text
//! y = down · (c(x) · act(gate x) · up x),   c(x)[e] = softmax of the chosen scores of router x, 0 for the experts not chosen
//! ```
//!
//! Experts of width I are I channels after one another, so that matrices, masks, calibration and training know no experts:
//! a channel of one that is not chosen is zero. Only what executes the model reads less.

/// The experts of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixture {
    /// How many there are; divides the width of the network.
    pub experts: usize,
    /// Those that a token has: at least one, at most all.
    pub chosen: usize,
}

impl Mixture {
    /// Of `total` of something that experts have alike, what one token meets.
    pub fn active(self, total: u64) -> u64 {
        total / self.experts as u64 * self.chosen as u64
    }
}
