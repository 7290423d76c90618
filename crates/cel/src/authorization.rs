//! Questions of who may do what (`k8s.io/apiserver/pkg/cel/library/authz.go`): `authorizer.group('apps').resource('deployments')
//! .namespace('a').check('create').allowed()`. A question is put together as a value; only `check` asks somebody.

use std::sync::Arc;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of a service account that is asked for instead of the user.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: Option<String>,
    /// API group of a resource.
    pub group: Option<String>,
    /// The resource.
    pub resource: String,
    /// Its sub-resource.
    pub subresource: String,
    /// The namespace, empty for all.
    pub namespace: String,
    /// The name, empty for all.
    pub name: String,
    /// A selector of fields.
    pub fields: String,
    /// A selector of labels.
    pub labels: String,
    /// The question about the object of the request itself: `authorizer.requestResource`.
    pub about_request: Option<Arc<Question>>,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The user may.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong.
    pub error: Option<String>,
}

/// Who answers.
pub trait Authorize {
    /// Whether the verb is allowed.
    fn check(&self, question: &Question, verb: &str) -> Decision;
}
