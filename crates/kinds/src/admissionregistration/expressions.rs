//! What expressions of webhooks and policies may speak of, with types, and what they have to be (`admission/plugin/cel/compile.go`).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use apimachinery::field::{Error, Errors, Path};
use cel::{Declaration, Form, Program, Type};

/// The variables of webhooks.
pub const WEBHOOK: &[&str] = &["object", "oldObject", "request", "authorizer"];
/// The authorizer's question about the request itself.
const REQUEST_RESOURCE: &str = "authorizer.requestResource";

static REQUEST: LazyLock<Arc<Declaration>> = LazyLock::new(request);
static NAMESPACE: LazyLock<Arc<Declaration>> = LazyLock::new(namespace);

/// An expression is compiled, its types are checked, and it is of one of the types that are `expected`; of any where none is. Its type,
/// where it has one.
pub fn check(expression: &str, variables: &[(&str, Type)], expected: &[Type], path: &Path, errors: &mut Errors) -> Option<Type> {
    let mut refuse = |why: String| errors.push(Error::invalid(path, expression, why));
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).filter(|name| !name.contains('.')).collect();
    let program = match Program::compile(expression, &names) {
        Ok(program) => program,
        Err(_) => {
            refuse(format!("compilation failed: {}", cel::faults(expression, variables)));
            return None;
        }
    };
    match program.check(expression, variables) {
        Ok(checked) => {
            let found = checked.ty();
            if !expected.is_empty() && !expected.contains(&found) {
                refuse(format!("must evaluate to {} but got {}", wanted(expected), declared(&found)));
            }
            Some(found)
        }
        Err(error) => {
            refuse(format!("compilation failed: {error}"));
            None
        }
    }
}

fn wanted(expected: &[Type]) -> String {
    match expected {
        [one] => declared(one),
        several => format!("one of [{}]", several.iter().map(declared).collect::<Vec<_>>().join(" ")),
    }
}

/// The name of a type where it is not part of another one.
fn declared(ty: &Type) -> String {
    match ty {
        Type::Null => "null_type".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
        other => other.to_string(),
    }
}

/// These variables with their types. Objects and parameters may be of any type.
pub fn variables(names: &[&'static str]) -> Vec<(&'static str, Type)> {
    let mut all: Vec<(&str, Type)> = names.iter().map(|name| (*name, of(name))).collect();
    if names.contains(&"authorizer") {
        all.push((REQUEST_RESOURCE, Type::Opaque("kubernetes.authorization.ResourceCheck")));
    }
    all
}

fn of(name: &str) -> Type {
    match name {
        "request" => REQUEST.ty(),
        "namespaceObject" => NAMESPACE.ty(),
        "authorizer" => Type::Opaque("kubernetes.authorization.Authorizer"),
        _ => Type::Dyn,
    }
}

/// The named expressions of a policy, by their types.
pub struct Composed(Arc<Declaration>);

/// Types that are made of more than this are not known to the expressions after them: of types that are made of those before them, each longer by
/// one, a policy could have as many as it has variables.
const MOST_PARTS: usize = 256;

impl Default for Composed {
    fn default() -> Self {
        let form = Form::Object(BTreeMap::new());
        Self(Arc::new(Declaration { name: "kubernetes.variables".to_owned(), form, most: 0, least_bytes: 2 }))
    }
}

impl Composed {
    /// The type of all of them.
    pub fn ty(&self) -> Type {
        self.0.ty()
    }

    /// Adds one with a type. Where that is made of too much, or of the variables themselves, it may be anything.
    pub fn add(&mut self, name: &str, ty: Type) {
        let mut ty = ty;
        if !self.is_plain(&ty, &mut MOST_PARTS.clone()) {
            ty = Type::Dyn;
        }
        // No type is left that has the declaration.
        if let Some(Declaration { form: Form::Object(fields), .. }) = Arc::get_mut(&mut self.0) {
            // Names are identifiers: nothing of them is escaped.
            fields.insert(name.to_owned(), Declaration::plain(ty));
        }
    }

    fn is_plain(&self, ty: &Type, left: &mut usize) -> bool {
        if *left == 0 || matches!(ty, Type::Object(object) if Arc::ptr_eq(object, &self.0)) {
            return false;
        }
        *left -= 1;
        ty.parameters().iter().all(|part| self.is_plain(part, left))
    }
}

/// An object of a type with these fields.
pub fn object(name: &str, fields: &[(&str, Arc<Declaration>)]) -> Arc<Declaration> {
    Declaration::object(name, fields.iter().map(|(name, field)| ((*name).to_owned(), field.clone())))
}

/// A field that is a text.
pub fn text() -> Arc<Declaration> {
    Declaration::plain(Type::String)
}

fn texts(name: &str, fields: &[&str]) -> Arc<Declaration> {
    Declaration::object(name, fields.iter().map(|field| ((*field).to_owned(), text())))
}

/// Who asks.
pub fn user() -> Arc<Declaration> {
    let list = || Declaration::list(text());
    object(
        "kubernetes.UserInfo",
        &[("username", text()), ("uid", text()), ("groups", list()), ("extra", Declaration::map(list()))],
    )
}

fn request() -> Arc<Declaration> {
    let kind = texts("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = texts("kubernetes.GroupVersionResource", &["group", "version", "resource"]);
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user()),
            ("dryRun", Declaration::plain(Type::Bool)),
            ("options", Declaration::plain(Type::Dyn)),
        ],
    )
}

