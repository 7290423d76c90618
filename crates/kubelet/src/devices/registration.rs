//! The socket `kubelet.sock` in the directory `device-plugins`, at which plugins register.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use csi::devices::{Empty, REGISTER, RegisterRequest};
use grpc::{Code, Error};
use grpc::{Endpoint, server};
use prost::Message;
use tokio::net::UnixListener;

use super::plugin;
use crate::context::Context;

/// A connection is for one registration.
const LIFE: Duration = Duration::from_secs(60);

struct Registration(Arc<Context>);

impl server::Service for Registration {
    async fn call(&self, method: &str, message: Bytes) -> Result<Vec<u8>, Error> {
        if method != REGISTER {
            return Err(server::unimplemented(method));
        }
        let request: RegisterRequest = server::decode(message)?;
        let refused = |message: String| {
            tracing::warn!(resource = request.resource_name, error = message, "a device plugin is refused");
            Error { code: Code::InvalidArgument, message }
        };
        if !is_below(Path::new(&request.endpoint)) {
            return Err(refused(format!("the endpoint {:?} is no path below the directory of device plugins", request.endpoint)));
        }
        let socket = self.0.devices.directory.join(&request.endpoint);
        let endpoint = Endpoint::new(&socket.display().to_string());
        let attached = plugin::attach(&self.0, &request.resource_name, [request.version.as_str()], endpoint);
        attached.map_err(|error| refused(error.to_string()))?;
        Ok(Empty {}.encode_to_vec())
    }
}

fn is_below(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Serves registrations. That the socket is a new one tells plugins of an earlier kubelet that they have to register again.
pub async fn run(cx: Arc<Context>) -> Result<(), io::Error> {
    let directory = cx.devices.directory.clone();
    tokio::fs::create_dir_all(&directory).await?;
    tokio::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o750)).await?;
    remove_sockets(&directory)?;
    let listener = UnixListener::bind(directory.join("kubelet.sock"))?;
    match server::serve(listener, Arc::new(Registration(cx)), server::Limits::few(LIFE)).await {}
}

/// Removes what an earlier kubelet and its plugins have left.
fn remove_sockets(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_plugins_are_below_the_directory() {
        for (path, expected) in [("p.sock", true), ("a/p.sock", true), ("", false), ("../p.sock", false), ("/p.sock", false)] {
            assert_eq!(is_below(Path::new(path)), expected, "{path}");
        }
    }
}
