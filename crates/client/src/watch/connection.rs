//! One answer to a watch request, line by line.

use std::io;
use std::pin::Pin;

use futures::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use kube::Client;

/// The longest event: an object may have a few MiB, and grows when it is shown.
const LINE: usize = 64 << 20;
/// What the buffer keeps for the next event.
const KEPT: usize = 256 << 10;

pub(super) struct Connection {
    body: Pin<Box<dyn AsyncBufRead + Send>>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends the request; an answer that is no success is an error.
    pub(super) async fn open(client: &Client, mut request: http::Request<Vec<u8>>) -> kube::Result<Self> {
        // Compressing one event at a time costs both sides more than it saves.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let body = Box::pin(client.request_stream(request).await?);
        Ok(Self { body, buffer: Vec::new() })
    }

    /// The next line; none at the end. What a connection leaves of a line when it breaks counts as its end.
    pub(super) async fn line(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        let mut body = (&mut self.body).take(LINE as u64);
        let length = body.read_until(b'\n', &mut self.buffer).await?;
        if length == LINE {
            return Err(io::Error::other("an event of the watch is too long"));
        }
        if self.buffer.last() != Some(&b'\n') {
            return Ok(None);
        }
        Ok(Some(&self.buffer))
    }
}