fn namespace() -> Arc<Declaration> {
    let (time, int) = (|| Declaration::plain(Type::Timestamp), || Declaration::plain(Type::Int));
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", Declaration::map(text())),
            ("annotations", Declaration::map(text())),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", int()),
            ("deletionTimestamp", time()),
            ("generation", int()),
            ("resourceVersion", text()),
            ("finalizers", Declaration::list(text())),
        ],
    );
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[("status", text()), ("type", text()), ("lastTransitionTime", time()), ("message", text()), ("reason", text())],
    );
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", Declaration::list(text()))]);
    let status = object("kubernetes.NamespaceStatus", &[("conditions", Declaration::list(condition)), ("phase", text())]);
    object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn told(expression: &str, expected: &[Type], why: &str) {
        let mut errors = Errors::new();
        let all = variables(&["object", "request", "namespaceObject", "authorizer"]);
        check(expression, &all, expected, &Path::new("e"), &mut errors);
        let found = errors.to_string();
        assert!(if why.is_empty() { found.is_empty() } else { found.contains(why) }, "{expression}: {found}");
    }

    /// Upstream: `admission/plugin/cel/compile_test.go`.
    #[test]
    fn expressions_have_types() {
        let bool = &[Type::Bool];
        told("object.spec.replicas < 5 && request.userInfo.groups.exists(g, g == 'a')", bool, "");
        told("request.operation == 'CREATE' && namespaceObject.metadata.labels['env'] == 'prod'", bool, "");
        told("authorizer.requestResource.check('x').allowed() && authorizer.path('/a').check('get').allowed()", bool, "");
        told("object.spec.replicas", bool, "must evaluate to bool but got dyn");
        told("'a'", bool, "must evaluate to bool but got string");
        told("1", &[Type::String, Type::Null], "must evaluate to one of [string null_type] but got int");
        told("null", &[Type::String, Type::Null], "");
        told("request.userInfo.name == 'a'", bool, "compilation failed: ERROR: <input>:1:17: undefined field 'name'");
        told("request.dryRun == 'a'", bool, "found no matching overload for '_==_' applied to '(bool, string)'");
        told("namespaceObject.metadata.uid == 'a'", bool, "undefined field 'uid'");
        told("other == 1", bool, "undeclared reference to 'other' (in container '')");
        told("object.anything", &[], "");
    }
}
