//! A client that keeps one connection for all its calls, and opens it again when it broke.

use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use prost::Message;
use tokio::sync::Mutex;

use crate::{Code, Endpoint, Error, Sender, frame, judge, message_of, post};

/// One connection to an endpoint, shared by all calls. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    endpoint: Endpoint,
    /// Most bytes of an answer.
    answer: usize,
    sender: Arc<Mutex<Option<Sender>>>,
    /// The connection is driven there.
    tasks: Tasks,
}

impl Channel {
    /// Connects with the first call. Answers have at most `answer` bytes.
    pub fn new(endpoint: Endpoint, answer: usize, tasks: Tasks) -> Self {
        Self { endpoint, answer, sender: Arc::default(), tasks }
    }

    /// Calls `method`, such as `/runtime.v1.RuntimeService/Version`.
    ///
    /// # Errors
    /// Nobody answers in time, or the answer is an error.
    pub async fn call<A: Message, B: Message + Default>(&self, method: &str, request: &A, limit: Duration) -> Result<B, Error> {
        match tokio::time::timeout(limit, self.exchange(method, frame(request))).await {
            Ok(answer) => B::decode(answer?).map_err(|error| Error::unknown(&format!("the answer to {method}: {error}"))),
            Err(_) => Err(Error { code: Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() }),
        }
    }

    async fn exchange(&self, method: &str, message: Bytes) -> Result<Bytes, Error> {
        let mut again = true;
        let response = loop {
            let sent = self.sender().await?.send_request(post(method, message.clone())?).await;
            match sent {
                // The connection has ended before the request was sent: it is safe to send it by another.
                Err(error) if error.is_canceled() && again => again = false,
                sent => break sent.map_err(Error::unavailable)?,
            }
        };
        let early = response.headers().clone();
        let body = Limited::new(response.into_body(), self.answer).collect().await.map_err(Error::unavailable)?;
        judge(&early, body.trailers())?;
        message_of(body.to_bytes())
    }

    async fn sender(&self) -> Result<Sender, Error> {
        let mut held = self.sender.lock().await;
        if let Some(sender) = held.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let (sender, connection) = self.endpoint.connect().await?;
        self.tasks.spawn_until_cancelled(format!("connection to {}", self.endpoint.path().display()), OnFailure::Log, connection);
        *held = Some(sender.clone());
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::UnixListener;

    use super::*;
    use crate::server::{Service, decode, serve};

    struct Count(AtomicUsize);

    impl Service for Count {
        async fn call(&self, _: &str, message: Bytes) -> Result<Vec<u8>, Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(decode::<String>(message)?.encode_to_vec())
        }
    }

    /// A server that is replaced is found again, and calls side by side share what there is.
    #[tokio::test]
    async fn a_broken_connection_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let (tasks, _failures) = Tasks::root();
        let channel = Channel::new(Endpoint::new(path.to_str().unwrap()), 64, tasks);
        let limit = Duration::from_secs(20);
        let call = |length: usize| {
            let (channel, text) = (channel.clone(), "n".repeat(length));
            async move { channel.call::<_, String>("/t.T/Echo", &text, limit).await.map(|answer| answer.len()) }
        };
        assert_eq!(call(1).await.unwrap_err().code, Code::Unavailable);
        for _ in 0..2 {
            let service = Arc::new(Count(AtomicUsize::new(0)));
            let server = serve(UnixListener::bind(&path).unwrap(), service.clone(), Duration::from_secs(60));
            tokio::select! {
                ended = server => panic!("{ended:?}"),
                (one, two) = futures::future::join(call(3), call(5)) => assert_eq!((one, two), (Ok(3), Ok(5))),
            }
            assert_eq!(service.0.load(Ordering::Relaxed), 2);
            std::fs::remove_file(&path).unwrap();
            // Calls that were under way on the lost connection have failed: whether they had their effect is not known, so none is sent again.
            while !call(1).await.unwrap_err().message.starts_with("dial unix") {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(call(1).await.unwrap_err().code, Code::Unavailable);
    }
}
