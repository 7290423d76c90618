//! Lists in pages, and what becomes of objects afterwards.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use http::Method;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::discovery::{Resource, escaped};
use crate::error::{Error, Result};
use crate::session::{JSON, Payload, Session};

/// Objects of a page, as kubectl asks for them.
const PAGE: usize = 500;

/// Time before a watch that told nothing is begun again.
const PAUSE: Duration = Duration::from_millis(500);

/// A path with parameters.
pub(crate) fn with_query(path: &str, parameters: &[&str]) -> String {
    let parameters: Vec<_> = parameters.iter().copied().filter(|parameter| !parameter.is_empty()).collect();
    if parameters.is_empty() { path.to_owned() } else { format!("{path}?{}", parameters.join("&")) }
}

/// A whole list, page by page: the first page, with the rows or items of all others in it.
///
/// # Errors
/// The API refuses, or is not reached.
pub(crate) async fn list(session: &Session, path: &str, query: &str, accept: &str) -> Result<Value> {
    let mut whole = Value::Null;
    let mut token = String::new();
    loop {
        let limit = format!("limit={PAGE}");
        let page = with_query(path, &[query, &limit, &token]);
        let (_, mut page) = session.ask(Method::GET, &page, accept, Payload::default()).await?;
        let next = page["metadata"]["continue"].as_str().map(escaped).filter(|next| !next.is_empty());
        if whole.is_null() {
            whole = page;
        } else {
            for field in ["items", "rows"] {
                if let (Some(all), Some(more)) = (whole[field].as_array_mut(), page[field].as_array_mut()) {
                    all.append(more);
                }
            }
            whole["metadata"]["resourceVersion"] = page["metadata"]["resourceVersion"].take();
        }
        match next {
            Some(next) => token = format!("continue={next}"),
            None => break,
        }
    }
    if let Some(metadata) = whole["metadata"].as_object_mut() {
        metadata.remove("continue");
        metadata.remove("remainingItemCount");
    }
    Ok(whole)
}

/// Shows each event of a watch that begins after `version`: its type, and its object in the form that was asked for. Servers end watches from
/// time to time; then it goes on where it was.
///
/// # Errors
/// The API refuses or is not reached, the history is gone, or `each` fails.
pub(crate) async fn watch<B>(
    session: &Session,
    path: &str,
    query: &str,
    accept: &str,
    version: &str,
    mut each: impl FnMut(&str, &mut Value) -> Result<ControlFlow<B>>,
) -> Result<B> {
    let mut version = version.to_owned();
    loop {
        let from = format!("resourceVersion={}", escaped(&version));
        let path = with_query(path, &[query, "watch=true&allowWatchBookmarks=true", &from]);
        let mut lines = session.stream(&path, accept).await?.lines();
        let mut told = false;
        while let Some(line) = lines.next().await {
            // A connection that breaks is an end like any other.
            let Ok(line) = line else { break };
            let Ok(mut event) = serde_json::from_str::<Value>(&line) else { continue };
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            if kind == "ERROR" {
                let status = serde_json::from_value(event["object"].take()).unwrap_or_default();
                return Err(Error::Api(Box::new(status)));
            }
            if let Some(seen) = seen_version(&event["object"]) {
                version = seen;
            }
            if kind == "BOOKMARK" {
                continue;
            }
            told = true;
            if let ControlFlow::Break(value) = each(&kind, &mut event["object"])? {
                return Ok(value);
            }
        }
        if !told {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The version of an object, or of what the row of a table shows.
fn seen_version(object: &Value) -> Option<String> {
    let row = &object["rows"][0]["object"]["metadata"]["resourceVersion"];
    let version = row.as_str().or(object["metadata"]["resourceVersion"].as_str()).filter(|version| !version.is_empty())?;
    Some(version.to_owned())
}

/// Looks at an object, none while it is not there, now and at each change, until `each` has seen enough or the time is over.
///
/// # Errors
/// The API refuses or is not reached, or `each` fails. At the end of the time, [`Error::Timeout`] without a text.
pub(crate) async fn follow<B>(
    session: &Session,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
    deadline: Option<Instant>,
    mut each: impl FnMut(Option<&Value>) -> Result<ControlFlow<B>>,
) -> Result<B> {
    let following = async {
        let path = resource.collection(namespace);
        let query = format!("fieldSelector={}", escaped(&format!("metadata.name={name}")));
        loop {
            let found = list(session, &path, &query, JSON).await?;
            if let ControlFlow::Break(value) = each(found["items"].as_array().and_then(|items| items.first()))? {
                return Ok(value);
            }
            let version = found["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let changes =
                watch(session, &path, &query, JSON, version, |kind, object| each(Some(&*object).filter(|_| kind != "DELETED")));
            match changes.await {
                // History that is gone: the list says what is now.
                Err(Error::Api(status)) if status.code == 410 => {}
                ended => return ended,
            }
        }
    };
    match deadline {
        None => following.await,
        Some(deadline) => timeout_at(deadline, following).await.unwrap_or_else(|_| Err(Error::Timeout(String::new()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_with_parameters() {
        assert_eq!(with_query("/api", &["", "a=b", "", "c=d"]), "/api?a=b&c=d");
        assert_eq!(with_query("/api", &[""]), "/api");
    }

    #[test]
    fn versions_of_events() {
        let check = |object: Value, expected: Option<&str>| assert_eq!(seen_version(&object).as_deref(), expected);
        check(json!({"metadata": {"resourceVersion": "7"}}), Some("7"));
        check(json!({"metadata": {}, "rows": [{"object": {"metadata": {"resourceVersion": "8"}}}]}), Some("8"));
        check(json!({"kind": "Status"}), None);
    }
}
