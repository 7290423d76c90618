//! Query parameters and the options that they make, checked as upstream checks them
//! (`k8s.io/apimachinery/pkg/apis/meta/v1/validation`, `.../internalversion/validation`).

use std::time::Duration;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{Status, fields, labels};
use registry::{DeleteOptions, FieldValidation, ListOptions};
use serde_json::Value;

use crate::route;

/// Decoded parameters, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a raw query.
    pub(crate) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| route::decode(text, true).into_owned();
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect())
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A value that is there and not empty.
    fn some(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean as upstream's query conversion reads it: present, even if empty, and neither `0` nor any spelling of `false`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.some(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }

    /// The one of `metav1.GetOptions`: the version that an object should have at least. What upstream once served besides is refused:
    /// a client that asks for it would take the object for another.
    pub(crate) fn get_options(&self) -> Result<Option<String>, Status> {
        if self.flag("export") {
            return Err(Status::bad_request("the export parameter, deprecated since v1.14, is no longer supported"));
        }
        Ok(self.get("resourceVersion").map(str::to_owned))
    }

    /// `metav1.ListOptions`.
    pub(crate) fn list_options(&self, watch: bool) -> Result<ListOptions, Status> {
        let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
        let timeout = self.integer("timeoutSeconds")?.filter(|seconds| *seconds != 0);
        let options = ListOptions {
            labels: self.some("labelSelector").map(|s| labels::Selector::parse(&s)).transpose().map_err(|e| bad(&e))?,
            fields: self.some("fieldSelector").map(|s| fields::Selector::parse(&s)).transpose().map_err(|e| bad(&e))?,
            limit: self.integer("limit")?.unwrap_or(0),
            continue_token: self.some("continue"),
            resource_version: self.some("resourceVersion"),
            resource_version_match: self.some("resourceVersionMatch"),
            allow_bookmarks: self.flag("allowWatchBookmarks"),
            send_initial_events: self.get("sendInitialEvents").map(|_| self.flag("sendInitialEvents")),
            // Less than nothing is what a client has left whose own deadline is over: its watch ends at once.
            timeout: timeout.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
        };
        let errors = if watch { watch_errors(&options) } else { list_errors(&options) };
        refuse("ListOptions", errors)?;
        Ok(options)
    }

    /// `dryRun`, `fieldValidation`, `fieldManager` and `force` of a write. `kind` is the name of the options in messages.
    pub(crate) fn write_options(&self, kind: &str, apply: bool) -> Result<WriteOptions, Status> {
        let mut errors = Errors::new();
        let dry_run: Vec<&str> = self.all("dryRun").filter(|value| !value.is_empty()).collect();
        check_dry_run(&dry_run, &mut errors);
        let field_validation = match self.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(Error::not_supported(&Path::new("fieldValidation"), other, &supported));
                FieldValidation::Warn
            }
        };
        let manager = self.some("fieldManager");
        let path = Path::new("fieldManager");
        match manager.as_deref() {
            None if apply => errors.push(Error::required(&path, "is required for apply patch")),
            Some(name) if name.len() > 128 => errors.push(Error::too_long(&path, 128)),
            Some(name) if name.chars().any(char::is_control) => {
                errors.push(Error::invalid(&path, name, "should only contain printable characters"));
            }
            _ => {}
        }
        if !apply && kind == "PatchOptions" && self.get("force").is_some() {
            errors.push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        refuse(kind, errors)?;
        Ok(WriteOptions { dry_run: !dry_run.is_empty(), field_validation, manager, force: self.flag("force") })
    }

    /// `metav1.DeleteOptions`, of the body when there is one, of the query otherwise.
    pub(crate) fn delete_options(&self, body: Option<&Value>) -> Result<(DeleteOptions, bool), Status> {
        let mut options = DeleteOptions::default();
        let mut dry_run: Vec<&str> = self.all("dryRun").filter(|value| !value.is_empty()).collect();
        match body {
            Some(body) => {
                let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                options.grace_seconds = body.get("gracePeriodSeconds").and_then(Value::as_i64);
                options.uid = text("/preconditions/uid");
                options.resource_version = text("/preconditions/resourceVersion");
                options.propagation = text("/propagationPolicy");
                options.orphan_dependents = body.get("orphanDependents").and_then(Value::as_bool);
                dry_run.extend(body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
            }
            None => {
                options.grace_seconds = self.integer("gracePeriodSeconds")?;
                // Preconditions have parameters of their own (upstream: `Convert_url_Values_To_v1_DeleteOptions`).
                options.uid = self.some("uid");
                options.resource_version = self.some("resourceVersion");
                options.propagation = self.some("propagationPolicy");
                options.orphan_dependents = self.get("orphanDependents").map(|_| self.flag("orphanDependents"));
            }
        }
        let mut errors = Errors::new();
        check_dry_run(&dry_run, &mut errors);
        check_propagation(&options, &mut errors);
        refuse("DeleteOptions", errors)?;
        Ok((options, !dry_run.is_empty()))
    }
}

