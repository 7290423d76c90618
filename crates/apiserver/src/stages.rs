//! What bounds a request, stage by stage: whose connection it is, how many others there are, how long it may take, and where its work
//! is done.

pub(crate) mod in_flight;
pub(crate) mod watches;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use base::budgets::connections::Place;
use base::budgets::heavy::HEAVY;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use registry::User;

use crate::body::RequestBody;
use crate::decode;
use crate::dispatch::{Handler, Plan};

/// How long a request may take (upstream's `--request-timeout`).
const DEADLINE: Duration = Duration::from_secs(60);

/// Marks requests of components of this process. What they do at once, they bound themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InProcess;

/// The budgets of all requests.
#[derive(Default)]
pub(crate) struct Budgets {
    pub(crate) in_flight: Arc<in_flight::InFlight>,
    pub(crate) watches: Arc<watches::Watches>,
}

/// Whether a request lasts as long as its client wants.
pub(crate) fn is_long_running(plan: &Plan) -> bool {
    matches!(plan.handler, Ok(Handler::Connect(_))) || plan.verbs[0] == "watch"
}

/// The connection is now its user's. 429 when the user has too many.
pub(crate) fn prove(parts: &Parts, user: &User) -> Result<(), Status> {
    match parts.extensions.get::<Arc<Place>>() {
        Some(place) if user.name != crate::authn::ANONYMOUS && !place.prove(&user.name) => {
            Err(Status::too_many_requests("Too many connections, please try again later.", 1))
        }
        _ => Ok(()),
    }
}

/// Gives up on a request that takes too long.
pub(crate) async fn within_deadline<T>(request: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    within(DEADLINE, request).await
}

async fn within<T>(limit: Duration, request: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::timeout("request did not complete within the allotted timeout", 0);
    tokio::time::timeout(limit, request).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// The body and its size. A large one is here as a whole: who handles it then does so in one go, with nothing to wait for.
pub(crate) async fn large_body(body: RequestBody) -> Result<(RequestBody, usize), Status> {
    match body.size_hint().exact() {
        Some(size) if size < HEAVY as u64 => Ok((body, 0)),
        _ => {
            let bytes = decode::read(body).await?;
            let size = bytes.len();
            Ok((RequestBody::new(Full::new(bytes).map_err(|never| match never {})), size))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn deadlines() {
        let forever = std::future::pending::<Result<(), Status>>();
        let status = within(Duration::from_millis(1), forever).await.unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (504, "Timeout: request did not complete within the allotted timeout")
        );
        assert_eq!(within_deadline(async { Ok(1) }).await, Ok(1));
    }

    #[tokio::test]
    async fn large_bodies_are_read_first() {
        let check = async |length: usize, expected: Result<usize, u16>| {
            let body = RequestBody::new(Full::new(Bytes::from(vec![b'x'; length])).map_err(|never| match never {}));
            let read = large_body(body).await;
            assert_eq!(read.map(|(_, size)| size).map_err(|status| status.code), expected);
        };
        check(10, Ok(0)).await;
        check(HEAVY, Ok(HEAVY)).await;
        check(decode::MAX_BODY + 1, Err(413)).await;
    }
}
