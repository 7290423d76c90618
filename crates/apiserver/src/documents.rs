//! Paths that name no resource.

use apimachinery::Status;
use base::budgets::heavy;
use base::metrics::{self, Format};
use base::zpages::{self, Page};
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::body::{Body, RequestBody};
use crate::call::{Call, Inner};
use crate::discovery::Form;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::{fairness, respond, tunnels};

const JSON: &str = "application/json";
const DEBUG: &str = "/debug/api_priority_and_fairness/";

/// Where to look for what the server is and does, as `/statusz` says.
pub(crate) const PLACES: &[&str] = &["/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"];

fn accepted<'a>(call: &'a Call<'_>) -> &'a str {
    call.parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn metrics(call: &Call<'_>, page: metrics::Page) -> Response<Body> {
    let format = Format::accepted(accepted(call));
    respond::bytes(StatusCode::OK, format.media_type(), page.encode(format))
}

impl Inner {
    pub(crate) async fn document(&self, call: &Call<'_>, body: RequestBody) -> Response<Body> {
        if !matches!(call.parts.method, Method::GET | Method::HEAD) {
            return method_not_allowed(call.accept);
        }
        let path = call.path.trim_end_matches('/');
        if let Some(response) = crate::health::respond(self, path, call.query).await {
            return response;
        }
        if let Some(page) = Page::at(path) {
            return self.zpage(call, page);
        }
        match path {
            tunnels::PATH => self.tunnel(call).unwrap_or_else(|status| respond::failure(call.accept, &status)),
            "" => self.paths(),
            "/version" => raw(&crate::version::document(&self.build)),
            "/metrics" => metrics(call, metrics::Page::Server),
            "/metrics/slis" => metrics(call, metrics::Page::ServerSlis),
            "/metrics/resources" => self.pod_resources(call).await,
            "/api" | "/apis" => self.groups(call, path),
            "/.well-known/openid-configuration" => self.openid(),
            "/openid/v1/jwks" => respond::bytes(StatusCode::OK, "application/jwk-set+json", self.keys.key_set().to_string()),
            "/openapi/v2" => self.openapi.v2(&call.parts.headers).await,
            "/openapi/v3" => self.openapi.index().await,
            _ if path.starts_with(DEBUG) => self.debug(call, path),
            _ => match path.strip_prefix("/openapi/v3/") {
                Some(rest) => self.openapi_v3(call, path, rest, body).await,
                None => match self.discovery.of(&self.registry.catalog()).document(path) {
                    Some(document) => respond::value(call.accept, StatusCode::OK, None, (*document).clone(), ""),
                    None => respond::page_not_found(),
                },
            },
        }
    }

    /// What pods ask for. There may be many of them.
    async fn pod_resources(&self, call: &Call<'_>) -> Response<Body> {
        let format = Format::accepted(accepted(call));
        let Some(pods) = self.registry.resource("", "v1", "pods") else { return respond::page_not_found() };
        let bytes = pods.listed().map_or(0, |(_, bytes)| bytes);
        let page = heavy::work(bytes, || crate::metrics::pods::page(&self.registry.peek_all(&pods).0, format)).await;
        respond::bytes(StatusCode::OK, format.media_type(), page)
    }

    fn debug(&self, call: &Call<'_>, path: &str) -> Response<Body> {
        let details = Query::parse(call.query).get("includeRequestDetails").is_some_and(|value| !value.is_empty());
        match fairness::dump::page(&self.budgets.fairness, path.strip_prefix(DEBUG).unwrap_or_default(), details) {
            Some(page) => respond::text(StatusCode::OK, page),
            None => respond::page_not_found(),
        }
    }

    fn zpage(&self, call: &Call<'_>, page: Page) -> Response<Body> {
        match self.zpages.answer(page, accepted(call), Timestamp::now()) {
            Some((media_type, text)) => respond::bytes(StatusCode::OK, media_type, text),
            None => respond::failure(Accept::RAW, &Status::not_acceptable(&zpages::ACCEPTED)),
        }
    }

    /// The document of a group version; another server has its own.
    async fn openapi_v3(&self, call: &Call<'_>, path: &str, rest: &str, body: RequestBody) -> Response<Body> {
        let catalog = self.registry.catalog();
        let group_version = rest.strip_prefix("apis/").and_then(|rest| rest.split_once('/'));
        let Some(remote) = group_version.and_then(|(group, version)| catalog.remote(group, version)) else {
            return self.openapi.v3(rest, call.query, &call.parts.headers).await;
        };
        let answer = self.forward_path(call, remote, path, body).await;
        answer.unwrap_or_else(|status| respond::failure(call.accept, &status))
    }

    fn groups(&self, call: &Call<'_>, path: &str) -> Response<Body> {
        let form = Form::of(accepted(call));
        let documents = self.discovery.of(&self.registry.catalog());
        if form == Form::Legacy {
            let mut document = documents.document(path).map(|document| (*document).clone()).unwrap_or_default();
            if path == "/api" {
                document["serverAddressByClientCIDRs"] =
                    json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": self.public_address}]);
            }
            let mut response = respond::value(call.accept, StatusCode::OK, None, document, "");
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
            return response;
        }
        let (body, tag) = documents.aggregated(path, form);
        let mut response = respond::bytes(StatusCode::OK, JSON, body);
        if call.parts.headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::Empty;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        if let Ok(tag) = HeaderValue::from_str(tag) {
            headers.insert(ETAG, tag);
        }
        response
    }

    fn paths(&self) -> Response<Body> {
        let own = [
            "/.well-known/openid-configuration",
            "/flagz",
            "/healthz",
            "/livez",
            "/metrics",
            "/metrics/resources",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
            "/statusz",
            "/version",
        ];
        let documents = self.discovery.of(&self.registry.catalog());
        let mut paths = documents.paths();
        paths.extend(own.map(str::to_owned));
        paths.sort_unstable();
        raw(&json!({"paths": paths}))
    }

    fn openid(&self) -> Response<Body> {
        let document = json!({
            "issuer": self.keys.issuer(), "jwks_uri": self.jwks_uri, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        });
        respond::bytes(StatusCode::OK, JSON, document.to_string())
    }
}

/// A document that is no API object: always indented, as upstream.
fn raw(document: &impl Serialize) -> Response<Body> {
    match respond::json(Accept::RAW, document) {
        Ok(text) => respond::bytes(StatusCode::OK, JSON, text),
        Err(status) => respond::failure(Accept::RAW, &status),
    }
}

/// 405 as upstream words it.
fn method_not_allowed(accept: Accept) -> Response<Body> {
    respond::failure(accept, &Status::method_not_allowed())
}
