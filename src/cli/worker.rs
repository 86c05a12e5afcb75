//! `slmc worker`

use super::global::Global;
use crate::shell::{ExitStatus, Shell};
use crate::workers::identity::TOKEN_VARIABLE;

/// Compute the steps of trainings that run on other machines
///
/// Serves this machine's CPU to `slmc train`, `distill`, `prune --recover` and `quantize --qat` with --backend
/// remote:HOST:PORT,…, until it is ended (Ctrl+C). The pieces of a step (--pieces) go to the workers in turn; parameters,
/// data and checkpoints stay where the training runs, and a worker keeps nothing. One, two or four workers of one numerics
/// class give the same bytes. Worker and client must have the same slmc, the same backend and the same class of CPU
/// (`slmc doctor`), which is asked before anything is computed.
///
/// A worker computes whatever a client with the token asks, without bounds on memory or time, and neither the token nor the
/// traffic is encrypted: a token stops stray clients, not someone who reads the traffic. It listens to this machine alone
/// unless --listen says otherwise; between machines, leave it so and reach it through a tunnel.
///
/// This command is in builds with the cargo feature workers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export SLMC_WORKER_TOKEN=$(openssl rand -hex 32)
  slmc worker --listen 127.0.0.1:3000
  slmc --threads 4 worker --listen 3001
  ssh -N -L 3002:127.0.0.1:3000 other-machine

  slmc train DIR --data TEXT --pieces 4 --backend remote:127.0.0.1:3000,127.0.0.1:3002 -o OUT")]
pub(super) struct Args {
    /// Where to listen: HOST:PORT, or a port of this machine alone
    ///
    /// Port 0 takes one that is free; the result says which. An address that other machines reach is used as it is, with a
    /// warning.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: String,

    /// Variable of the environment that holds the token
    ///
    /// A secret that client and worker share. A client reads SLMC_WORKER_TOKEN. It is in no output, file, key or log.
    #[arg(long, value_name = "NAME", default_value = TOKEN_VARIABLE)]
    token_env: String,
}

impl Args {
    #[cfg(not(feature = "workers"))]
    pub(super) fn run(&self, _global: &Global, _shell: &Shell) -> anyhow::Result<ExitStatus> {
        Err(crate::workers::error::WorkerError::NotBuilt.into())
    }

    #[cfg(feature = "workers")]
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        use crate::workers::error::WorkerError;
        use crate::workers::identity::{Identity, Token};
        use crate::workers::server::{Asked, WorkerReport, listen, serve};

        let variable = &self.token_env;
        let no_token = || WorkerError::NoToken { variable: variable.clone() };
        let token = Token::from_variable(variable).ok_or_else(no_token)?;
        let (listener, address) = listen(&self.listen)?;
        if !address.ip().is_loopback() {
            shell.warn(format_args!(
                "{address} is not of this machine alone: token and tensors go over the network without encryption, and whoever \
                 has the token may compute anything here; listen at 127.0.0.1 and use a tunnel"
            ));
        }
        let identity = Identity::own();
        shell.result(&WorkerReport::of(&identity, address))?;
        let messages = global.shell();
        serve(listener, identity, token, move |Asked { client, refused }| match refused {
            Some(refusal) => messages.warn(format_args!("{client} is refused: {refusal}")),
            None => messages.status("Serving", client),
        })?;
        Ok(ExitStatus::Success)
    }
}
