//! What becomes of one request: its route, what it must pass, the back end, and the answer.
//!
//! The order is nginx's, which annotations count on: redirects, preflights, limits, addresses and proofs, the body's size, the back end.

mod choice;
mod external;
pub(crate) mod mirror;
mod redirect;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use base::budgets::shares::Shares;
use base::tasks::{OnFailure, Tasks};
use base::unread::Lent;
use http::header::{self, CONNECTION, CONTENT_LENGTH, LOCATION, SET_COOKIE, UPGRADE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use ipnet::IpNet;

use crate::acme::challenges::Challenges;
use crate::body::{End, RequestBody, ResponseBody};
use crate::connect::{Connector, Lease};
use crate::effort::TooLong;
use crate::forward::{self, Active, Answered, Outgoing, forward};
use crate::gateway::actions::BackendChanges;
use crate::gateway::frontend::Clients;
use crate::guard::clients::{Admission, Shown, admit};
use crate::guard::limits::Permit;
use crate::guard::{admits, cors};
use crate::headers::{self, Origin, Peer};
use crate::metrics;
use crate::paths::normalize;
use crate::policy::Policy;
use crate::table::{Route, Table};
use crate::template::{Facts, path_and_query};
use crate::tunnel;
use crate::underway::{Place, Underway};
use choice::Chosen;
use external::Cookies;

/// The longest path, bytes: as long as nginx takes a whole request line (`large_client_header_buffers`).
const PATH: usize = 8 << 10;

/// What requests are answered with.
pub(crate) struct Proxy {
    pub(crate) table: Arc<ArcSwap<Table>>,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) connector: Connector,
    /// The requests that are under way.
    pub(crate) underway: Underway,
    /// Copies of requests that may be under way at once.
    pub(crate) mirrors: Shares<()>,
    pub(crate) tasks: Tasks,
    pub(crate) https_port: u16,
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) access_log: bool,
}

/// A request with its route.
struct Visit {
    parts: Parts,
    route: Arc<Route>,
    origin: Origin,
    /// As it was sent.
    authority: HeaderValue,
    /// Its name.
    host: String,
    /// The normal path.
    path: String,
    /// The client's certificate, as the connection has brought it.
    shown: Shown,
    over_tls: bool,
    has_tls: bool,
}

impl Visit {
    fn facts(&self) -> Facts<'_> {
        let Parts { method, uri, headers, .. } = &self.parts;
        Facts { scheme: self.origin.scheme(), host: &self.host, method, uri, headers, client: self.origin.client }
    }

    fn policy(&self) -> &Policy {
        &self.route.policy
    }
}

/// What is let go of when an answer is whole.
#[derive(Debug)]
struct Finish {
    lease: Lease,
    _active: Active,
    _held: Held,
}

/// The places that a request takes: among its client's in its Ingress, and among all that are under way.
#[derive(Debug)]
struct Held {
    _permit: Permit,
    _place: Place,
}

impl End for Finish {
    fn complete(self: Box<Self>) {
        self.lease.give_back();
    }
}

type Answer = Response<ResponseBody>;

impl Proxy {
    /// Answers a request.
    pub(crate) async fn answer(&self, peer: &Peer, request: Request<Lent>) -> Answer {
        let start = Instant::now();
        if let Some(proof) = self.challenges.at(request.uri().path()) {
            return said(StatusCode::OK, proof);
        }
        let (mut parts, body) = request.into_parts();
        let client_upgrade = parts.extensions.remove::<OnUpgrade>();
        let line = self.access_log.then(|| format!("{} {} {:?}", parts.method, parts.uri, parts.version));
        let visit = match self.visit(peer, parts) {
            Ok(visit) => visit,
            Err(status) => {
                metrics::unmatched();
                return text(status);
            }
        };
        let (route, client) = (visit.route.clone(), visit.origin.client);
        let mut answer = self.serve(visit, body, client_upgrade).await;
        // "Intermediaries that process HTTP messages ... MUST send their own HTTP-version in forwarded messages" (RFC 9112, 2.3). The connection has
        // that of its client, where it is a lower one.
        *answer.version_mut() = Version::HTTP_11;
        route.live.counts.answered(answer.status());
        metrics::took(start.elapsed().as_secs_f64());
        if let Some(line) = line.filter(|_| route.policy.access_log) {
            let (status, millis) = (answer.status().as_u16(), start.elapsed().as_millis());
            tracing::info!(target: "ingress::access", %client, ingress = %route.ingress, status, millis, "{line}");
        }
        answer
    }

