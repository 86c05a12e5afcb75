//! The three ways a command ends, as the process's exit code: CI tells "the answer is no" from "there is no answer".

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// There is a result, and it passes.
    Success = 0,
    /// There is a result, and it does not pass: a gate is missed, the model does not fit the target.
    Failure = 1,
    /// There is no result: bad or damaged input, an infeasible request, wrong usage.
    Error = 2,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        ExitCode::from(status as u8)
    }
}
