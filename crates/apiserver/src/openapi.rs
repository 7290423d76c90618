//! OpenAPI documents: built when first asked for, kept compressed.

mod custom;
mod gnostic;
mod operation;
mod options;
mod paths;
mod resource;
mod roots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use registry::{Catalog, Registry};
use schema::Schema;
use schema::openapi::{Docs, v2_definitions, v3_schemas};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::{negotiate, respond};
use operation::Dialect;
use paths::Operations;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What the document of version 2 can be had as. The last one is a name that is no media type, and which clients use.
const V2_TYPES: [&str; 3] = ["application/json", V2_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];

/// A document, gzipped.
#[derive(Clone)]
struct Packed {
    gzip: Bytes,
    plain_length: usize,
    tag: String,
}

/// The documents of a registry.
pub(crate) struct OpenApi {
    registry: Arc<Registry>,
    version: &'static str,
    /// Of a generation of the catalog, by path such as `apis/apps/v1`; the v2 document by its own.
    packed: Arc<Mutex<(u64, HashMap<String, Packed>)>>,
}

impl OpenApi {
    /// Nothing is built yet.
    pub(crate) fn new(registry: Arc<Registry>, version: &'static str) -> Self {
        Self { registry, version, packed: Arc::default() }
    }

    /// `/openapi/v3`: the group versions and the hashes of their documents.
    pub(crate) fn index(&self) -> Response<Body> {
        let mut paths = Map::new();
        let catalog = self.registry.catalog();
        let available = catalog.remotes().filter(|remote| remote.available);
        let others = available.map(|remote| prefix(&remote.group, &remote.version));
        for path in roots::keys(&catalog).into_iter().chain(others) {
            let url = self.url(&path, catalog.generation());
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
        respond::bytes(StatusCode::OK, "application/json", json!({"paths": paths}).to_string())
    }

    /// Where a document is. The hash names what it derives from: this build and the kinds that it serves.
    fn url(&self, path: &str, generation: u64) -> String {
        let seed = format!("{} {path} {} {generation}", self.version, env!("CARGO_PKG_VERSION"));
        format!("/openapi/v3/{path}?hash={}", hash(seed.as_bytes()))
    }

    /// `/openapi/v3/PATH`. A hash in the query makes the answer one that stays true, or leads to the present document.
    pub(crate) async fn v3(&self, path: &str, query: &str, headers: &HeaderMap) -> Response<Body> {
        let (catalog, version, wanted) = (self.registry.catalog(), self.version, path.to_owned());
        if !roots::keys(&catalog).iter().any(|known| known == path) {
            return respond::page_not_found();
        }
        let generation = catalog.generation();
        let url = self.url(path, generation);
        let hash = query.split('&').find_map(|pair| pair.strip_prefix("hash=")).filter(|hash| !hash.is_empty());
        if hash.is_some_and(|hash| !url.ends_with(&format!("?hash={hash}"))) {
            return moved(&url);
        }
        let built = self.packed(path, generation, move || document_v3(&catalog, version, &wanted).to_string().into_bytes()).await;
        let mut response = self.send(built, "application/json", headers);
        if hash.is_some() {
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
        }
        response
    }

    /// `/openapi/v2`, as JSON or in protobuf, whichever the client likes best.
    pub(crate) async fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        let wanted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).filter(|wanted| !wanted.is_empty());
        let (catalog, version) = (self.registry.catalog(), self.version);
        let generation = catalog.generation();
        match negotiate::best(wanted.unwrap_or("*/*"), &V2_TYPES) {
            Some("application/json") => {
                let built = self.packed("v2", generation, move || document_v2(&catalog, version).to_string().into_bytes()).await;
                self.send(built, "application/json", headers)
            }
            Some(_) => {
                let built =
                    self.packed("v2+protobuf", generation, move || gnostic::encode(&document_v2(&catalog, version))).await;
                self.send(built, V2_PROTOBUF, headers)
            }
            None => respond::text(StatusCode::NOT_ACCEPTABLE, Body::Empty),
        }
    }

    async fn packed(&self, key: &str, generation: u64, build: impl FnOnce() -> Vec<u8> + Send + 'static) -> Option<Packed> {
        {
            let mut known = self.packed.lock();
            if known.0 != generation {
                *known = (generation, HashMap::new());
            }
            if let Some(packed) = known.1.get(key) {
                return Some(packed.clone());
            }
        }
        let pack = move || {
            let plain = build();
            let gzip = respond::gzip(&plain).ok()?.into();
            Some(Packed { gzip, plain_length: plain.len(), tag: format!("\"{}\"", hash(&plain)) })
        };
        let packed = tokio::task::spawn_blocking(pack).await.ok()??;
        let mut known = self.packed.lock();
        if known.0 == generation {
            known.1.insert(key.to_owned(), packed.clone());
        }
        Some(packed)
    }

    fn send(&self, packed: Option<Packed>, media_type: &'static str, headers: &HeaderMap) -> Response<Body> {
        let Some(packed) = packed else {
            let status = apimachinery::Status::internal("the OpenAPI document could not be built");
            return respond::failure(crate::negotiate::Accept::default(), &status);
        };
        let takes_gzip = headers.get(ACCEPT_ENCODING).is_some_and(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
        let mut response = match takes_gzip {
            true => respond::bytes(StatusCode::OK, media_type, packed.gzip.clone()),
            false => respond::bytes(StatusCode::OK, media_type, unpack(&packed)),
        };
        if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == packed.tag.as_bytes()) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::Empty;
        }
        let headers = response.headers_mut();
        if takes_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
        if let Ok(tag) = HeaderValue::from_str(&packed.tag) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// To the present document.
fn moved(url: &str) -> Response<Body> {
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, Body::Empty);
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    response
}

fn unpack(packed: &Packed) -> Vec<u8> {
    let mut plain = Vec::with_capacity(packed.plain_length);
    // What was packed here unpacks.
    let _ = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.gzip[..]), &mut plain);
    plain
}

fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `api/v1` or `apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The scheme of authentication that all operations have.
fn bearer_token() -> Value {
    json!({"BearerToken": {
        "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
    }})
}

fn document_v3(catalog: &Catalog, version: &str, path: &str) -> Value {
    let docs = Docs::builtin();
    let operations = Operations::of(catalog, &docs, path);
    let mut schemas = v3_schemas(Schema::builtin(), &docs, &operations.types());
    schemas.extend(custom::schemas(catalog, Some(path), Dialect::V3));
    if path == "version" {
        schemas.extend(roots::definitions());
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": operations.render(Dialect::V3),
        "components": {"schemas": schemas, "securitySchemes": bearer_token()},
    })
}

fn document_v2(catalog: &Catalog, version: &str) -> Value {
    let docs = Docs::builtin();
    let operations = Operations::all(catalog, &docs);
    let mut definitions = v2_definitions(Schema::builtin(), &docs, &operations.types());
    definitions.extend(custom::schemas(catalog, None, Dialect::V2));
    definitions.extend(roots::definitions());
    let mut paths = operations.render(Dialect::V2);
    for other in catalog.remotes().filter_map(|remote| remote.openapi.as_ref()) {
        // A type that both have is the same type.
        for (name, schema) in other["definitions"].as_object().into_iter().flatten() {
            definitions.entry(name.clone()).or_insert_with(|| schema.clone());
        }
        for (path, item) in other["paths"].as_object().into_iter().flatten() {
            paths.entry(path.clone()).or_insert_with(|| item.clone());
        }
    }
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths,
        "definitions": definitions, "securityDefinitions": bearer_token(), "security": [{"BearerToken": []}],
    })
}
