//! The worker's side: burn's remote server on the flex device, for clients with the token. It is a process of its own, since
//! serving changes how the whole process reads values back.

use super::client::{IDENTIFY, IDENTITY_BYTES};
use super::error::WorkerError;
use super::identity::{Identity, Refusal, Token, admit};
use crate::report::{Report, Table};
use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::server::{AuthorizationRequest, RemoteServer, WebSocketTransport};
use burn::tensor::{Device, TensorData};
use serde::Serialize;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

/// What a worker says of itself when it begins to listen.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerReport {
    /// Where it listens.
    pub address: String,
    /// Version of slmc.
    pub version: String,
    /// Class of its results.
    pub numerics: String,
    /// Backend of its operations.
    pub backend: String,
}

impl Report for WorkerReport {
    const SCHEMA: &'static str = "slmc.worker/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["listens at", &self.address]);
        table.row(["slmc", &self.version]);
        table.row(["numerics", &self.numerics]);
        table.row(["backend", &self.backend]);
        table.to_string()
    }
}

impl WorkerReport {
    /// The report of a worker at an address.
    pub fn of(identity: &Identity, address: SocketAddr) -> Self {
        let Identity { version, numerics, backend } = identity.clone();
        WorkerReport { address: address.to_string(), version, numerics, backend }
    }
}

/// Something that a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who, as its transport names it.
    pub client: String,
    /// Why it is refused, where it is.
    pub refused: Option<Refusal>,
}

/// Listens at HOST:PORT, or at a port of this machine alone; port 0 is one that is free.
///
/// # Errors
/// [`WorkerError::Listen`].
pub fn listen(address: &str) -> Result<(TcpListener, SocketAddr), WorkerError> {
    let failed = |reason: String| WorkerError::Listen { address: address.to_owned(), reason };
    let whole = match address.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => address.to_owned(),
    };
    let named = whole.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let listener =
        TcpListener::bind(named.collect::<Vec<_>>().as_slice()).map_err(|error| failed(error.to_string()))?;
    let bound = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    Ok((listener, bound))
}

/// Serves until the process ends. `asked` is told of every session that a client asks for.
///
/// # Errors
/// [`WorkerError::Serve`].
pub fn serve(
    listener: TcpListener,
    identity: Identity,
    token: Token,
    asked: impl Fn(Asked) + Send + Sync + 'static,
) -> Result<(), WorkerError> {
    let failed = |error: &dyn std::fmt::Display| WorkerError::Serve(error.to_string());
    let mut values = identity.to_string().into_bytes();
    if values.len() > IDENTITY_BYTES {
        return Err(WorkerError::Serve(format!("its identity has more than {IDENTITY_BYTES} bytes")));
    }
    values.resize(IDENTITY_BYTES, 0);
    let values: Vec<f32> = values.into_iter().map(f32::from).collect();
    let admits = move |request: AuthorizationRequest<'_>| {
        let admitted = admit(request.credential.as_bytes(), &identity, &token);
        asked(Asked { client: request.client.to_string(), refused: admitted.clone().err() });
        admitted.map_err(|refusal| refusal.to_string())
    };
    let server = RemoteServer::new([Device::flex()]).with_authorizer(admits).with_custom_op::<Flex, _>(
        IDENTIFY,
        move |handles, operation, device| {
            if let Some(output) = operation.outputs.first() {
                let data = TensorData::new(values.clone(), [IDENTITY_BYTES]);
                handles.register_float_tensor::<Flex>(&output.id, Flex::float_from_data(data, device));
            }
        },
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    let served = runtime.block_on(server.serve_async(WebSocketTransport::from_listener(listener)));
    served.map_err(|error| failed(&error))
}
