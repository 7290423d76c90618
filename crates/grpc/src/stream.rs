//! The messages of an answer that goes on, one after another.

use std::marker::PhantomData;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use crate::{ANSWER, Connection, Error, PREFIX, Sender, judge};

/// An answer of messages. Dropping it ends the call.
pub struct Messages<B> {
    early: HeaderMap,
    body: Incoming,
    /// What has been read of the next message.
    read: BytesMut,
    /// The connection is driven here, not by a task of its own, until it ends.
    connection: Option<Pin<Box<Connection>>>,
    /// The connection would end without it.
    _sender: Sender,
    kind: PhantomData<fn() -> B>,
}

impl<B: Message + Default> Messages<B> {
    pub(crate) fn new(response: Response<Incoming>, sender: Sender, connection: Pin<Box<Connection>>) -> Self {
        let (head, body) = response.into_parts();
        let (read, connection) = (BytesMut::new(), Some(connection));
        Self { early: head.headers, body, read, connection, _sender: sender, kind: PhantomData }
    }

    /// The next message; none when the other side has ended the answer.
    ///
    /// # Errors
    /// The connection is lost, the answer ends with an error, or a message has more than 4 MiB.
    pub async fn next(&mut self) -> Result<Option<B>, Error> {
        loop {
            if let Some(message) = self.take()? {
                let decoded = B::decode(message);
                return decoded.map(Some).map_err(|error| Error::unknown(&format!("a message of the answer: {error}")));
            }
            let frame = match &mut self.connection {
                None => self.body.frame().await,
                Some(connection) => tokio::select! {
                    frame = self.body.frame() => frame,
                    _ = connection => {
                        self.connection = None;
                        continue;
                    }
                },
            };
            let Some(frame) = frame else { return judge(&self.early, None).map(|()| None) };
            match frame.map_err(Error::unavailable)?.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => return judge(&self.early, frame.trailers_ref()).map(|()| None),
            }
        }
    }

    /// A whole message of what has been read, without what stands before it.
    fn take(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(prefix) = self.read.get(..PREFIX) else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(Error::unknown("the answer is compressed, which nobody asked for"));
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if length > ANSWER {
            return Err(Error::unknown("a message of the answer has more than 4 MiB"));
        }
        if self.read.len() < PREFIX + length {
            return Ok(None);
        }
        self.read.advance(PREFIX);
        Ok(Some(self.read.split_to(length).freeze()))
    }
}
