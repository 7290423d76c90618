//! OpenAPI documents. They are put together of compressed parts ([`part`]), one of each kind in each form, which are made when they are first
//! asked for and kept with what is served: a change of one definition costs what that one says.

mod contents;
mod custom;
mod gnostic;
mod maker;
mod operation;
mod options;
mod part;
mod parts;
mod paths;
mod resource;
mod roots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use registry::Registry;
use serde_json::{Map, json};

use crate::body::Body;
use crate::{negotiate, respond};
use contents::Contents;
use maker::Maker;
use part::Document;
use parts::Form;

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const JSON: &str = "application/json";
/// What documents of version 3 can be had as. Upstream has them in protobuf, too, which none of its clients asks for.
const V3_TYPES: [&str; 1] = [JSON];
/// What the document of version 2 can be had as. The last one is a name that is no media type, and which clients use.
const V2_TYPES: [&str; 3] = [JSON, V2_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];

/// The documents of a registry.
pub(crate) struct OpenApi {
    maker: Arc<Maker>,
    known: Mutex<Option<Known>>,
    /// Held while a document of a form is made, so that nothing is made twice.
    making: [tokio::sync::Mutex<()>; 3],
}

/// What has been put together of a generation of the catalog.
struct Known {
    contents: Arc<Contents>,
    /// By form and key; those of version 2 have none.
    documents: HashMap<(Form, String), Document>,
}

/// Something could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the OpenAPI document could not be built")]
struct Unmade;

impl OpenApi {
    /// Nothing is built yet.
    pub(crate) fn new(registry: Arc<Registry>, version: &'static str) -> Self {
        Self { maker: Arc::new(Maker::new(registry, version)), known: Mutex::default(), making: Default::default() }
    }

    /// `/openapi/v3`: the group versions and the hashes of their documents.
    pub(crate) async fn index(&self) -> Response<Body> {
        let Ok(contents) = self.contents().await else { return unmade() };
        let own = contents.own.iter().map(|(key, told)| (key, &told.hash));
        let paths: Map<_, _> = own
            .chain(&contents.others)
            .map(|(key, hash)| (key.clone(), json!({"serverRelativeURL": Contents::url(key, hash)})))
            .collect();
        respond::bytes(StatusCode::OK, "application/json", json!({"paths": paths}).to_string())
    }

    /// `/openapi/v3/PATH`, as JSON. A hash in the query makes the answer one that stays true, or leads to the present document.
    pub(crate) async fn v3(&self, path: &str, query: &str, headers: &HeaderMap) -> Response<Body> {
        let Ok(contents) = self.contents().await else { return unmade() };
        let Some(told) = contents.own.get(path) else { return respond::page_not_found() };
        if best(headers, &V3_TYPES).is_none() {
            return not_acceptable();
        }
        let hash = query.split('&').find_map(|pair| pair.strip_prefix("hash=")).filter(|hash| !hash.is_empty());
        if hash.is_some_and(|hash| hash != told.hash) {
            return moved(&Contents::url(path, &told.hash));
        }
        let mut response = self.send(&contents, Form::V3, path, &told.hash, headers).await;
        if hash.is_some() {
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
        }
        response
    }

    /// `/openapi/v2`, as JSON or in protobuf, whichever the client likes best.
    pub(crate) async fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        let form = match best(headers, &V2_TYPES) {
            Some(JSON) => Form::V2,
            Some(_) => Form::Protobuf,
            None => return not_acceptable(),
        };
        let Ok(contents) = self.contents().await else { return unmade() };
        self.send(&contents, form, "", &contents.all, headers).await
    }

    async fn contents(&self) -> Result<Arc<Contents>, Unmade> {
        let generation = self.maker.registry.catalog().generation();
        if let Some(known) = self.known.lock().as_ref().filter(|known| known.contents.catalog.generation() >= generation) {
            return Ok(known.contents.clone());
        }
        let maker = self.maker.clone();
        let made = tokio::task::spawn_blocking(move || Arc::new(maker.contents())).await.map_err(|_| Unmade)?;
        let mut known = self.known.lock();
        match &*known {
            Some(known) if known.contents.catalog.generation() >= made.catalog.generation() => Ok(known.contents.clone()),
            _ => {
                *known = Some(Known { contents: made.clone(), documents: HashMap::new() });
                Ok(made)
            }
        }
    }

    async fn document(&self, contents: &Arc<Contents>, form: Form, key: &str) -> Result<Document, Unmade> {
        let _making = self.making[form as usize].lock().await;
        if let Some(known) = self.kept(contents).as_ref().and_then(|documents| documents.get(&(form, key.to_owned()))) {
            return Ok(known.clone());
        }
        let (maker, of, wanted) = (self.maker.clone(), contents.clone(), key.to_owned());
        let make = move || match (form, of.own.get(&wanted)) {
            (Form::V3, told) => told.map(|told| maker.v3(&of, &wanted, told)).unwrap_or_default(),
            (form, _) => maker.v2(&of, form),
        };
        let made = tokio::task::spawn_blocking(make).await.map_err(|_| Unmade)?;
        if let Some(mut documents) = self.kept(contents) {
            documents.insert((form, key.to_owned()), made.clone());
        }
        Ok(made)
    }

    /// What has been put together of this, if nothing has changed in between.
    fn kept(&self, contents: &Arc<Contents>) -> Option<MappedMutexGuard<'_, HashMap<(Form, String), Document>>> {
        let known = MutexGuard::try_map(self.known.lock(), Option::as_mut).ok()?;
        let is_of = |known: &Known| Arc::ptr_eq(&known.contents, contents);
        is_of(&known).then(|| MappedMutexGuard::map(known, |known| &mut known.documents))
    }

    async fn send(&self, contents: &Arc<Contents>, form: Form, key: &str, hash: &str, headers: &HeaderMap) -> Response<Body> {
        // In protobuf it is another one.
        let (media_type, tag) = match form {
            Form::Protobuf => (V2_PROTOBUF, format!("\"{hash}-protobuf\"")),
            Form::V2 | Form::V3 => (JSON, format!("\"{hash}\"")),
        };
        let mut response = respond::bytes(StatusCode::OK, media_type, Body::Empty);
        let gzip = headers.get(ACCEPT_ENCODING).is_some_and(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
        if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            let Ok(document) = self.document(contents, form, key).await else { return unmade() };
            *response.body_mut() = if gzip { document.gzip() } else { document.plain() };
        }
        let headers = response.headers_mut();
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(VARY, VARIES);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// What answers depend on.
const VARIES: HeaderValue = HeaderValue::from_static("Accept-Encoding, Accept");

/// What of this the client likes best; without a word about it that is the first.
fn best(headers: &HeaderMap, served: &[&'static str]) -> Option<&'static str> {
    let wanted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).filter(|wanted| !wanted.is_empty());
    negotiate::best(wanted.unwrap_or("*/*"), served)
}

fn not_acceptable() -> Response<Body> {
    let mut response = respond::text(StatusCode::NOT_ACCEPTABLE, Body::Empty);
    response.headers_mut().insert(VARY, VARIES);
    response
}

fn unmade() -> Response<Body> {
    respond::failure(negotiate::Accept::default(), &apimachinery::Status::internal(Unmade))
}

/// To the present document.
fn moved(url: &str) -> Response<Body> {
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, Body::Empty);
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    response
}

/// `api/v1` or `apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}
