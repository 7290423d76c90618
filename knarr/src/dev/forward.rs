//! Ports of this machine's loopback that nodes reach at their own, such as that of a registry of images.

use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use base::tasks::{OnFailure, Tasks};
use network::hosts;
use tokio::net::TcpStream;

/// Listens in the namespace at `path`, and connects what comes with the same port here.
pub(super) fn start(path: &Path, port: u16, tasks: &Tasks) -> Result<()> {
    let address = (Ipv4Addr::LOCALHOST, port);
    let bound = hosts::within(path, move || TcpListener::bind(address))?;
    let listener = bound.with_context(|| format!("port {port} of a node"))?;
    listener.set_nonblocking(true)?;
    let serve = serve(tokio::net::TcpListener::from_std(listener)?, port, tasks.clone());
    tasks.spawn_until_cancelled(format!("forwarding of port {port}"), OnFailure::Log, serve);
    Ok(())
}

async fn serve(listener: tokio::net::TcpListener, port: u16, tasks: Tasks) -> std::io::Result<()> {
    loop {
        let (inside, _) = listener.accept().await?;
        tasks.spawn_until_cancelled("forwarded connection", OnFailure::Log, async move {
            // Refused: the connection closes, as with a port on which nobody listens.
            if let Ok(outside) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                streaming::join::splice(inside, outside).await;
            }
            Ok::<_, Infallible>(())
        });
    }
}
