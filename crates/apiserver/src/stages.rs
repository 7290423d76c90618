//! What bounds a request, stage by stage: whose connection it is, how many others there are, how long it may take, and where its work
//! is done.

pub(crate) mod seats;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use base::budgets::heavy::HEAVY;
use base::budgets::shares::{Share as Place, Shares};
use base::budgets::{Meter, connections, descriptors};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use registry::User;

use crate::body::RequestBody;
use crate::decode;
use crate::dispatch::{Handler, Plan};
use crate::fairness::Fairness;
use crate::query::Query;

/// How long a request may take at most (upstream's `--request-timeout`).
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Marks requests of components of this process. What they do at once, they bound themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InProcess;

/// Bytes of another server's answer to a component of this process.
const FOREIGN: usize = 64 << 20;

/// Watches of one user. An informer needs one for each kind that it is about; a node one for each object that its pods refer to.
const WATCHES: usize = 2_000;
/// Most connections to others for users, and those of one user.
const MAX_STREAMS: usize = 8_192;
const STREAMS: usize = 2_000;

/// What lasts as long as its client wants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lasting {
    /// A watch, which costs memory.
    Watch,
    /// A command, a log, a forwarded port, a proxied request or an upgrade, which costs a connection to somebody else.
    Stream,
}

/// The budgets of all requests.
pub(crate) struct Budgets {
    pub(crate) fairness: Arc<Fairness>,
    watches: Shares,
    streams: Shares,
}

impl Default for Budgets {
    fn default() -> Self {
        let streams = descriptors::share(descriptors::limit(), descriptors::percent::STREAMS, MAX_STREAMS);
        let of_user = STREAMS.min(streams.div_ceil(4));
        Self {
            fairness: Arc::default(),
            watches: Shares::metered("watches_of_user", WATCHES),
            streams: Shares::of(Some(Meter::new("streams_of_user", of_user)), of_user, streams),
        }
    }
}

impl Budgets {
    /// The place of a request that lasts; none for components of this process, which are not counted. 429 when its user, or all of them,
    /// have too many.
    pub(crate) fn place(&self, user: Option<&str>, lasting: Lasting) -> Result<Option<Place>, Status> {
        let Some(user) = user else { return Ok(None) };
        let (places, what) = match lasting {
            Lasting::Watch => (&self.watches, "watches"),
            Lasting::Stream => (&self.streams, "connections to pods and nodes"),
        };
        let place = places.take(user);
        place.map(Some).ok_or_else(|| Status::too_many_requests(format!("Too many {what}, please try again later."), 1))
    }
}

/// Whether a request lasts as long as its client wants.
pub(crate) fn is_long_running(plan: &Plan) -> bool {
    matches!(plan.handler, Ok(Handler::Connect(_))) || plan.verbs[0] == "watch"
}

/// The connection is now its user's. 429 when the user has too many.
pub(crate) fn prove(parts: &Parts, user: &User) -> Result<(), Status> {
    match parts.extensions.get::<Arc<connections::Place>>() {
        Some(place) if user.name != crate::authn::ANONYMOUS && !place.prove(&user.name) => {
            Err(Status::too_many_requests("Too many connections, please try again later.", 1))
        }
        _ => Ok(()),
    }
}

/// The time that a request has, as its `timeout` says, but no more than any has. None for what lasts as long as its client wants.
pub(crate) fn time_limit(plan: &Plan, query: &str) -> Result<Option<Duration>, Status> {
    if is_long_running(plan) {
        return Ok(None);
    }
    let text = if query.contains("timeout") { Query::parse(query).get("timeout").map(str::to_owned) } else { None };
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Some(DEADLINE)) };
    let nanoseconds = schema::parse_duration(&text)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    // Zero says nothing, and so does less.
    let wanted = u64::try_from(nanoseconds).ok().filter(|wanted| *wanted > 0).map(Duration::from_nanos);
    Ok(Some(wanted.map_or(DEADLINE, |wanted| wanted.min(DEADLINE))))
}

/// Gives up on a request that takes too long.
pub(crate) async fn within<T>(limit: Duration, request: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    // A request whose time is over is not begun.
    if limit.is_zero() {
        return Err(late());
    }
    tokio::time::timeout(limit, request).await.unwrap_or_else(|_| Err(late()))
}

/// How much of another API server's answer a component of this process gets: it reads all of it before it looks at any, and whoever
/// answers without end would end this process.
pub(crate) fn most_of_others(parts: &Parts) -> Option<usize> {
    parts.extensions.get::<InProcess>().map(|_| FOREIGN)
}

/// What is said of a request whose time is over.
pub(crate) fn late() -> Status {
    Status::timeout("request did not complete within the allotted timeout", 0)
}

/// The body and its size. A large one, or one of a request that changes something large, is here as a whole: who handles it then
/// does so in one go, with nothing to wait for.
pub(crate) async fn large_body(body: RequestBody, stored: usize) -> Result<(RequestBody, usize), Status> {
    match body.size_hint().exact() {
        Some(size) if size < HEAVY as u64 && stored < HEAVY => Ok((body, 0)),
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
        assert_eq!(within(DEADLINE, async { Ok(1) }).await, Ok(1));
    }

    /// As upstream's `withRequestDeadline` has it.
    #[test]
    fn time_limits() {
        let plan = |verb: &'static str| Plan { verbs: vec![verb], handler: Ok(Handler::Object(kinds::Verb::Get)) };
        let check = |query: &str, expected: Result<Option<Duration>, &str>| {
            let got = time_limit(&plan("get"), query).map_err(|status| (status.code, status.message));
            assert_eq!(got, expected.map_err(|message| (400, message.to_owned())), "{query}");
        };
        for query in ["", "timeout=", "timeout=0", "timeout=0s", "timeout=-1s", "timeout=10m", "timeoutSeconds=5", "timeout=1m0s"]
        {
            check(query, Ok(Some(DEADLINE)));
        }
        check("a=b&timeout=1.5s", Ok(Some(Duration::from_millis(1500))));
        check("timeout=32s&timeout=x", Ok(Some(Duration::from_secs(32))));
        let invalid = "invalid timeout specified in the request URL - time: ";
        check("timeout=x", Err(&format!("{invalid}invalid duration \"x\"")));
        check("timeout=5", Err(&format!("{invalid}missing unit in duration \"5\"")));
        check("timeout=5x", Err(&format!("{invalid}unknown unit \"x\" in duration \"5x\"")));
        assert_eq!(time_limit(&plan("watch"), "timeout=x"), Ok(None));
    }

    #[tokio::test]
    async fn large_bodies_are_read_first() {
        let check = async |length: usize, stored: usize, expected: Result<usize, u16>| {
            let body = RequestBody::new(Full::new(Bytes::from(vec![b'x'; length])).map_err(|never| match never {}));
            let read = large_body(body, stored).await;
            assert_eq!(read.map(|(_, size)| size).map_err(|status| status.code), expected);
        };
        check(10, 0, Ok(0)).await;
        check(10, HEAVY, Ok(10)).await;
        check(HEAVY, 0, Ok(HEAVY)).await;
        check(decode::MAX_BODY + 1, 0, Err(413)).await;
    }
}
