//! The forms of answers: indented or not, tables, metadata, compressed, in pieces.

use std::io::Read;

use serde_json::{Value, json};

use crate::server::{Answer, Server, admin, config_map, namespace, populated_namespace, start};

const PATH: &str = "/api/v1/namespaces/n/configmaps";
const TABLE: &str = "accept: application/json;as=Table;v=v1;g=meta.k8s.io";

async fn with_maps(count: usize, size: usize) -> Server {
    let server = start(true).await;
    namespace(&server.api, "n").await;
    for number in 0..count {
        let mut map = config_map(&format!("m{number:03}"));
        map["data"]["a"] = "line\nline: \"x\" ".repeat(size / 15).into();
        assert_eq!(admin(&server.api, &format!("POST {PATH}\n\n{map}")).await.code, 201);
    }
    server
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

/// The answer's JSON, whatever its transfer form; an indented one must be what indents the same.
fn check_indented(answer: &Answer) -> Value {
    let value = answer.json();
    assert_eq!(text(answer), serde_json::to_string_pretty(&schema::Ordered::new(schema::Schema::builtin(), &value)).unwrap());
    value
}

/// Upstream's printers: rows of FlowSchemas are in the order in which they match, whatever their names.
#[tokio::test]
async fn rows_in_an_order_of_their_own() {
    let server = start(true).await;
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let precedence = [("a", 900), ("b", 200), ("c", 900), ("d", 100)];
    for (name, precedence) in precedence {
        let spec = json!({"priorityLevelConfiguration": {"name": "x"}, "matchingPrecedence": precedence});
        let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name, "labels": {"own": "y"}}, "spec": spec});
        assert_eq!(admin(&server.api, &format!("POST {path}\n\n{schema}")).await.code, 201);
    }
    let names = async |accept: &str, items: &str, pointer: &str| -> Vec<Value> {
        let list = admin(&server.api, &format!("GET {path}?labelSelector=own\n{accept}")).await.json();
        list[items].as_array().unwrap().iter().map(|item| item.pointer(pointer).unwrap().clone()).collect()
    };
    assert_eq!(names(TABLE, "rows", "/cells/0").await, ["d", "b", "a", "c"]);
    assert_eq!(names("accept: application/json", "items", "/metadata/name").await, ["a", "b", "c", "d"]);
}

/// Upstream's `podSuccessConditions` and `podFailedConditions`, in lists and of one pod.
#[tokio::test]
async fn rows_of_pods_that_have_ended_say_so() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let path = "/api/v1/namespaces/n/pods";
    for (name, phase) in [("a", "Succeeded"), ("b", "Failed"), ("c", "Running")] {
        let spec = json!({"containers": [{"name": "c", "image": "x"}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        assert_eq!(admin(api, &format!("POST {path}\n\n{pod}")).await.code, 201);
        let status = json!({"status": {"phase": phase}});
        let request = format!("PATCH {path}/{name}/status\ncontent-type: application/merge-patch+json");
        assert_eq!(admin(api, &format!("{request}\n\n{status}")).await.code, 200);
    }
    let told =
        |reason: &str, message: &str| json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
    let expected =
        [told("Succeeded", "The pod has completed successfully."), told("Failed", "The pod failed."), Value::Null].to_vec();
    let list = admin(api, &format!("GET {path}\n{TABLE}")).await.json();
    let rows = list["rows"].as_array().unwrap().iter().map(|row| row["conditions"].clone());
    assert_eq!(rows.collect::<Vec<_>>(), expected);
    let one = admin(api, &format!("GET {path}/a\n{TABLE}")).await.json();
    assert_eq!(one["rows"][0]["conditions"], expected[0]);
}

#[tokio::test]
async fn people_get_indented_json_in_the_order_of_go() {
    let server = with_maps(2, 30).await;
    let api = &server.api;
    let curl = "user-agent: curl/8.5.0";
    let one = admin(api, &format!("GET {PATH}/m000\n{curl}")).await;
    assert!(
        text(&one).starts_with(
            "{\n  \"kind\": \"ConfigMap\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {\n    \"name\": \"m000\",\n"
        ),
        "{}",
        text(&one)
    );
    check_indented(&one);
    let list = check_indented(&admin(api, &format!("GET {PATH}\n{curl}")).await);
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 2));
    let none = check_indented(&admin(api, &format!("GET {PATH}?labelSelector=x\n{curl}")).await);
    assert_eq!(none["items"], json!([]));
    let table = check_indented(&admin(api, &format!("GET {PATH}\n{curl}\n{TABLE}")).await);
    assert_eq!(table["rows"].as_array().unwrap().len(), 2);
    check_indented(&admin(api, &format!("GET {PATH}/none\n{curl}")).await);
    check_indented(&admin(api, &format!("GET {PATH}/m000?pretty=1")).await);
    check_indented(&admin(api, &format!("GET /apis\n{curl}")).await);
    let plain = admin(api, &format!("GET {PATH}/m000?pretty=false\n{curl}")).await;
    assert!(!plain.body.contains(&b'\n'));
    // Not what is no API object, and what cannot be negotiated: always.
    assert!(
        text(&admin(api, "GET /version").await).starts_with("{\n  \"major\": \"1\",\n  \"minor\": \"36\",\n  \"emulationMajor\"")
    );
    let refused = admin(api, &format!("GET {PATH}\naccept: text/html")).await;
    assert_eq!(refused.code, 406);
    check_indented(&refused);
}

