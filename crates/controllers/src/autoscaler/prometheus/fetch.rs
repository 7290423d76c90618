//! A page over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use base::budgets::Meter;
use base::connection;
use bytes::Bytes;
use futures::future::join;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// How long a pod may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of a page at most.
const MAX_PAGE: usize = 1 << 20;
/// Connections to pods at the same time, of all autoscalers together.
pub(super) const SOCKETS: usize = 64;

/// Why a page cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::autoscaler) enum FetchError {
    #[error("http://{0}{1}: no answer in time")]
    Late(SocketAddr, String),
    #[error("http://{0}{1}: {2}")]
    Connection(SocketAddr, String, String),
    #[error("http://{0}{1}: no path")]
    Path(SocketAddr, String),
    #[error("http://{0}{1}: status {2}")]
    Status(SocketAddr, String, u16),
    #[error("http://{0}{1}: the page cannot be read, or has more than 1 MiB")]
    Page(SocketAddr, String),
    #[error("http://{0}{1}: the page has too many series for the metrics that are wanted of it")]
    Series(SocketAddr, String),
}

/// The connections that may be open.
pub(super) struct Sockets {
    free: Semaphore,
    meter: Meter,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Self { free: Semaphore::new(SOCKETS), meter: Meter::new("metric_scrapes", SOCKETS) }
    }

    /// GET, when a connection is free.
    pub(super) async fn page(&self, address: SocketAddr, path: &str) -> Result<String, FetchError> {
        // The semaphore is never closed.
        let _permit = self.free.acquire().await;
        let _held = self.meter.hold();
        let late = |_| FetchError::Late(address, path.to_owned());
        tokio::time::timeout(PATIENCE, get(address, path)).await.map_err(late)?
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<String, FetchError> {
    let broken = |why| FetchError::Connection(address, path.to_owned(), why);
    let stream = TcpStream::connect(address).await.map_err(|error| broken(connection::dial(&address.to_string(), &error)))?;
    let failed = |error: hyper::Error| broken(connection::why(&error));
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::ACCEPT, "text/plain;version=0.0.4")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Path(address, path.to_owned()))?;
    // The connection ends when the sender is dropped.
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(FetchError::Status(address, path.to_owned(), response.status().as_u16()));
        }
        let mut body = Limited::new(response.into_body(), MAX_PAGE);
        let mut page = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| FetchError::Page(address, path.to_owned()))?;
            page.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
        }
        Ok(String::from_utf8(page).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    };
    join(driver, exchange).await.1
}
