//! The fake's verbs.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};

use super::db::{Db, Event};
use super::path::{Place, Target, parse};
use super::selector::{fields_match, labels_match};
use super::{Answer, Call};

/// What every resource of the fake can.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

type Query = HashMap<String, String>;
type Outcome = Result<(StatusCode, Value), Value>;

pub(super) async fn serve(db: Arc<Db>, request: Request<Body>) -> Response<Answer> {
    let (parts, body) = request.into_parts();
    let query = parse_query(parts.uri.query().unwrap_or_default());
    let accept = parts.headers.get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let metadata_only = accept.contains("as=PartialObjectMetadata");
    let strategic =
        parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().ends_with(b"strategic-merge-patch+json"));
    let json_patch = parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().ends_with(b"json-patch+json"));
    let bytes = body.collect_bytes().await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let path = parts.uri.path();
    if parts.method != Method::GET {
        db.note(Call { method: parts.method.to_string(), path: path.to_owned() });
    }
    // Kubelets do what they are asked.
    if path.starts_with("/api/v1/nodes/") && path.contains("/proxy/") {
        return whole(Ok((StatusCode::OK, json!({}))));
    }
    let target = match parse(path) {
        None => return whole(Err(failure(404, "NotFound", format!("no such path {path}")))),
        Some(Target::Groups { core }) if accept.contains("as=APIGroupDiscoveryList") => {
            return whole(Ok((StatusCode::OK, aggregated(&db, core))));
        }
        Some(Target::Groups { core }) => return whole(Ok((StatusCode::OK, groups(&db, core)))),
        Some(Target::Resources { group, version }) => return whole(resources(&db, &group, &version)),
        Some(Target::Object { place, name, subresource }) => (place, name, subresource),
    };
    let (place, name, subresource) = target;
    if db.is_withdrawn(&place) {
        db.refuse();
        return whole(Err(failure(404, "NotFound", "the server could not find the requested resource".into())));
    }
    let outcome = match (&parts.method, name.as_deref(), subresource.as_deref()) {
        (&Method::GET, None, _) if query.get("watch").is_some_and(|value| value == "true" || value == "1") => {
            return watch(db, place, query, metadata_only);
        }
        (&Method::GET, None, _) => Ok((StatusCode::OK, list(&db, &place, &query, metadata_only))),
        (&Method::GET, Some(name), _) => found(&db, &place, name).map(|value| (StatusCode::OK, value)),
        (&Method::POST, None, _) => create(&db, &place, body),
        (&Method::POST, Some(name), Some("binding")) => bind(&db, &place, name, &body),
        (&Method::POST, Some(name), Some("eviction")) => delete(&db, &place, name, &Value::Null),
        (&Method::PUT, Some(name), sub) => update(&db, &place, name, sub, body),
        (&Method::PATCH, Some(_), _) if json_patch => Err(failure(415, "UnsupportedMediaType", "no JSON patch".into())),
        (&Method::PATCH, Some(name), sub) => patch(&db, &place, name, sub, strategic, &body),
        (&Method::DELETE, Some(name), _) => delete(&db, &place, name, &body),
        (&Method::DELETE, None, _) => delete_collection(&db, &place, &query, &body),
        _ => Err(failure(405, "MethodNotAllowed", "not supported by the fake".into())),
    };
    whole(outcome)
}

fn parse_query(query: &str) -> Query {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                out.push(byte);
                continue;
            }
            let hex: String = bytes.by_ref().take(2).map(char::from).collect();
            out.extend(u8::from_str_radix(&hex, 16));
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

fn failure(code: u16, reason: &str, message: String) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
           "message": message})
}