    /// Finds the route.
    fn visit(&self, peer: &Peer, parts: Parts) -> Result<Visit, StatusCode> {
        if parts.method == Method::CONNECT {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let authority = headers::authority(peer, &parts).ok_or(StatusCode::BAD_REQUEST)?;
        let host = headers::host_name(authority.to_str().unwrap_or_default()).into_owned();
        let path = normalize(parts.uri.path()).ok_or(StatusCode::BAD_REQUEST)?.into_owned();
        let origin = Origin::of(peer, &parts.headers, &self.trusted);
        let table = self.table.load();
        if path.len() > PATH {
            return Err(StatusCode::URI_TOO_LONG);
        }
        let found = table.route((peer.entrance, peer.tls), &host, &path, &parts);
        let route = found.map_err(|TooLong| StatusCode::URI_TOO_LONG)?.cloned();
        let is_of_ingress = route.as_ref().is_some_and(|route| route.gateway.is_none());
        if !is_of_ingress && table.is_misdirected(peer.entrance, &peer.named, &host) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        let route = route.ok_or(StatusCode::NOT_FOUND)?;
        let has_tls = table.has_tls(&host);
        let (shown, over_tls) = (peer.shown.clone(), peer.tls);
        Ok(Visit { parts, route, origin, authority, host, path, shown, over_tls, has_tls })
    }

    async fn serve(&self, mut visit: Visit, body: Lent, upgrade: Option<OnUpgrade>) -> Answer {
        let Some(place) = self.underway.enter(visit.origin.client) else {
            return text(StatusCode::SERVICE_UNAVAILABLE);
        };
        let policy = visit.route.policy.clone();
        if visit.route.closed {
            return text(StatusCode::SERVICE_UNAVAILABLE);
        }
        let (path, port, has_tls) = (visit.path.as_str(), visit.origin.port, visit.has_tls);
        let asked = redirect::Asked { path, port, has_tls, https_port: self.https_port };
        if let Some((status, location)) = redirect::of(&visit.route, &visit.facts(), &asked) {
            return redirected(status, &location);
        }
        let wanted = headers::receive(&mut visit.parts);
        if let Err(refusal) = by_certificate(&mut visit) {
            return *refusal;
        }
        let grant = cors::grant(&policy.cors, &visit.parts.headers);
        let mut answer = if cors::is_preflight(&policy.cors, &visit.parts.method, &visit.parts.headers) {
            status(StatusCode::NO_CONTENT)
        } else {
            let Some(permit) = visit.route.live.limiter.enter(visit.origin.client, Instant::now()) else {
                return text(StatusCode::SERVICE_UNAVAILABLE);
            };
            match self.access(&mut visit).await {
                Ok(()) => {
                    let cookies = visit.parts.extensions.remove::<Cookies>();
                    let mut answer = self.pass(visit, body, (wanted, upgrade), Held { _permit: permit, _place: place }).await;
                    if let Some(cookies) = cookies {
                        cookies.give(&policy.external, &mut answer);
                    }
                    answer
                }
                Err(refusal) => *refusal,
            }
        };
        cors::apply(&policy.cors, grant, answer.headers_mut());
        answer
    }

    /// Whether the client may ask; else what it is told.
    async fn access(&self, visit: &mut Visit) -> Result<(), Box<Answer>> {
        let policy = visit.route.policy.clone();
        let (by_address, has_rules) = (admits(&policy, visit.origin.client), !policy.allow.is_empty() || !policy.deny.is_empty());
        let asks_proof = policy.basic.enabled || policy.external.url.is_some();
        if policy.satisfy_any && asks_proof {
            if has_rules && by_address {
                return Ok(());
            }
        } else if !by_address {
            return Err(Box::new(text(StatusCode::FORBIDDEN)));
        }
        if policy.basic.enabled {
            let passwords = visit.route.live.passwords.load_full();
            let user = match &passwords {
                Some(passwords) => passwords.user(&visit.parts.headers).await.ok(),
                None => None,
            };
            match user {
                Some(Some(_)) => {}
                Some(None) => return Err(Box::new(unauthorized(&policy.basic.realm))),
                None => return Err(Box::new(text(StatusCode::SERVICE_UNAVAILABLE))),
            }
        }
        match &policy.external.url {
            // Boxed, as it is as large as the rest of a request.
            Some(url) => Box::pin(external::ask(&self.connector, visit, url)).await,
            None => Ok(()),
        }
    }

    /// Takes the request to its back end.
    async fn pass(
        &self,
        mut visit: Visit,
        body: Lent,
        (wanted, upgrade): (Option<HeaderValue>, Option<OnUpgrade>),
        held: Held,
    ) -> Answer {
        let policy = visit.route.policy.clone();
        if content_length(&visit.parts.headers).zip(policy.body_size).is_some_and(|(length, most)| length > most) {
            return text(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let Some(chosen) = Chosen::of(&visit.route, &visit.facts(), crate::random::next()) else {
            return text(visit.route.gateway.as_ref().map_or(StatusCode::INTERNAL_SERVER_ERROR, |gateway| gateway.without));
        };
        let spare = visit.route.spare.clone().filter(|_| chosen.upstream.is_empty());
        let (upstream, route) = (spare.as_ref().unwrap_or(&chosen.upstream).clone(), visit.route.clone());
        let tls = visit.origin.tls;
        let changes = chosen.changes.clone();
        let outgoing = self.outgoing(&mut visit, body, (wanted.as_ref(), changes.as_deref()));
        let forwarding = Box::pin(forward(&self.connector, &upstream, chosen.choice, &policy, outgoing));
        let actions = route.gateway.as_ref().map(|gateway| &gateway.actions);
        let forwarded = match actions.and_then(|actions| actions.timeout) {
            Some(limit) => tokio::time::timeout(limit, forwarding).await.unwrap_or(Err(forward::Error::Timeout)),
            None => forwarding.await,
        };
        let answered = match forwarded {
            Ok(answered) => answered,
            Err(error) => {
                tracing::debug!(ingress = %route.ingress, %error, "no answer of a back end");
                return text(error.status());
            }
        };
        let cookie = spare.is_none().then(|| chosen.cookie(&answered));
        let cookie = cookie.flatten().and_then(|session| session.header(&policy.cookie, &route.text, tls, SystemTime::now()));
        let mut answer = self.respond(answered, &policy, (wanted, upgrade), held);
        if let Some(actions) = actions {
            actions.response.apply(answer.headers_mut());
        }
        if let Some(changes) = &changes {
            changes.response.apply(answer.headers_mut());
        }
        if let Some(cookie) = cookie {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        answer
    }

    /// The request as its back end gets it. Copies of it are sent.
    fn outgoing(
        &self,
        visit: &mut Visit,
        body: Lent,
        (upgrade, changes): (Option<&HeaderValue>, Option<&BackendChanges>),
    ) -> Outgoing {
        let route = visit.route.clone();
        if let Some(target) = &route.policy.rewrite {
            redirect::rewrite(&route.matcher, target, &visit.path, &mut visit.parts.uri);
        }
        let (body, progress) = RequestBody::new(body, route.policy.body_size, route.policy.send_timeout);
        let whole = content_length(&visit.parts.headers).is_some() && http_body::Body::size_hint(&body).exact().is_some();
        let Visit { parts, origin, authority, path, .. } = visit;
        headers::prepare(parts, origin, authority, whole);
        if let Some(prefix) = &route.policy.prefix {
            parts.headers.insert("x-forwarded-prefix", prefix.clone());
        }
        if let Some(protocol) = upgrade {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol.clone());
        }
        let mut host = authority.clone();
        if let Some(gateway) = &route.gateway {
            gateway.actions.request.apply(&mut parts.headers);
            if let Some(new) = &gateway.actions.path {
                redirect::replace(&new.of_path(&route.matcher, path, parts.uri.path()), &mut parts.uri);
            }
            host = gateway.actions.host.as_ref().or(gateway.actions.request.host()).cloned().unwrap_or(host);
        }
        let parts = std::mem::replace(parts, Request::new(()).into_parts().0);
        let mut outgoing = Outgoing { parts, body, progress, host };
        if let Some(gateway) = route.gateway.as_ref().filter(|_| upgrade.is_none()) {
            self.mirror(&gateway.mirrors, &mut outgoing);
        }
        if let Some(changes) = changes {
            changes.request.apply(&mut outgoing.parts.headers);
            outgoing.host = changes.request.host().cloned().unwrap_or(outgoing.host);
        }
        outgoing
    }

    /// Makes a back end's answer ours.
    fn respond(
        &self,
        answered: Answered,
        policy: &Policy,
        (wanted, upgrade): (Option<HeaderValue>, Option<OnUpgrade>),
        held: Held,
    ) -> Answer {
        let Answered { mut response, lease, active, .. } = answered;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(wanted), Some(client)) = (wanted, upgrade) else { return text(StatusCode::BAD_GATEWAY) };
            let (backend, silence) = (hyper::upgrade::on(&mut response), policy.read_timeout);
            self.tasks.spawn_until_cancelled("upgraded connection", OnFailure::Log, async move {
                // How it ended is told to those at its ends.
                let _ = tunnel::run(client, backend, silence).await;
                drop((lease, active, held));
                Ok::<_, std::convert::Infallible>(())
            });
            let protocol = response.headers().get(UPGRADE).cloned().unwrap_or(wanted);
            headers::remove_hop_by_hop(response.headers_mut());
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(UPGRADE, protocol);
            return response.map(|_| ResponseBody::Full(None));
        }
        headers::remove_hop_by_hop(response.headers_mut());
        let finish = Box::new(Finish { lease, _active: active, _held: held });
        response.map(|body| ResponseBody::download(body, policy.read_timeout, finish))
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(ResponseBody::Full(None));
    *answer.status_mut() = status;
    answer
}

/// Whether the client may ask by its certificate; then back ends are told of it.
fn by_certificate(visit: &mut Visit) -> Result<(), Box<Answer>> {
    let route = visit.route.clone();
    let by_gateway = route.gateway.as_ref().and_then(|gateway| gateway.clients.as_deref());
    let (clients, authorities) = match by_gateway {
        Some(Clients { auth, authorities }) => (auth, authorities.clone()),
        None if route.policy.clients.secret.is_none() => return Ok(()),
        None => (&route.policy.clients, route.live.authorities.load_full()),
    };
    let refusal = match admit(clients, authorities.as_ref(), visit.over_tls, &visit.shown) {
        Admission::Pass(said) => {
            headers::tell_of_client(&mut visit.parts.headers, &said, &visit.shown, clients.pass);
            return Ok(());
        }
        Admission::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Admission::Closed => StatusCode::SERVICE_UNAVAILABLE,
        Admission::Forbidden => StatusCode::FORBIDDEN,
        Admission::Refused => match &clients.error_page {
            Some(page) => return Err(Box::new(redirected(StatusCode::FOUND, page))),
            None => StatusCode::BAD_REQUEST,
        },
    };
    Err(Box::new(text(refusal)))
}

/// An answer of our own, which says its status.
fn text(code: StatusCode) -> Answer {
    said(code, format!("{} {}\n", code.as_u16(), code.canonical_reason().unwrap_or("unknown")))
}

/// An answer of our own.
fn said(code: StatusCode, body: String) -> Answer {
    let mut answer = status(code);
    *answer.body_mut() = ResponseBody::text(body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn redirected(code: StatusCode, location: &str) -> Answer {
    // What a client sent may be no header: then there is nowhere to send it.
    let Ok(location) = HeaderValue::from_str(location) else { return text(StatusCode::BAD_REQUEST) };
    let mut answer = text(code);
    answer.headers_mut().insert(LOCATION, location);
    answer
}

fn unauthorized(realm: &str) -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED);
    let challenge = HeaderValue::from_str(&format!("Basic realm=\"{realm}\""));
    answer.headers_mut().insert(WWW_AUTHENTICATE, challenge.unwrap_or(HeaderValue::from_static("Basic")));
    answer
}

/// The URL that a client asked for.
fn requested(facts: &Facts<'_>, authority: &HeaderValue) -> String {
    format!("{}://{}{}", facts.scheme, authority.to_str().unwrap_or(facts.host), path_and_query(facts.uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the future that a function returns.
    fn size<'a, R>(_: impl FnOnce(&'a Proxy, &'a Peer, Request<Lent>) -> R) -> usize {
        size_of::<R>()
    }

    /// It is moved several times for each request: what is large and seldom needed is boxed.
    #[test]
    fn requests_are_small() {
        let size = size(Proxy::answer);
        assert!(size < 3600, "{size} bytes");
    }
}
