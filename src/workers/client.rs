//! Connections to workers, each asked who it is before anything is computed: by an operation of slmc's own on burn's
//! connection, since its protocol says nothing of the program, the backend or the class of the machine.

use super::error::WorkerError;
use super::identity::{Difference, Identity, TOKEN_VARIABLE, Token};
use super::pool::Workers;
use burn::backend::ir::{CustomOpIr, TensorIr};
use burn::backend::{DispatchDevice, Remote};
use burn::remote::{ConnectError, CustomOpClient, RemoteHost};
use burn::tensor::{DType, Device, Shape, Tensor};

/// Name of the operation that says who a worker is.
pub(super) const IDENTIFY: &str = "slmc.identify";
/// Values of its output: bytes of the identity, then zeros.
pub(super) const IDENTITY_BYTES: usize = 256;

/// Connects to every worker.
///
/// # Errors
/// [`WorkerError`].
pub(super) fn connect(addresses: &[String], connecting: &dyn Fn(&str)) -> Result<Workers, WorkerError> {
    let no_token = || WorkerError::NoToken { variable: TOKEN_VARIABLE.to_owned() };
    let token = Token::from_variable(TOKEN_VARIABLE).ok_or_else(no_token)?;
    let own = Identity::own();
    let mut devices = Vec::new();
    for address in addresses {
        connecting(address);
        let worker = identity(&device(address, &token.to_ask())?, address)?;
        if let Some(Difference { what, own, other, remedy }) = own.difference(&worker) {
            return Err(WorkerError::Differs { address: address.clone(), what, worker: other, own, remedy });
        }
        devices.push((address.clone(), device(address, &token.to_compute(&own))?));
    }
    Ok(Workers::new(devices))
}

/// The device of a worker, with an open session.
fn device(address: &str, credential: &str) -> Result<Device, WorkerError> {
    let host = RemoteHost::websocket(&format!("ws://{address}")).with_credential(credential);
    Device::remote_options(&host).init().map_err(|error| fault(address.to_owned(), error))
}

fn fault(address: String, error: ConnectError) -> WorkerError {
    match error {
        ConnectError::Unauthorized => WorkerError::Token { address },
        ConnectError::IncompatibleProtocol { client_version, server_version } => {
            WorkerError::Protocol { address, worker: server_version, own: client_version }
        }
        ConnectError::Unreachable { reason } => WorkerError::Unreachable { address, reason },
        ConnectError::NoAddress | ConnectError::Interrupted | ConnectError::Bind { .. } => {
            WorkerError::Unreachable { address, reason: error.to_string() }
        }
        other => WorkerError::Foreign { address, reason: other.to_string() },
    }
}

/// Who a worker is.
fn identity(device: &Device, address: &str) -> Result<Identity, WorkerError> {
    let foreign = |reason: &str| WorkerError::Foreign { address: address.to_owned(), reason: reason.to_owned() };
    let DispatchDevice::Remote(remote) = device.as_dispatch() else {
        return Err(foreign("it is a device of this process"));
    };
    let client = CustomOpClient::new(remote);
    let output = TensorIr::uninit(client.create_empty_handle(), Shape::new([IDENTITY_BYTES]), DType::F32);
    let output = client.register(CustomOpIr::new(IDENTIFY, &[], &[output])).into_iter().next();
    let output = output.ok_or_else(|| foreign("it names itself with nothing"))?;
    // Another server of burn's has no such operation, and ends the session.
    let data = Tensor::<1>::from_primitive::<Remote>(output).try_into_data();
    let values = data.ok().and_then(|data| data.try_to_vec::<f32>().ok());
    let values = values.ok_or_else(|| foreign("it cannot say which slmc it is"))?;
    let bytes: Vec<u8> = values.iter().take_while(|value| **value != 0.0).map(|value| *value as u8).collect();
    let text = String::from_utf8(bytes).unwrap_or_default();
    Identity::parse(&text).ok_or_else(|| foreign("it says of itself what this slmc cannot read"))
}
