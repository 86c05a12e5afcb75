//! The losses of training, each a row of one table, with a weight that may change over the run.
//!
//! | module | contents |
//! |---|---|
//! | [`table`] | the losses: names, options, what they compare; weights and settings of a run; values of a step |
//! | [`schedule`] | a weight over the steps of a run |
//! | `plain` | the losses by burn's own operations |

pub(super) mod plain;
pub mod schedule;
pub mod table;
