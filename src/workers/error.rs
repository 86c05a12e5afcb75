//! Why workers cannot be used, or served.

use super::identity::TOKEN_VARIABLE;

/// Why workers cannot be used, or served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// This build has none.
    #[error("`slmc worker` and --backend remote are not in this build; build slmc with `--features workers`")]
    NotBuilt,
    /// No token.
    #[error(
        "the variable {variable} of the environment holds no token, and whoever reaches a worker may have it compute anything; \
         set it to the same secret where `slmc worker` runs and where it is used, for example one made by `openssl rand -hex 32`"
    )]
    NoToken {
        /// The variable that was read.
        variable: String,
    },
    /// The token is another.
    #[error(
        "worker {address} refuses the token in {TOKEN_VARIABLE}: set it to what it is where that `slmc worker` runs"
    )]
    Token {
        /// The worker.
        address: String,
    },
    /// Nothing answers.
    #[error(
        "worker {address} cannot be reached ({reason}); start `slmc worker --listen {address}` there, or correct the address"
    )]
    Unreachable {
        /// The worker.
        address: String,
        /// As burn says it.
        reason: String,
    },
    /// Another version of burn.
    #[error(
        "worker {address} speaks version {worker} of burn's remote protocol, and this slmc version {own}: install the same \
         slmc on both"
    )]
    Protocol {
        /// The worker.
        address: String,
        /// Its version.
        worker: u16,
        /// This program's.
        own: u16,
    },
    /// Another program.
    #[error(
        "{address} answers, but not as a `slmc worker` ({reason}); correct the address, or install the same slmc there"
    )]
    Foreign {
        /// The address.
        address: String,
        /// What it did.
        reason: String,
    },
    /// A worker whose results would be others.
    #[error("worker {address} has {what} {worker}, and this slmc {own}: {remedy}")]
    Differs {
        /// The worker.
        address: String,
        /// What differs, in words.
        what: &'static str,
        /// Its value.
        worker: String,
        /// This program's.
        own: String,
        /// A way out.
        remedy: &'static str,
    },
    /// No place to listen at.
    #[error(
        "{address}: cannot be listened at ({reason}); pass --listen HOST:PORT with a host of this machine and a free port"
    )]
    Listen {
        /// As asked for.
        address: String,
        /// The system's reason.
        reason: String,
    },
    /// The server ended.
    #[error("the worker cannot serve: {0}")]
    Serve(String),
}
