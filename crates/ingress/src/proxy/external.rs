//! Somebody else says whether a request may pass.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};

use super::{Answer, Visit, requested, text};
use crate::balance::Choice;
use crate::body::RequestBody;
use crate::connect::Connector;
use crate::forward::{Answered, Outgoing, forward};
use crate::headers;
use crate::policy::{Balance, External, Policy};
use crate::template::{Template, escape};

/// The longest body of an answer that is read, bytes.
const SHORT: usize = 64 << 10;
const AUTH_REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const SENT_FROM: HeaderName = HeaderName::from_static("x-sent-from");

/// Asks whether a request may pass, and takes over what back ends shall know.
pub(super) async fn ask(connector: &Connector, visit: &mut Visit, url: &Template) -> Result<(), Box<Answer>> {
    let Some(upstream) = visit.route.live.external.clone() else { return Err(Box::new(text(StatusCode::SERVICE_UNAVAILABLE))) };
    let route = visit.route.clone();
    let (policy, asking) = (&route.policy, &route.live.asking);
    let Some(question) = question(visit, url) else { return Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR))) };
    let asked = forward(connector, &upstream, Choice::Any(Balance::RoundRobin), asking, question).await;
    let mut answer = match asked {
        Ok(answered) => head(answered, asking.read_timeout).await,
        Err(error) => {
            tracing::debug!(ingress = %visit.route.ingress, %error, "no answer of the external authentication");
            return Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR)));
        }
    };
    if answer.status.is_success() {
        // These are of the answer, and would be of the request.
        headers::remove_hop_by_hop(&mut answer.headers);
        answer.headers.remove(CONTENT_LENGTH);
        let cookies: Vec<HeaderValue> = answer.headers.get_all(SET_COOKIE).into_iter().cloned().collect();
        if !cookies.is_empty() {
            visit.parts.extensions.insert(Cookies(cookies.into()));
        }
        for name in &policy.external.response_headers {
            // What a client says of itself under such a name does not count.
            visit.parts.headers.remove(name);
            for value in answer.headers.get_all(name) {
                visit.parts.headers.append(name, value.clone());
            }
        }
        return Ok(());
    }
    let refused = match answer.status {
        StatusCode::UNAUTHORIZED if policy.external.signin.is_some() => {
            let location = signin(visit, policy).and_then(|location| HeaderValue::from_str(&location).ok());
            let mut refused = text(StatusCode::FOUND);
            match location {
                Some(location) => drop(refused.headers_mut().insert(LOCATION, location)),
                None => refused = text(StatusCode::UNAUTHORIZED),
            }
            refused
        }
        code @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => text(code),
        _ => text(StatusCode::INTERNAL_SERVER_ERROR),
    };
    Err(Box::new(with_headers(refused, &answer.headers)))
}

/// Cookies that came with the word that a client may pass, such as those of a session that was renewed. They are with its request meanwhile.
#[derive(Clone)]
pub(super) struct Cookies(Arc<[HeaderValue]>);

impl Cookies {
    /// Gives them to the client: with the statuses with which nginx adds headers, or with any.
    pub(super) fn give(&self, external: &External, answer: &mut Answer) {
        let status = answer.status().as_u16();
        if external.always_cookies || matches!(status, 200 | 201 | 204 | 206 | 301..=304 | 307 | 308) {
            for cookie in self.0.iter() {
                answer.headers_mut().append(SET_COOKIE, cookie.clone());
            }
        }
    }
}

/// The head of an answer. Its body is read to the end when it is a short one, so that the connection can be used again.
async fn head(answered: Answered, limit: Duration) -> http::response::Parts {
    let Answered { response, lease, active, .. } = answered;
    let (parts, body) = response.into_parts();
    let whole = tokio::time::timeout(limit, Limited::new(body, SHORT).collect()).await;
    if matches!(whole, Ok(Ok(_))) {
        lease.give_back();
    }
    drop(active);
    parts
}

/// A client needs the challenge, and the cookies of its way to sign in.
fn with_headers(mut refused: Answer, answer: &http::HeaderMap) -> Answer {
    for name in [WWW_AUTHENTICATE, SET_COOKIE] {
        for value in answer.get_all(&name) {
            refused.headers_mut().append(&name, value.clone());
        }
    }
    refused
}

/// The request's head without its body, to the URL.
fn question(visit: &Visit, url: &Template) -> Option<Outgoing> {
    let uri: Uri = url.render(&visit.facts()).parse().ok()?;
    let host = HeaderValue::from_str(uri.authority()?.as_str()).ok()?;
    let mut parts = Request::new(()).into_parts().0;
    parts.method = visit.policy().external.method.clone().unwrap_or(Method::GET);
    parts.headers = visit.parts.headers.clone();
    headers::prepare(&mut parts, &visit.origin, &visit.authority, false);
    for name in [CONTENT_LENGTH, CONTENT_TYPE, HOST] {
        parts.headers.remove(name);
    }
    let asked = requested(&visit.facts(), &visit.authority);
    for (name, value) in [
        (ORIGINAL_METHOD, visit.parts.method.as_str()),
        (ORIGINAL_URL, &asked),
        (AUTH_REDIRECT, crate::template::path_and_query(&visit.parts.uri)),
        (SENT_FROM, "nginx-ingress-controller"),
    ] {
        parts.headers.insert(name, HeaderValue::from_str(value).ok()?);
    }
    parts.uri = uri;
    Some(Outgoing { parts, body: RequestBody::Empty, progress: None, host })
}

/// Where a client signs in, and comes back from.
fn signin(visit: &Visit, policy: &Policy) -> Option<String> {
    let facts = visit.facts();
    let url = policy.external.signin.as_ref()?.render(&facts);
    let parameter = policy.external.signin_parameter.as_deref().unwrap_or("rd");
    if url.contains(&format!("{parameter}=")) {
        return Some(url);
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{mark}{parameter}={}", escape(&requested(&facts, &visit.authority))))
}
