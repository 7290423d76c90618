//! A seat for each request, by API priority and fairness.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::fields;
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderMap, Response};
use registry::{Served, User};
use tokio::sync::oneshot;

use super::{DEADLINE, InProcess, is_long_running};
use crate::body::Body;
use crate::dispatch::Plan;
use crate::fairness::Fairness;
use crate::fairness::rules::Digest;
use crate::fairness::seat::{Entry, SENDING, Seat, Who};
use crate::fairness::work::Kind;
use crate::query::Query;
use crate::route::Route;

/// A request that wants a seat.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) user: &'a Arc<User>,
    pub(crate) route: &'a Route<'a>,
    pub(crate) plan: &'a Plan,
    /// None for what is not served here.
    pub(crate) resource: Option<&'a Served>,
}

impl<'a> Asking<'a> {
    fn digest(&self) -> Digest<'a> {
        let digest = Digest {
            user: self.user,
            verb: self.plan.verbs[0],
            is_resource: false,
            group: "",
            resource: "",
            sub: "",
            namespace: "",
            path: self.path,
        };
        match *self.route {
            Route::Other => digest,
            Route::Resource(target) => Digest {
                is_resource: true,
                group: target.group,
                resource: target.plural,
                sub: target.sub,
                namespace: target.scope(),
                ..digest
            },
        }
    }

    fn kind(&self) -> Kind {
        let (Route::Resource(target), Some(resource)) = (self.route, self.resource) else { return Kind::Other };
        match self.plan.verbs[0] {
            "list" => list(resource, self.query, false),
            "watch" if begins_with_list(self.query) => list(resource, self.query, !target.name.is_empty()),
            // A token changes nothing that somebody watches.
            "create" | "update" | "patch" | "delete" if resource.is_own_body(target.sub) => {
                Kind::Write { watchers: resource.watchers() }
            }
            _ => Kind::Other,
        }
    }
}

/// The seat of a request, or a place in a queue. None for those that need none: what components of this process do at once, they bound
/// themselves, and a connection takes none.
pub(crate) fn enter(fairness: &Fairness, asking: &Asking<'_>) -> Option<Entry> {
    let verb = asking.plan.verbs[0];
    let is_free = asking.parts.extensions.get::<InProcess>().is_some() || is_long_running(asking.plan) && verb != "watch";
    if is_free {
        return None;
    }
    fairness.enter(&asking.digest(), Who { user: asking.user, uri: &asking.parts.uri, verb }, || asking.kind())
}

/// Waits until the seat is there, for a quarter of the time that the request has. `limit` is that time.
pub(crate) async fn wait(seat: &mut Seat, mut turn: oneshot::Receiver<()>, started: Instant, limit: Option<Duration>) {
    let until = started + limit.unwrap_or(DEADLINE) / 4;
    loop {
        let next = until.min(Instant::now() + Duration::from_secs_f64(SENDING));
        match tokio::time::timeout_at(next.into(), &mut turn).await {
            Ok(Ok(())) => return,
            Err(_) if next < until => seat.look_again(),
            _ => return seat.give_up(),
        }
    }
}

static SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Tells by UIDs where the request belonged: names could tell its sender how little it counts.
pub(crate) fn tell(headers: &mut HeaderMap, seat: &Seat) {
    let (schema, level) = seat.uids();
    headers.insert(SCHEMA.clone(), schema);
    headers.insert(LEVEL.clone(), level);
}

/// The seat is free when the answer has been sent, if that is soon: a list is made while its client reads it. A watch only takes one to begin.
pub(crate) fn release(seat: Seat, plan: &Plan, response: &mut Response<Body>) {
    let is_made = matches!(response.body(), Body::Empty | Body::Whole(_));
    if !is_made && !is_long_running(plan) {
        seat.sends();
        response.body_mut().hold(seat);
    }
}

/// Whether a watch first sends what is there.
fn begins_with_list(query: &str) -> bool {
    let query = Query::parse(query);
    query.flag("sendInitialEvents") || matches!(query.get("resourceVersion").unwrap_or_default(), "" | "0")
}

fn list(resource: &Served, query: &str, named: bool) -> Kind {
    let Some((objects, bytes)) = resource.listed() else { return Kind::Other };
    let query = if query.is_empty() { Query::default() } else { Query::parse(query) };
    let selector = query.get("fieldSelector").and_then(|text| fields::Selector::parse(text).ok());
    let single = named || selector.is_some_and(|selector| selector.exact("metadata.name").is_some());
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(0);
    Kind::List { objects, bytes, limit, single }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_that_begin_with_a_list() {
        let check = |query: &str, expected: bool| assert_eq!(begins_with_list(query), expected, "{query}");
        check("watch=true", true);
        check("watch=true&resourceVersion=0", true);
        check("watch=true&resourceVersion=5", false);
        check("watch=true&resourceVersion=5&sendInitialEvents=true", true);
        check("watch=true&resourceVersion=5&sendInitialEvents=false", false);
    }
}
