//! The closed schemas of files people write, and what is read from them: targets (devices) so far. Unknown keys are
//! errors with their line and the nearest known name.

pub mod schema;
pub mod target;

pub use schema::{SchemaError, nearest};
pub use target::{Target, TargetError};
