//! A request, forwarded to the server of its group version.

use std::sync::Arc;

use apimachinery::Status;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use registry::{Remote, User};

use crate::body::{Body, RequestBody};
use crate::call::{Call, Inner};
use crate::proxy::outbound;
use crate::stages::Lasting;
use crate::{remote, respond};

impl Inner {
    /// Sends a request to another API server, and its answer back as it comes: watches and upgrades included.
    pub(crate) async fn forward_to(&self, call: &Call<'_>, remote: &Remote, body: RequestBody) -> Result<Response<Body>, Status> {
        let path = call.parts.uri.path_and_query().map_or("/", |path| path.as_str());
        self.forward_path(call, remote, path, body).await
    }

    /// The same, to another path.
    pub(crate) async fn forward_path(
        &self,
        call: &Call<'_>,
        remote: &Remote,
        path: &str,
        body: RequestBody,
    ) -> Result<Response<Body>, Status> {
        if !remote.available {
            return Ok(unavailable());
        }
        let endpoint = self.servers.endpoint(remote);
        let authority = endpoint.target().authority();
        let mut request = outbound::request(call.parts, path, &authority, body).map_err(Status::internal)?;
        name_user(request.headers_mut(), &call.user);
        let (user, upgrades) = (call.counted(), streaming::is_upgrade(&call.parts.headers));
        // A watch, or what lasts though nothing says so beforehand.
        let place = match (upgrades, &call.ongoing) {
            (true, _) => self.budgets.place(user, Lasting::Stream)?,
            (false, Some(_)) => self.budgets.place(user, Lasting::Watch)?,
            (false, None) => None,
        };
        if !upgrades {
            call.keep(place);
            let answer = endpoint.forward(&self.registry, request, user).await;
            return answer.map(outbound::passed_on).map(without_redirect).or_else(|error| self.failed(remote, &error));
        }
        let dialled =
            tokio::time::timeout(remote::DIAL, endpoint.dial(&self.registry, user)).await.unwrap_or(Err(remote::Error::Timeout));
        let (stream, by_tunnel) = match dialled {
            Ok(stream) => stream,
            Err(error) => return self.failed(remote, &error),
        };
        let held = Box::new((call.ongoing.clone(), place, by_tunnel));
        let sent = outbound::exchange(stream, request, call.parts, &self.tasks, held).await;
        sent.map(without_redirect).or_else(|error| self.failed(remote, &remote::Error::Http(error.to_string())))
    }

    /// What is answered for a server that is not there, or breaks off. Whether it is there is looked at again.
    fn failed(&self, remote: &Remote, error: &remote::Error) -> Result<Response<Body>, Status> {
        if let remote::Error::Streams(why) = error {
            return Err(Status::too_many_requests(why.as_str(), 1));
        }
        tracing::debug!(group = remote.group, version = remote.version, %error, "an API server cannot be reached");
        self.servers.doubted.notify_one();
        match error {
            remote::Error::Http(why) => Err(Status::service_unavailable(format!("error trying to reach service: {why}"))),
            _ => Ok(unavailable()),
        }
    }
}

/// Instead of a redirect: who follows it would show another server the credentials that are for this one (CVE-2022-3172).
fn without_redirect(response: Response<Body>) -> Response<Body> {
    if !response.status().is_redirection() || !response.headers().contains_key(LOCATION) {
        return response;
    }
    let text = "the backend attempted to redirect this request, which is not permitted";
    respond::text(StatusCode::BAD_GATEWAY, text.to_owned())
}

/// Upstream's answer for a server that is not there: no Status.
fn unavailable() -> Response<Body> {
    respond::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n".to_owned())
}

/// The headers by which the other server knows who asks (documentation, "Configure the Aggregation Layer").
fn name_user(headers: &mut HeaderMap, user: &Arc<User>) {
    let mut add = |name: String, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add("x-remote-user".into(), &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid".into(), &user.uid);
    }
    user.groups.iter().for_each(|group| add("x-remote-group".into(), group));
    for (key, values) in &user.extra {
        values.iter().for_each(|value| add(format!("x-remote-extra-{}", escape(key)), value));
    }
}

/// A key as it stands in the name of a header: what may not be in one is escaped.
fn escape(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if plain { out.push(char::from(byte.to_ascii_lowercase())) } else { out.push_str(&format!("%{byte:02X}")) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// kubernetes/kubernetes#112193: "--aggregator-reject-forwarding-redirect" is true unless it is said otherwise.
    #[test]
    fn redirects_of_other_servers_are_not_passed_on() {
        let check = |code: u16, location: Option<&str>, expected: u16| {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
            location
                .iter()
                .for_each(|place| drop(response.headers_mut().insert(LOCATION, HeaderValue::from_str(place).unwrap())));
            let got = without_redirect(response);
            assert_eq!(
                (got.status().as_u16(), got.headers().contains_key(LOCATION)),
                (expected, location.is_some() && code == expected)
            );
        };
        for code in [301, 302, 303, 307, 308] {
            check(code, Some("https://10.0.0.1/api/v1/secrets"), 502);
        }
        check(304, None, 304);
        check(201, Some("/apis/agg.io/v1/foos/a"), 201);
        check(200, None, 200);
    }

    #[test]
    fn users_are_named() {
        let mut headers = HeaderMap::new();
        let extra = [("example.com/a b".to_owned(), vec!["1".to_owned(), "2".to_owned()])].into();
        let user = User { name: "jane".into(), uid: "u".into(), groups: vec!["g".into(), "h".into()], extra };
        name_user(&mut headers, &Arc::new(user));
        let got: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or_default())).collect();
        let mut got = got;
        got.sort();
        assert_eq!(
            got,
            [
                "x-remote-extra-example.com%2fa%20b: 1",
                "x-remote-extra-example.com%2fa%20b: 2",
                "x-remote-group: g",
                "x-remote-group: h",
                "x-remote-uid: u",
                "x-remote-user: jane",
            ]
        );
    }
}