fn whole(outcome: Outcome) -> Response<Answer> {
    let (status, value) = match outcome {
        Ok(done) => done,
        Err(value) => {
            let code = value["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            (StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), value)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn selected(object: &Value, query: &Query) -> bool {
    query.get("labelSelector").is_none_or(|selector| labels_match(selector, object))
        && query.get("fieldSelector").is_none_or(|selector| fields_match(selector, object))
}

fn shown(mut object: Value, metadata_only: bool) -> Value {
    if !metadata_only {
        return object;
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"].take()})
}

fn list(db: &Db, place: &Place, query: &Query, metadata_only: bool) -> Value {
    let version = db.version().to_string();
    let items = db.list(place).into_iter().filter(|object| selected(object, query));
    let items: Vec<Value> = items.map(|object| shown(object, metadata_only)).collect();
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
}

fn found(db: &Db, place: &Place, name: &str) -> Result<Value, Value> {
    let missing = || failure(404, "NotFound", format!("{} \"{name}\" not found", place.resource));
    db.get(place, name).ok_or_else(missing)
}

fn create(db: &Db, place: &Place, mut object: Value) -> Outcome {
    let uid = db.new_uid();
    let meta = &mut object["metadata"];
    if meta["name"].is_null() {
        let prefix = meta["generateName"].as_str().unwrap_or_default().to_owned();
        meta["name"] = Value::from(format!("{prefix}{}", &uid[uid.len() - 5..]));
    }
    let name = meta["name"].as_str().unwrap_or_default().to_owned();
    if let Some(namespace) = &place.namespace {
        meta["namespace"] = Value::from(namespace.as_str());
    }
    meta["uid"] = Value::from(uid);
    meta["creationTimestamp"] = Value::from(now());
    if db.get(place, &name).is_some() {
        let message = format!("{} \"{name}\" already exists", place.resource);
        return Err(failure(409, "AlreadyExists", message));
    }
    Ok((StatusCode::CREATED, db.put(place, object)))
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn bind(db: &Db, place: &Place, name: &str, binding: &Value) -> Outcome {
    let mut pod = found(db, place, name)?;
    if pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty()) {
        return Err(failure(409, "Conflict", format!("pod {name} is already assigned to a node")));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    db.put(place, pod);
    Ok((StatusCode::CREATED, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})))
}

fn update(db: &Db, place: &Place, name: &str, subresource: Option<&str>, mut object: Value) -> Outcome {
    let old = found(db, place, name)?;
    let version = &object["metadata"]["resourceVersion"];
    if !version.is_null() && *version != old["metadata"]["resourceVersion"] {
        return Err(failure(409, "Conflict", "the object has been modified".into()));
    }
    let uid = &object["metadata"]["uid"];
    if !uid.is_null() && *uid != old["metadata"]["uid"] {
        return Err(failure(409, "Conflict", "the UID in the request does not match".into()));
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "namespace", "generation"] {
        object["metadata"][field] = old["metadata"][field].clone();
    }
    Ok((StatusCode::OK, store(db, place, subresource, old, object)))
}

/// Merges what the subresource may change into the stored object, and removes it when its last finalizer went.
fn store(db: &Db, place: &Place, subresource: Option<&str>, old: Value, new: Value) -> Value {
    let mut merged = match subresource {
        Some("status") => {
            let mut merged = old.clone();
            merged["status"] = new["status"].clone();
            for field in ["annotations", "labels"] {
                merged["metadata"][field] = new["metadata"][field].clone();
            }
            merged
        }
        Some("finalize") => {
            let mut merged = old.clone();
            merged["spec"] = new["spec"].clone();
            merged
        }
        _ => {
            let mut merged = new;
            if !old["status"].is_null() && place.resource != "events" {
                merged["status"] = old["status"].clone();
            }
            merged
        }
    };
    if merged["spec"] != old["spec"] {
        merged["metadata"]["generation"] = json!(old["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
    }
    let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let ending = !merged["metadata"]["deletionTimestamp"].is_null();
    if ending && !held(&merged["metadata"]["finalizers"]) && !held(&merged["spec"]["finalizers"]) {
        return db.remove(place, merged);
    }
    db.put(place, merged)
}

fn patch(db: &Db, place: &Place, name: &str, subresource: Option<&str>, strategic: bool, change: &Value) -> Outcome {
    let old = found(db, place, name)?;
    let wanted = &change["metadata"];
    for field in ["resourceVersion", "uid"] {
        if !wanted[field].is_null() && wanted[field] != old["metadata"][field] {
            return Err(failure(409, "Conflict", format!("the {field} does not match")));
        }
    }
    let mut new = old.clone();
    merge(&mut new, change, strategic);
    Ok((StatusCode::OK, store(db, place, subresource, old, new)))
}

/// The directive of strategic patches that takes values out of a list.
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Lists that strategic patches merge, and by which key; others they replace here.
const MERGED: [(&str, &str); 2] = [("conditions", "type"), ("containers", "name")];

/// RFC 7386, and what components use of strategic patches.
fn merge(target: &mut Value, change: &Value, strategic: bool) {
    let Some(change) = change.as_object() else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in change {
        if let (Some(list), Some(gone)) = (key.strip_prefix(DELETE_FROM_LIST), value.as_array()) {
            if let Some(list) = target[list].as_array_mut() {
                list.retain(|one| !gone.contains(one));
            }
            continue;
        }
        match value {
            Value::Null => {
                target.as_object_mut().map(|object| object.remove(key));
            }
            value => match (MERGED.iter().find(|(name, _)| strategic && name == key), value.as_array()) {
                (Some((_, by)), Some(changes)) => merge_list(&mut target[key], changes, by),
                _ => merge(&mut target[key], value, strategic),
            },
        }
    }
}

fn merge_list(target: &mut Value, changes: &[Value], key: &str) {
    let mut list = target.as_array().cloned().unwrap_or_default();
    for change in changes {
        let known = list.iter().position(|one| one[key] == change[key]);
        match (known, change["$patch"] == "delete") {
            (Some(index), true) => drop(list.remove(index)),
            (Some(index), false) => merge(&mut list[index], change, true),
            (None, true) => {}
            (None, false) => list.push(change.clone()),
        }
    }
    *target = Value::from(list);
}

fn delete(db: &Db, place: &Place, name: &str, options: &Value) -> Outcome {
    let mut object = found(db, place, name)?;
    for field in ["uid", "resourceVersion"] {
        let wanted = &options["preconditions"][field];
        if !wanted.is_null() && *wanted != object["metadata"][field] {
            return Err(failure(409, "Conflict", format!("the {field} in the precondition does not match")));
        }
    }
    let finalizer = match options["propagationPolicy"].as_str() {
        Some("Foreground") => Some("foregroundDeletion"),
        Some("Orphan") => Some("orphan"),
        _ => None,
    };
    if let Some(finalizer) = finalizer {
        let finalizers = &mut object["metadata"]["finalizers"];
        let mut list = finalizers.as_array().cloned().unwrap_or_default();
        list.push(Value::from(finalizer));
        *finalizers = Value::from(list);
    }
    let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    if held(&object["metadata"]["finalizers"]) || held(&object["spec"]["finalizers"]) {
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = Value::from(now());
        }
        if place.resource == "namespaces" {
            object["status"]["phase"] = Value::from("Terminating");
        }
        return Ok((StatusCode::OK, db.put(place, object)));
    }
    Ok((StatusCode::OK, db.remove(place, object)))
}

fn delete_collection(db: &Db, place: &Place, query: &Query, options: &Value) -> Outcome {
    for object in db.list(place).iter().filter(|object| selected(object, query)) {
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        let place = Place { namespace: text("namespace"), ..place.clone() };
        delete(db, &place, &text("name").unwrap_or_default(), options)?;
    }
    Ok((StatusCode::OK, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})))
}

fn groups(db: &Db, core: bool) -> Value {
    if core {
        return json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []});
    }
    let mut names = db.served(|served| (!served.group.is_empty()).then(|| (served.group.clone(), served.version.clone())));
    names.sort();
    names.dedup_by(|a, b| a.0 == b.0);
    let group = |(name, version): &(String, String)| {
        let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": names.iter().map(group).collect::<Vec<_>>()})
}

/// All groups with their resources: `APIGroupDiscoveryList`. The version that was announced first is preferred.
fn aggregated(db: &Db, core: bool) -> Value {
    let all = db.served(|served| (served.group.is_empty() == core).then(|| (served.group.clone(), served.version.clone())));
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (group, version) in all {
        let versions = groups.entry(group).or_default();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let of_version = |group: &str, version: &str| {
        let resources = db.served(|served| {
            (served.group == group && served.version == version).then(|| {
                let scope = if served.namespaced { "Namespaced" } else { "Cluster" };
                json!({"resource": served.plural, "scope": scope, "verbs": VERBS,
                       "responseKind": {"group": group, "version": version, "kind": served.kind}})
            })
        });
        json!({"version": version, "freshness": "Current", "resources": resources})
    };
    let items = groups.iter().map(|(group, versions)| {
        let versions: Vec<Value> = versions.iter().map(|version| of_version(group, version)).collect();
        json!({"metadata": {"name": group}, "versions": versions})
    });
    let items: Vec<Value> = items.collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn resources(db: &Db, group: &str, version: &str) -> Outcome {
    let resources = db.served(|served| {
        (served.group == group && served.version == version).then(|| {
            json!({"name": served.plural, "singularName": "", "kind": served.kind, "namespaced": served.namespaced,
                   "verbs": VERBS})
        })
    });
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources});
    Ok((StatusCode::OK, list))
}

fn watch(db: Arc<Db>, place: Place, query: Query, metadata_only: bool) -> Response<Answer> {
    let mut first = Vec::new();
    let mut after = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    if query.get("sendInitialEvents").is_some_and(|value| value == "true") {
        after = db.version();
        for object in db.list(&place).into_iter().filter(|object| selected(object, &query)) {
            first.push(line("ADDED", shown(object, metadata_only)));
        }
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        let meta = json!({"resourceVersion": after.to_string(), "annotations": annotations});
        first.push(line("BOOKMARK", json!({"kind": "Object", "apiVersion": "v1", "metadata": meta})));
    }
    let version = db.subscribe();
    let rest = stream::unfold((db, place, query, after, version), move |(db, place, query, mut after, mut version)| async move {
        loop {
            if db.is_withdrawn(&place) {
                return None;
            }
            let (events, upto) = db.since(&place, after);
            after = upto;
            let lines: Vec<_> = events.into_iter().filter_map(|event| event_line(event, &query, metadata_only)).collect();
            if !lines.is_empty() {
                return Some((stream::iter(lines), (db, place, query, after, version)));
            }
            version.changed().await.ok()?;
        }
    });
    let lines = stream::iter(first).chain(rest.flatten());
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

/// How an event looks to a watcher with selectors: objects come in and go out of its sight.
fn event_line(event: Event, query: &Query, metadata_only: bool) -> Option<Bytes> {
    let before = event.old.as_ref().is_some_and(|old| selected(old, query));
    let after = event.kind != "DELETED" && selected(&event.object, query);
    let kind = match (before, after) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    Some(line(kind, shown(event.object, metadata_only)))
}

fn line(kind: &str, object: Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}
