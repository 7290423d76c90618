//! Chunks of lists and tables.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, get, labelled, send, version};
use crate::server::{admin, namespace, start};

/// Conformance: [sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]
#[tokio::test]
async fn pages_of_one_version() {
    const OBJECTS: usize = 40;
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    for number in 0..OBJECTS {
        send(api, 201, &format!("POST {CONFIG_MAPS}"), &labelled(&format!("m{number:02}"), "a", "b")).await;
    }
    for limit in [1, 7, 39, 40, 41] {
        let first = get(api, &format!("{CONFIG_MAPS}?limit={limit}")).await;
        let (mut names, mut page) = (Vec::new(), first.clone());
        loop {
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit, "{limit}: {} items", items.len());
            assert_eq!(version(&page), version(&first), "all pages are of one version");
            names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
            let remaining = page["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
            assert_eq!(names.len() + usize::try_from(remaining).unwrap(), OBJECTS, "{limit}");
            let Some(token) = page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) else { break };
            // What comes between two pages is on none of them.
            send(api, 201, &format!("POST {CONFIG_MAPS}"), &labelled("m99", "a", "b")).await;
            page = get(api, &format!("{CONFIG_MAPS}?limit={limit}&continue={token}")).await;
            send(api, 200, &format!("DELETE {CONFIG_MAPS}/m99"), &Value::Null).await;
        }
        assert!(names.is_sorted() && names.len() == OBJECTS, "{limit}: {names:?}");
    }
    let whole = get(api, CONFIG_MAPS).await;
    assert_eq!((whole["items"].as_array().unwrap().len(), &whole["metadata"]["continue"]), (OBJECTS, &Value::Null));
}

/// Conformance: [sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata [Conformance]
#[tokio::test]
async fn no_table_of_a_review() {
    let server = start(true).await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = admin(&server.api, &format!("{path}\naccept: application/json;as=Table;g=meta.k8s.io;v=v1\n\n{review}")).await;
    assert_eq!((answer.code, &answer.json()["reason"]), (406, &json!("NotAcceptable")), "{:?}", answer.body);
    let either = "accept: application/json;as=Table;g=meta.k8s.io;v=v1, application/json";
    assert_eq!(admin(&server.api, &format!("{path}\n{either}\n\n{review}")).await.code, 201);
}