#[tokio::test]
async fn keys_come_in_upstreams_order() {
    let server = start(true).await;
    let missing = admin(&server.api, "GET /api/v1/namespaces/default/configmaps/x").await;
    let expected = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"configmaps"},"code":404}"#;
    assert_eq!(text(&missing).trim_end(), expected);
    // Upstream's test/cmd/discovery.sh looks for this very text.
    let core = admin(&server.api, "GET /api/v1").await;
    let expected = r#"{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["cm"],"storageVersionHash":"qFsyl6wFWjQ="}"#;
    assert!(
        text(&core).starts_with(r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":["#),
        "{}",
        text(&core)
    );
    assert!(text(&core).contains(expected), "{}", text(&core));
    let groups =
        admin(&server.api, "GET /apis\naccept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await;
    assert!(
        text(&groups).starts_with(
            r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[{"metadata":{"name":"#
        ),
        "{}",
        text(&groups)
    );
}

/// All forms of a list that is sent in pieces hold the same objects.
#[tokio::test]
async fn lists_in_pieces() {
    let server = with_maps(300, 600).await;
    let api = &server.api;
    let whole = admin(api, &format!("GET {PATH}")).await;
    let expected = whole.json();
    let ask = async |accept: &str, query: &str| admin(api, &format!("GET {PATH}?{query}\n{accept}")).await;
    assert_eq!(check_indented(&ask("user-agent: Wget/1.2", "").await), expected);
    let yaml = ask("accept: application/yaml", "").await;
    let parsed: Value = serde_saphyr::from_slice(&yaml.body).unwrap();
    assert_eq!(parsed, expected);
    let names = |list: &Value, pointer: &str| -> Vec<Value> {
        list["items"]
            .as_array()
            .or(list["rows"].as_array())
            .unwrap()
            .iter()
            .map(|item| item.pointer(pointer).unwrap().clone())
            .collect()
    };
    let wanted = names(&expected, "/metadata/name");
    let table = ask(TABLE, "").await.json();
    assert_eq!(names(&table, "/cells/0"), wanted);
    assert_eq!(names(&table, "/object/metadata"), names(&expected, "/metadata"));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    let table = ask(TABLE, "includeObject=Object").await.json();
    assert_eq!(names(&table, "/object"), *expected["items"].as_array().unwrap());
    let beta = ask("accept: application/yaml;as=Table;v=v1beta1;g=meta.k8s.io", "includeObject=None").await;
    let beta: Value = serde_saphyr::from_slice(&beta.body).unwrap();
    assert_eq!((names(&beta, "/cells/0"), &beta["apiVersion"]), (wanted.clone(), &json!("meta.k8s.io/v1beta1")));
    assert_eq!(beta["rows"][0]["object"], Value::Null);
    for version in ["v1", "v1beta1"] {
        let list =
            ask(&format!("accept: application/json;as=PartialObjectMetadataList;v={version};g=meta.k8s.io"), "").await.json();
        assert_eq!(names(&list, "/metadata"), names(&expected, "/metadata"));
        let kinds = [&list["kind"], &list["items"][0]["kind"], &list["items"][0]["apiVersion"]];
        assert_eq!(
            kinds,
            [&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"), &json!(format!("meta.k8s.io/{version}"))]
        );
    }
}

#[tokio::test]
async fn lists_in_protobuf() {
    let server = with_maps(100, 600).await;
    let api = &server.api;
    let expected = admin(api, &format!("GET {PATH}")).await.json();
    let decode = |answer: &Answer, ty: (&str, &str)| {
        let (version, kind, raw) = schema::protobuf::unwrap_envelope(&answer.body).unwrap();
        let ty = schema::Schema::builtin().kind(ty.0, "v1", ty.1).unwrap();
        (version.to_owned(), kind.to_owned(), schema::protobuf::decode(schema::Schema::builtin(), ty, raw).unwrap())
    };
    let list = admin(api, &format!("GET {PATH}\naccept: application/vnd.kubernetes.protobuf")).await;
    let (version, kind, list) = decode(&list, ("", "ConfigMapList"));
    assert_eq!((version.as_str(), kind.as_str(), &list["metadata"]), ("v1", "ConfigMapList", &expected["metadata"]));
    let (ours, theirs) = (list["items"].as_array().unwrap(), expected["items"].as_array().unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!((&ours["metadata"], &ours["data"]), (&theirs["metadata"], &theirs["data"]));
    }
    let partial = "accept: application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (version, _, list) =
        decode(&admin(api, &format!("GET {PATH}\n{partial}")).await, ("meta.k8s.io", "PartialObjectMetadataList"));
    assert_eq!((version.as_str(), &list["items"][7]["metadata"]), ("meta.k8s.io/v1", &expected["items"][7]["metadata"]));
    // In the older version items have number 1 and the list's metadata number 2.
    let beta = admin(api, &format!("GET {PATH}\n{partial}beta1")).await;
    let (version, _, raw) = schema::protobuf::unwrap_envelope(&beta.body).unwrap();
    assert_eq!((version, raw[0]), ("meta.k8s.io/v1beta1", 1 << 3 | 2));
    let one = admin(api, &format!("GET {PATH}/m000\n{}", partial.replace("List", ""))).await;
    assert_eq!(decode(&one, ("meta.k8s.io", "PartialObjectMetadata")).2["metadata"], expected["items"][0]["metadata"]);
}

/// `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`: above 128 KiB, and only for who takes gzip.
#[tokio::test]
async fn compression() {
    let server = with_maps(100, 2000).await;
    let api = &server.api;
    let unpack = |answer: &Answer| {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
        plain
    };
    for accept in [
        "application/json",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
    ] {
        let plain = admin(api, &format!("GET {PATH}\naccept: {accept}")).await;
        let packed = admin(api, &format!("GET {PATH}\naccept: {accept}\naccept-encoding: gzip, br")).await;
        assert_eq!(packed.headers["content-encoding"], "gzip", "{accept}");
        assert_eq!(packed.headers["vary"], "Accept-Encoding", "{accept}");
        assert!(packed.body.len() * 4 < plain.body.len() || accept.contains("Table"), "{accept}");
        assert_eq!(unpack(&packed).len(), plain.body.len(), "{accept}");
        assert!(unpack(&packed) == plain.body || accept.contains("Table"), "{accept}");
    }
    let small = admin(api, &format!("GET {PATH}?limit=10\naccept-encoding: gzip")).await;
    assert_eq!(small.headers.get("content-encoding"), None);
}

#[tokio::test]
async fn shapes_that_do_not_fit() {
    let server = with_maps(1, 30).await;
    let api = &server.api;
    let check = async |request: &str, code: u16, message: &str| {
        let answer = admin(api, request).await;
        let status: Value = serde_saphyr::from_slice(&answer.body).unwrap();
        assert_eq!(answer.code, code, "{request}: {status}");
        assert!(status["message"].as_str().unwrap_or_default().contains(message), "{request}: {status}");
    };
    let partial = |list: &str| format!("accept: application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1");
    check(
        &format!("GET {PATH}\n{}", partial("")),
        406,
        "you requested PartialObjectMetadata, but the requested object is a list",
    )
    .await;
    check(
        &format!("GET {PATH}/m000\n{}", partial("List")),
        406,
        "you requested PartialObjectMetadataList, but the requested object is not a list",
    )
    .await;
    let include = "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', 'None', or empty";
    check(&format!("GET {PATH}?includeObject=All\n{TABLE}"), 400, include).await;
    check(&format!("GET {PATH}/m000?includeObject=All\n{TABLE}"), 400, include).await;
    check(&format!("GET {PATH}?watch=1&includeObject=All\n{TABLE}"), 400, include).await;
    let streams = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    check(&format!("GET {PATH}?watch=1\naccept: application/yaml"), 406, streams).await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "n"}});
    let reviews = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    check(&format!("{reviews}\n{TABLE}\n\n{review}"), 406, "only the following media types are accepted").await;
    check(&format!("POST {PATH}\ncontent-type: application/cbor\n\nx"), 415, "the body of the request was in an unknown format")
        .await;
    check(&format!("GET {PATH}\naccept: application/cbor"), 406, "only the following media types are accepted").await;
}

/// What is no number is no version (`storage.Versioner.ObjectResourceVersion`).
#[tokio::test]
async fn versions_of_new_objects() {
    let server = start(true).await;
    namespace(&server.api, "n").await;
    let create = async |name: &str, version: &str| {
        let mut map = config_map(name);
        map["metadata"]["resourceVersion"] = version.into();
        admin(&server.api, &format!("POST {PATH}\n\n{map}")).await.code
    };
    assert_eq!((create("a", "none").await, create("b", "0").await, create("c", "7").await), (201, 201, 400));
}

/// `watch=` as upstream reads booleans: anything but `0` and `false` is true.
#[tokio::test]
async fn watches_by_any_name() {
    let server = with_maps(1, 30).await;
    let check = async |value: &str, kind: &str| {
        let answer = admin(&server.api, &format!("GET {PATH}?{value}&timeoutSeconds=1")).await;
        let first: Value = serde_json::from_str(text(&answer).lines().next().unwrap()).unwrap();
        assert_eq!(first["type"].as_str().or(first["kind"].as_str()), Some(kind), "{value}");
    };
    tokio::join!(
        check("watch=yes", "ADDED"),
        check("watch=TRUE", "ADDED"),
        check("watch", "ADDED"),
        check("watch=no", "ADDED"),
        check("watch=FALSE", "ConfigMapList"),
        check("watch=0", "ConfigMapList"),
    );
}

/// A page costs what it holds: what comes behind it is counted, not read, also in the past.
#[tokio::test]
async fn pages_say_what_remains() {
    let server = with_maps(10, 30).await;
    let api = &server.api;
    let page = async |query: String| {
        let list = admin(api, &format!("GET {PATH}?{query}")).await.json();
        let names: Vec<String> =
            list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        let metadata = &list["metadata"];
        let token = metadata["continue"].as_str().unwrap_or_default().to_owned();
        (names.join(" "), metadata["remainingItemCount"].as_i64(), token)
    };
    let (names, remaining, token) = page("limit=4".into()).await;
    assert_eq!((names.as_str(), remaining), ("m000 m001 m002 m003", Some(6)));
    // What happens meanwhile does not show in the pages that follow.
    assert_eq!(admin(api, &format!("DELETE {PATH}/m005")).await.code, 200);
    assert_eq!(admin(api, &format!("POST {PATH}\n\n{}", config_map("m0045"))).await.code, 201);
    let (names, remaining, token) = page(format!("limit=4&continue={token}")).await;
    assert_eq!((names.as_str(), remaining), ("m004 m005 m006 m007", Some(2)));
    let (names, remaining, token) = page(format!("limit=4&continue={token}")).await;
    assert_eq!((names.as_str(), remaining, token.as_str()), ("m008 m009", None, ""));
    let (names, remaining, _) = page("limit=5&fieldSelector=metadata.name%21%3Dm001".into()).await;
    assert_eq!((names.as_str(), remaining), ("m000 m002 m003 m004 m0045", None));
}
