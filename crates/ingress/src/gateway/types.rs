//! The kinds of the Gateway API, as far as they are read: `gateway.networking.k8s.io/v1`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The API group.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// One object with what is read of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object<S: Default> {
    pub metadata: ObjectMeta,
    pub spec: S,
    pub status: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassSpec {
    pub controller_name: String,
    /// Null when none.
    pub parameters_ref: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    pub gateway_class_name: String,
    pub listeners: Vec<Listener>,
    pub tls: Option<GatewayTls>,
    pub addresses: Vec<Address>,
    pub infrastructure: Infrastructure,
    pub allowed_listeners: Option<AllowedListeners>,
}

/// Which ListenerSets may add listeners to a Gateway.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AllowedListeners {
    /// `None` when none.
    pub namespaces: RouteNamespaces,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSetSpec {
    pub parent_ref: ObjectRef,
    pub listeners: Vec<Listener>,
}

/// An address that is asked for; any one where it has no value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `IPAddress` when none.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub value: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Infrastructure {
    /// Null when none.
    pub parameters_ref: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GatewayTls {
    pub frontend: Option<Frontend>,
}

/// What is asked of clients.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frontend {
    pub default: Option<FrontendTls>,
    pub per_port: Vec<PortTls>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PortTls {
    pub port: u16,
    pub tls: FrontendTls,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FrontendTls {
    pub validation: Option<FrontendValidation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FrontendValidation {
    #[serde(rename = "caCertificateRefs")]
    pub certificate_refs: Vec<ObjectRef>,
    pub mode: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    pub name: String,
    pub hostname: Option<String>,
    pub port: u16,
    pub protocol: String,
    pub tls: Option<ListenerTls>,
    pub allowed_routes: AllowedRoutes,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerTls {
    pub mode: Option<String>,
    pub certificate_refs: Vec<ObjectRef>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    pub namespaces: RouteNamespaces,
    pub kinds: Vec<RouteKind>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// Of routes `Same` when none.
    pub from: Option<String>,
    pub selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RouteKind {
    pub group: Option<String>,
    pub kind: String,
}

/// A reference to a Secret, a Service or a Gateway.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: String,
    pub section_name: Option<String>,
    pub port: Option<u16>,
    pub weight: Option<u32>,
    /// Of a back end.
    pub filters: Vec<Filter>,
}

/// Rules, each by itself: one with something that is not known, which newer definitions may have, is no rule that may be followed without it, and no reason
/// to know nothing of its route.
fn each<'de, D: Deserializer<'de>, R: DeserializeOwned + Unreadable>(deserializer: D) -> Result<Vec<R>, D::Error> {
    let all = Vec::<Value>::deserialize(deserializer)?;
    Ok(all.into_iter().map(|rule| R::deserialize(rule).unwrap_or_else(|why| R::unreadable(why.to_string()))).collect())
}

/// A rule, as it stands for one that could not be read.
trait Unreadable {
    fn unreadable(why: String) -> Self;
}

impl Unreadable for Rule {
    fn unreadable(why: String) -> Self {
        Self { unread: Some(why), ..Self::default() }
    }
}

impl Unreadable for GrpcRule {
    fn unreadable(why: String) -> Self {
        Self { unread: Some(why), ..Self::default() }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteSpec {
    pub parent_refs: Vec<ObjectRef>,
    pub hostnames: Vec<String>,
    #[serde(deserialize_with = "each")]
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    pub name: Option<String>,
    pub matches: Vec<Match>,
    pub filters: Vec<Filter>,
    pub backend_refs: Vec<ObjectRef>,
    pub timeouts: Option<Timeouts>,
    pub retry: Option<RouteRetry>,
    pub session_persistence: Option<SessionPersistence>,
    /// Why it could not be read.
    #[serde(skip)]
    pub unread: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRetry {
    pub codes: Vec<u16>,
    pub attempts: Option<u16>,
    pub backoff: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SessionPersistence {
    pub absolute_timeout: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub cookie: Option<CookieConfig>,
    /// Null when none.
    pub header: Value,
    /// Until version 1.6 of the definitions the cookie's name, its other settings, and a timeout.
    pub session_name: Option<String>,
    pub cookie_config: Option<CookieConfig>,
    pub idle_timeout: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CookieConfig {
    pub name: Option<String>,
    pub path: Option<String>,
    pub lifetime_type: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    pub request: Option<String>,
    pub backend_request: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    pub path: Option<Pattern>,
    pub headers: Vec<Pattern>,
    pub query_params: Vec<Pattern>,
    pub method: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteSpec {
    pub parent_refs: Vec<ObjectRef>,
    pub hostnames: Vec<String>,
    #[serde(deserialize_with = "each")]
    pub rules: Vec<GrpcRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcRule {
    pub name: Option<String>,
    pub matches: Vec<GrpcMatch>,
    pub filters: Vec<Filter>,
    pub backend_refs: Vec<ObjectRef>,
    pub session_persistence: Option<SessionPersistence>,
    /// Why it could not be read.
    #[serde(skip)]
    pub unread: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcMatch {
    pub method: Option<GrpcMethod>,
    pub headers: Vec<Pattern>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcMethod {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub service: Option<String>,
    pub method: Option<String>,
}

/// A value of a path, a header or a parameter, and how it is compared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pattern {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub name: String,
    pub value: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Filter {
    #[serde(rename = "type")]
    pub kind: String,
    pub request_header_modifier: Option<HeaderModifier>,
    pub response_header_modifier: Option<HeaderModifier>,
    pub request_redirect: Option<RequestRedirect>,
    pub url_rewrite: Option<UrlRewrite>,
    pub cors: Option<CorsFilter>,
    pub request_mirror: Option<RequestMirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorsFilter {
    pub allow_origins: Vec<String>,
    pub allow_credentials: Option<bool>,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    pub max_age: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestMirror {
    pub backend_ref: ObjectRef,
    pub percent: Option<u64>,
    pub fraction: Option<Fraction>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fraction {
    pub numerator: u64,
    pub denominator: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderModifier {
    pub set: Vec<Pattern>,
    pub add: Vec<Pattern>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestRedirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    pub status_code: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UrlRewrite {
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PathModifier {
    /// Which of the others there is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub replace_full_path: Option<String>,
    pub replace_prefix_match: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    pub from: Vec<Granted>,
    pub to: Vec<Granted>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Granted {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsPolicySpec {
    pub target_refs: Vec<ObjectRef>,
    pub validation: BackendValidation,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendValidation {
    #[serde(rename = "caCertificateRefs")]
    pub certificate_refs: Vec<ObjectRef>,
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known: Option<String>,
    pub hostname: String,
    pub subject_alt_names: Vec<SubjectAltName>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubjectAltName {
    #[serde(rename = "type")]
    pub kind: String,
    pub hostname: Option<String>,
    pub uri: Option<String>,
}

pub type BackendTlsPolicy = Object<BackendTlsPolicySpec>;
pub type GatewayClass = Object<GatewayClassSpec>;
pub type Gateway = Object<GatewaySpec>;
pub type ListenerSet = Object<ListenerSetSpec>;
pub type HttpRoute = Object<HttpRouteSpec>;
pub type GrpcRoute = Object<GrpcRouteSpec>;
pub type ReferenceGrant = Object<ReferenceGrantSpec>;

impl<S: Default> Object<S> {
    /// The version of the object, and its status.
    pub fn written(&self) -> (Option<&String>, &Value) {
        (self.metadata.resource_version.as_ref(), &self.status)
    }

    /// Namespace, empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}
