#![allow(clippy::unwrap_used)]
use super::*;

const OBJECTS: Restrictions<'static> = Restrictions { shapes: true, version: "v1", protobuf: true };
const DOCUMENTS: Restrictions<'static> = Restrictions { shapes: false, version: "", protobuf: true };

fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
}

#[track_caller]
fn check_in(restrictions: Restrictions<'_>, header: &str, expected: Option<(Format, Shape)>) {
    let got = accept(&headers(&[(ACCEPT, header)]), "", restrictions);
    let got = got.map(|accept| (accept.format, accept.shape)).map_err(|status| (status.code, status.message));
    let message =
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    assert_eq!(got, expected.ok_or((406, message.to_owned())), "{header}");
}

#[track_caller]
fn check(header: &str, expected: Option<(Format, Shape)>) {
    check_in(OBJECTS, header, expected);
}

/// `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`: media types and their weights.
#[test]
fn formats() {
    let (json, yaml, protobuf) =
        ((Format::Json, Shape::Object), (Format::Yaml, Shape::Object), (Format::Protobuf, Shape::Object));
    check("application/json", Some(json));
    check("application/vnd.kubernetes.protobuf,application/json", Some(protobuf));
    check("application/json;q=0.5, application/yaml", Some(yaml));
    check("application/vnd.kubernetes.protobuf;q=0.1, application/yaml;q=0.2,application/json;q=0.15", Some(yaml));
    check("text/html, */*;q=0.1", Some(json));
    check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(json));
    check("application/*", Some(json));
    check("*", Some(json));
    check("text/*", None);
    check("text/html", None);
    check("application/cbor", None);
    check("application/cbor, application/json", Some(json));
    // Browsers and fetch libraries add parameters, which say nothing.
    check("application/json; charset=utf-8", Some(json));
    check("application/vnd.kubernetes.protobuf;stream=watch", Some(protobuf));
    check("application/yaml;stream=watch, application/json", Some(json));
    check("application/json;stream=other", None);
    check("application/json;sv=v1", Some(json));
    check("application/json;sv=v2", None);
    check_in(DOCUMENTS, "application/json;sv=v1", None);
}

/// `[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not
/// implement metadata`.
#[test]
fn shapes() {
    let table = (Format::Json, Shape::Table { beta: false });
    check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(table));
    check("application/json;as=Table;g=meta.k8s.io;v=v1beta1", Some((Format::Json, Shape::Table { beta: true })));
    check("application/yaml;as=Table;g=meta.k8s.io;v=v1", Some((Format::Yaml, Shape::Table { beta: false })));
    check("*/*;as=Table;g=meta.k8s.io;v=v1", Some(table));
    // kubectl's header: the newest version first.
    let kubectl =
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    check(kubectl, Some(table));
    check_in(DOCUMENTS, kubectl, Some((Format::Json, Shape::Object)));
    check("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Some((Format::Json, Shape::Object)));
    check("application/json;as=Table;v=v1;g=meta.k8s.io;q=0.1,application/json", Some((Format::Json, Shape::Object)));
    check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None);
    check("application/json;as=Table", None);
    check("application/json;as=Table;g=meta.k8s.io", None);
    check("application/json;as=Table;v=v1", None);
    check("application/json;v=v1", None);
    check("application/json;as=Other;g=meta.k8s.io;v=v1", None);
    check_in(DOCUMENTS, "application/json;as=Table;v=v1;g=meta.k8s.io", None);
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    check(partial, Some((Format::Protobuf, Shape::MetadataList { beta: false })));
    let partial = "application/yaml;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1";
    check(partial, Some((Format::Yaml, Shape::Metadata { beta: true })));
}

#[test]
fn indented_json() {
    let check = |query: &str, agent: &str, media: &str, expected: bool| {
        let got = accept(&headers(&[(ACCEPT, media), (USER_AGENT, agent)]), query, OBJECTS).unwrap();
        assert_eq!(got.pretty, expected, "{query} {agent} {media}");
    };
    let json = "application/json";
    check("", "curl/8.5.0", json, true);
    check("", "Wget/1.21", json, true);
    check("", "Mozilla/5.0 (X11; Linux x86_64)", json, true);
    check("", "Mozilla/4.0", json, false);
    check("", "kubectl/v1.36.4", json, false);
    check("pretty=false", "curl/8.5.0", json, false);
    check("pretty=0", "curl/8.5.0", json, false);
    check("pretty=yes", "curl/8.5.0", json, false);
    check("pretty=", "curl/8.5.0", json, true);
    check("pretty", "kubectl", json, false);
    check("limit=5&pretty=1", "kubectl", json, true);
    check("pretty=true", "", json, true);
    check("fieldSelector=metadata.name%3Dpretty", "", json, false);
    check("", "kubectl", "application/json;pretty=1", true);
    check("", "kubectl", "application/json;pretty=true", false);
}

#[test]
fn compression() {
    let check = |encoding: &str, expected: bool| {
        assert_eq!(accept(&headers(&[(ACCEPT_ENCODING, encoding)]), "", OBJECTS).unwrap().gzip, expected, "{encoding}");
    };
    check("gzip", true);
    check("deflate, gzip, br", true);
    check("gzip;q=0", false);
    check("x-gzip", false);
    check("identity", false);
}

#[test]
fn streams() {
    let check = |format, expected: Result<(), &str>| {
        let got = check_stream(Accept { format, ..Accept::default() });
        assert_eq!(got.map_err(|status| status.message), expected.map_err(str::to_owned));
    };
    check(Format::Json, Ok(()));
    check(Format::Protobuf, Ok(()));
    let message = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    check(Format::Yaml, Err(message));
}

#[test]
fn bodies() {
    let check = |media: &str, expected: Result<Format, u16>| {
        let got = body_format(&headers(&[(CONTENT_TYPE, media)]));
        assert_eq!(got.map_err(|status| status.code), expected, "{media}");
    };
    assert_eq!(body_format(&HeaderMap::new()).unwrap(), Format::Json);
    check("application/json", Ok(Format::Json));
    check("application/json; charset=utf-8", Ok(Format::Json));
    check("application/yaml", Ok(Format::Yaml));
    check("application/vnd.kubernetes.protobuf", Ok(Format::Protobuf));
    check("application/cbor", Err(415));
    check("text/plain", Err(415));
    check("application/x-www-form-urlencoded", Err(415));
}

/// Custom resources have no protobuf form; their metadata have.
#[test]
fn custom_resources() {
    let custom = Restrictions { protobuf: false, ..OBJECTS };
    let ask = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        accept(&headers, "", custom).map(|accept| accept.format).map_err(|status| status.code)
    };
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(ask(protobuf), Err(406));
    assert_eq!(ask(&format!("{protobuf}, application/json")), Ok(Format::Json));
    assert_eq!(ask(&format!("{protobuf};as=PartialObjectMetadata;g=meta.k8s.io;v=v1")), Ok(Format::Protobuf));
}
