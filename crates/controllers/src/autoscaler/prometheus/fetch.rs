//! A page over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a pod may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of a page at most.
const MAX_PAGE: usize = 8 << 20;

/// Why a page cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::autoscaler) enum FetchError {
    #[error("http://{0}{1}: no answer in time")]
    Late(SocketAddr, String),
    #[error("http://{0}{1}: {2}")]
    Connect(SocketAddr, String, std::io::Error),
    #[error("http://{0}{1}: {2}")]
    Http(SocketAddr, String, hyper::Error),
    #[error("http://{0}{1}: no path")]
    Path(SocketAddr, String),
    #[error("http://{0}{1}: status {2}")]
    Status(SocketAddr, String, u16),
    #[error("http://{0}{1}: the page cannot be read, or has more than 8 MiB")]
    Page(SocketAddr, String),
}

/// GET.
pub(super) async fn page(address: SocketAddr, path: &str) -> Result<String, FetchError> {
    let late = |_| FetchError::Late(address, path.to_owned());
    tokio::time::timeout(PATIENCE, get(address, path)).await.map_err(late)?
}

async fn get(address: SocketAddr, path: &str) -> Result<String, FetchError> {
    let stream = TcpStream::connect(address).await.map_err(|error| FetchError::Connect(address, path.to_owned(), error))?;
    let failed = |error| FetchError::Http(address, path.to_owned(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
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
        let body = Limited::new(response.into_body(), MAX_PAGE).collect().await;
        let body = body.map_err(|_| FetchError::Page(address, path.to_owned()))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    join(connection, exchange).await.1
}
