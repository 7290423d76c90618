//! OpenAPI documents: built when first asked for, kept compressed.

mod gnostic;
mod paths;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use registry::{Catalog, Registry};
use schema::openapi::{Docs, v2_definitions, v3_schemas};
use schema::{Schema, TypeId};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::respond;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2";
const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

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
        for path in self.group_versions() {
            // The hash names what the document derives from: this build and the kinds that it serves.
            let generation = self.registry.catalog().generation();
            let seed = format!("{} {path} {} {generation}", self.version, env!("CARGO_PKG_VERSION"));
            let url = format!("/openapi/v3/{path}?hash={}", hash(seed.as_bytes()));
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
        respond::bytes(StatusCode::OK, "application/json", json!({"paths": paths}).to_string())
    }

    fn group_versions(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.registry.catalog().iter().map(|served| prefix(served.def.group, served.def.version)).collect();
        all.sort();
        all.dedup();
        all
    }

    /// `/openapi/v3/PATH`.
    pub(crate) async fn v3(&self, path: &str, headers: &HeaderMap) -> Response<Body> {
        if !self.group_versions().iter().any(|known| known == path) {
            return respond::page_not_found();
        }
        let (catalog, version, wanted) = (self.registry.catalog(), self.version, path.to_owned());
        let generation = catalog.generation();
        let built = self.packed(path, generation, move || document_v3(&catalog, version, &wanted).to_string().into_bytes()).await;
        self.send(built, "application/json", headers)
    }

    /// `/openapi/v2`, as JSON or in protobuf, whichever the client names first.
    pub(crate) async fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        let wanted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let protobuf = wanted.split(',').next().is_some_and(|first| first.trim_start().starts_with(V2_PROTOBUF));
        let (catalog, version) = (self.registry.catalog(), self.version);
        let generation = catalog.generation();
        if protobuf {
            let built = self.packed("v2+protobuf", generation, move || gnostic::encode(&document_v2(&catalog, version))).await;
            return self.send(built, V2_PROTOBUF_TYPE, headers);
        }
        let built = self.packed("v2", generation, move || document_v2(&catalog, version).to_string().into_bytes()).await;
        self.send(built, "application/json", headers)
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

/// The types whose schemas a group version's document needs.
fn roots(catalog: &Catalog, only: Option<&str>) -> Vec<TypeId> {
    let schema = Schema::builtin();
    let mut roots = Vec::new();
    for resource in catalog.iter().filter(|r| only.is_none_or(|path| prefix(r.def.group, r.def.version) == path)) {
        let def = resource.def;
        roots.push(resource.schema_type());
        roots.extend(schema.kind(def.group, def.version, &def.list_kind()));
        roots.extend(def.subresources.iter().filter_map(|sub| {
            let (group, version, kind) = def.body_kind(Some(sub));
            schema.kind(group, version, kind)
        }));
        roots.extend(schema.kind(def.group, def.version, "DeleteOptions"));
        roots.extend(schema.kind(def.group, def.version, "WatchEvent"));
    }
    roots.extend(schema.named("io.k8s.apimachinery.pkg.apis.meta.v1.Status"));
    roots
}

fn document_v3(catalog: &Catalog, version: &str, path: &str) -> Value {
    let schemas = v3_schemas(Schema::builtin(), &Docs::builtin(), &roots(catalog, Some(path)));
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths::v3(catalog, path),
        "components": {"schemas": schemas, "securitySchemes": {"BearerToken": {
            "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
        }}},
    })
}

fn document_v2(catalog: &Catalog, version: &str) -> Value {
    let definitions = v2_definitions(Schema::builtin(), &Docs::builtin(), &roots(catalog, None));
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths::v2(catalog), "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
        }},
        "security": [{"BearerToken": []}],
    })
}