/// The options of creates, updates and patches.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    /// Write nothing.
    pub dry_run: bool,
    /// Unknown fields.
    pub field_validation: FieldValidation,
    /// Name of the field manager, if given.
    pub manager: Option<String>,
    /// Take over fields.
    pub force: bool,
}

fn refuse(kind: &str, errors: Errors) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", &errors)) }
}

fn check_dry_run(values: &[&str], errors: &mut Errors) {
    if values.iter().any(|value| *value != "All") {
        let shown: Vec<Value> = values.iter().map(|value| Value::from(*value)).collect();
        errors.push(Error::not_supported(&Path::new("dryRun"), Value::from(shown), &["All"]));
    }
}

fn check_propagation(options: &DeleteOptions, errors: &mut Errors) {
    let path = Path::new("propagationPolicy");
    match options.propagation.as_deref() {
        Some(_) if options.orphan_dependents.is_some() => {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(Error::invalid(&path, options.propagation.clone().unwrap_or_default(), detail));
        }
        None | Some("Foreground" | "Background" | "Orphan") => {}
        Some(other) => errors.push(Error::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"])),
    }
}

const RULES: [&str; 2] = ["Exact", "NotOlderThan"];

fn list_errors(options: &ListOptions) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("resourceVersionMatch"));
    if options.send_initial_events.is_some() {
        errors.push(Error::forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list"));
    }
    let Some(rule) = options.resource_version_match.as_deref() else { return errors };
    let version = options.resource_version.as_deref();
    if version.is_none() {
        errors.push(Error::forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
    }
    if options.continue_token.is_some() {
        errors.push(Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if !RULES.contains(&rule) {
        errors.push(Error::not_supported(&path, rule, &["Exact", "NotOlderThan", ""]));
    }
    if rule == "Exact" && version == Some("0") {
        errors.push(Error::forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
    }
    errors
}

fn watch_errors(options: &ListOptions) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("resourceVersionMatch"));
    let rule = options.resource_version_match.as_deref();
    if options.send_initial_events.is_some() && rule != Some("NotOlderThan") {
        errors.push(Error::forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    } else if options.send_initial_events.is_none() && rule.is_some() {
        errors.push(Error::forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
    }
    if let Some(rule) = rule.filter(|rule| !RULES.contains(rule)) {
        errors.push(Error::not_supported(&path, rule, &["Exact", "NotOlderThan", ""]));
    }
    if options.continue_token.is_some() {
        errors.push(Error::forbidden(&Path::new("continue"), "continue is forbidden for watch"));
    }
    errors
}

/// Whether a query asks for a watch.
pub(crate) fn watches(query: &str) -> bool {
    !query.is_empty() && Query::parse(query).flag("watch")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check<T>(result: Result<T, Status>, expected: Result<(), (u16, &str)>) {
        let got = result.map(drop).map_err(|status| (status.code, status.message));
        assert_eq!(got, expected.map_err(|(code, message)| (code, message.to_owned())));
    }

    #[test]
    fn lists() {
        let list = |query: &str| Query::parse(query).list_options(false);
        check(list("limit=5&labelSelector=a%3Db,c+in+(d)"), Ok(()));
        check(list("limit=x"), Err((400, "strconv.ParseInt: parsing \"x\": invalid syntax")));
        let message = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
        check(list("resourceVersionMatch=Exact"), Err((422, message)));
        assert!(list("labelSelector=a%3D%3D%3Db").is_err());
    }

    /// Upstream's `GetResource` reads the parameter as its query conversion reads booleans.
    #[test]
    fn gets() {
        let get = |query: &str| Query::parse(query).get_options();
        for query in ["", "resourceVersion=5", "export=0", "export=false", "export=False&export=true", "pretty=true"] {
            check(get(query), Ok(()));
        }
        assert_eq!(get("resourceVersion=5&export=false").unwrap().as_deref(), Some("5"));
        let message = "the export parameter, deprecated since v1.14, is no longer supported";
        for query in ["export", "export=", "export=true", "exact=true&export=1", "export=yes"] {
            check(get(query), Err((400, message)));
        }
    }

    #[test]
    fn booleans() {
        let check = |query: &str, expected: bool| assert_eq!(super::watches(query), expected, "{query}");
        for query in ["watch", "watch=", "watch=1", "watch=true", "watch=TRUE", "watch=yes", "watch=no", "watch=1&watch=false"] {
            check(query, true);
        }
        for query in ["", "watch=0", "watch=false", "watch=False", "watch=FALSE", "Watch=1", "watch=false&watch=true"] {
            check(query, false);
        }
        check("w%61tch=t%72ue", true);
    }

    #[test]
    fn watches() {
        let watch = |query: &str| Query::parse(query).list_options(true);
        check(watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"), Ok(()));
        assert_eq!(watch("sendInitialEvents=true").unwrap_err().code, 422);
        assert_eq!(watch("resourceVersionMatch=NotOlderThan").unwrap_err().code, 422);
        for (seconds, timeout) in [("7", Some(7)), ("0", None), ("", None), ("-1", Some(0)), ("-9223372036854775808", Some(0))] {
            let options = watch(&format!("timeoutSeconds={seconds}")).unwrap();
            assert_eq!(options.timeout, timeout.map(Duration::from_secs), "{seconds:?}");
        }
    }

    #[test]
    fn writes() {
        let write = |query: &str, apply| Query::parse(query).write_options("PatchOptions", apply);
        check(write("dryRun=All&fieldValidation=Strict&fieldManager=me", false), Ok(()));
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        check(write("", true), Err((422, message)));
        assert_eq!(write("dryRun=Some", false).unwrap_err().code, 422);
        assert_eq!(write("force=true", false).unwrap_err().code, 422);
        assert_eq!(write("fieldValidation=Maybe", false).unwrap_err().code, 422);
    }

    #[test]
    fn deletes() {
        let body = serde_json::json!({"gracePeriodSeconds": 3, "preconditions": {"uid": "u"}, "dryRun": ["All"]});
        let (options, dry_run) = Query::parse("gracePeriodSeconds=9").delete_options(Some(&body)).unwrap();
        assert_eq!((options.grace_seconds, options.uid.as_deref(), dry_run), (Some(3), Some("u"), true));
        assert_eq!(Query::parse("gracePeriodSeconds=9").delete_options(None).unwrap().0.grace_seconds, Some(9));
        let only = |query: &str, body| {
            let (options, _) = Query::parse(query).delete_options(body).unwrap();
            (options.uid, options.resource_version)
        };
        assert_eq!(only("uid=u&resourceVersion=5", None), (Some("u".to_owned()), Some("5".to_owned())));
        assert_eq!(only("uid=&resourceVersion=", None), (None, None));
        assert_eq!(only("uid=v&resourceVersion=5", Some(&body)), (Some("u".to_owned()), None));
        assert_eq!(Query::parse("propagationPolicy=Never").delete_options(None).unwrap_err().code, 422);
    }
}
