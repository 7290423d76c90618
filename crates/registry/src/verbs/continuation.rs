//! Continue tokens, in the form that upstream's have (`k8s.io/apiserver/pkg/storage/continue.go`).

use apimachinery::{Status, json_syntax};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Entry;

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Continuation {
    /// Revision of the first page, none to go on in the present state.
    pub at: Option<u64>,
    /// Path of the last object of the page before.
    pub after: String,
    /// How many objects come behind it, where that is known: all pages show one state, so nobody has to count them again.
    pub rest: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// -1 for the present state.
    rv: i64,
    start: String,
    /// Upstream has no such field, and ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<usize>,
}

impl Continuation {
    pub(crate) fn behind(last: &Entry, at: u64, rest: Option<usize>) -> Self {
        Self { at: Some(at), after: last.index.path().to_owned(), rest }
    }

    pub(crate) fn encode(&self) -> String {
        let rv = self.at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1);
        let token = Token { v: VERSION.into(), rv, start: self.after.clone(), rest: self.rest };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    /// Reads what a client sends, which it may have made up: a list of a namespace goes on in that namespace.
    pub(crate) fn decode(text: &str, namespace: Option<&str>) -> Result<Self, Status> {
        let invalid = |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| invalid(json_syntax::told(&bytes, &error)))?;
        if token.v != VERSION {
            return Err(invalid(format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid(format!("incorrect encoded start resourceVersion (version {VERSION})")));
        }
        if token.start.is_empty() {
            return Err(invalid(format!("encoded start key empty (version {VERSION})")));
        }
        let is_within = |namespace: &str| token.start.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('/'));
        if !is_clean(&token.start) || namespace.is_some_and(|namespace| !is_within(namespace)) {
            return Err(invalid(token.start));
        }
        Ok(Self { at: u64::try_from(token.rv).ok(), after: token.start, rest: token.rest })
    }
}

/// Whether a path is one of an object, and leads nowhere else (upstream: "defend against path traversal attacks by clients").
fn is_clean(path: &str) -> bool {
    path.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<(Option<u64>, &str), &str>) {
        let decoded = Continuation::decode(&URL_SAFE_NO_PAD.encode(json), None);
        let expected = expected.map(|(at, after)| Continuation { at, after: after.into(), rest: None });
        assert_eq!(decoded.map_err(|status| status.message), expected.map_err(|why| format!("invalid continue token: {why}")));
    }

    #[test]
    fn tokens() {
        check(r#"{"v":"meta.k8s.io/v1","rv":7,"start":"a/b"}"#, Ok((Some(7), "a/b")));
        check(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a/b"}"#, Ok((None, "a/b")));
        let zero = "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
        check(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a/b"}"#, Err(zero));
        let empty = "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)";
        check(r#"{"v":"meta.k8s.io/v1","rv":7,"start":""}"#, Err(empty));
        let version = "continue key is not valid: server does not recognize this encoded version v2";
        check(r#"{"v":"v2","rv":7,"start":"a"}"#, Err(version));
        assert_eq!(Continuation::decode("%", None).map_err(|status| status.code), Err(400));
        check("x", Err("continue key is not valid: invalid character 'x' looking for beginning of value"));
        assert_eq!(Continuation::decode("e30", None).map_err(|status| status.code), Err(400));
        for at in [None, Some(12)] {
            let token = Continuation { at, after: "n/\u{fc}".into(), rest: at.map(|_| 7) };
            assert_eq!(Continuation::decode(&token.encode(), None), Ok(token));
        }
    }

    #[test]
    fn a_token_leads_out_of_no_namespace() {
        let check = |start: &str, namespace: Option<&str>, good: bool| {
            let token = Continuation { at: Some(7), after: start.to_owned(), rest: None };
            let decoded = Continuation::decode(&token.encode(), namespace);
            assert_eq!(decoded.is_ok(), good, "{start} {namespace:?}");
            assert!(decoded.err().is_none_or(|status| status.code == 400));
        };
        check("b/x", Some("b"), true);
        check("a/x", Some("b"), false);
        check("c/x", Some("b"), false);
        check("b", Some("b"), false);
        check("bb/x", Some("b"), false);
        check("a", Some("b"), false);
        check("b/../a/x", Some("b"), false);
        check("b/./x", Some("b"), false);
        check("b//x", Some("b"), false);
        check("b/", Some("b"), false);
        check("/b/x", Some("b"), false);
        check("a/x", None, true);
        check("a", None, true);
        check("../secrets/a/x", None, false);
    }
}
