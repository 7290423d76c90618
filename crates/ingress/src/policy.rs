//! What an Ingress asks for beside its rules: the meaning of its annotations.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use crate::guard::clients::ClientAuth;
use crate::patterns::Pattern;
use crate::template::Template;

/// The meaning of all annotations of one Ingress.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Plain HTTP is sent to HTTPS where TLS is configured for the host.
    pub ssl_redirect: bool,
    /// Plain HTTP is sent to HTTPS in any case.
    pub force_ssl_redirect: bool,
    /// Where `/` is sent.
    pub app_root: Option<String>,
    /// Every request is sent elsewhere for good.
    pub permanent: Option<Template>,
    /// With this status.
    pub permanent_code: StatusCode,
    /// Every request is sent elsewhere for now.
    pub temporal: Option<Template>,
    /// With this status.
    pub temporal_code: StatusCode,
    /// What the path becomes; `$1` to `$9` are groups of the path's pattern.
    pub rewrite: Option<String>,
    /// Paths are patterns.
    pub use_regex: bool,
    /// TLS is passed through to the back end of `/`, which has the certificate.
    pub passthrough: bool,
    /// Further hosts of the same rules.
    pub aliases: Vec<String>,
    /// The same host with or without `www.` is redirected to the one that the rules name.
    pub www: bool,
    /// What back ends speak.
    pub protocol: Option<Protocol>,
    /// The name that back ends must prove by TLS, for who expects one by SNI.
    pub tls_name: Option<String>,
    /// Whether `tls_name` is sent.
    pub tls_send_name: bool,
    /// `Host` as back ends get it.
    pub vhost: Option<HeaderValue>,
    /// `X-Forwarded-Prefix`.
    pub prefix: Option<HeaderValue>,
    /// How the endpoint of a request is chosen.
    pub balance: Balance,
    /// The same value leads to the same endpoint.
    pub hash_by: Option<Template>,
    /// Sessions stay with their endpoint.
    pub affinity: bool,
    /// By this cookie.
    pub cookie: Cookie,
    /// Time to connect to an endpoint.
    pub connect_timeout: Duration,
    /// Time that an endpoint may say nothing.
    pub read_timeout: Duration,
    /// Time that an endpoint may take nothing.
    pub send_timeout: Duration,
    /// When another endpoint is tried.
    pub retry: Retry,
    /// The largest body of a request, bytes; none is no limit.
    pub body_size: Option<u64>,
    /// Who may ask; empty is everybody.
    pub allow: Vec<IpNet>,
    /// Who may not.
    pub deny: Vec<IpNet>,
    /// Who may ask proves it by a password.
    pub basic: Basic,
    /// Somebody else says who may ask.
    pub external: External,
    /// Clients prove by a certificate who they are.
    pub clients: ClientAuth,
    /// One of addresses and proofs is enough.
    pub satisfy_any: bool,
    /// Cross-origin requests.
    pub cors: Cors,
    /// How much one client may ask for.
    pub limits: Limits,
    /// This Ingress takes a part of the requests of another one.
    pub canary: Canary,
    /// Service in the same namespace that answers when there is no endpoint.
    pub default_backend: Option<String>,
    /// Requests appear in the access log, when there is one.
    pub access_log: bool,
    /// An annotation that guards the application cannot be followed: every request is refused.
    pub closed: bool,
    /// Where the Ingress is: whose room its regular expressions take.
    pub namespace: String,
}

/// What a back end speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 without TLS.
    Grpc,
    /// HTTP/2 over TLS.
    Grpcs,
}

impl Protocol {
    /// Whether it is over TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }

    /// Whether it is HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }
}

/// How endpoints take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one of two with fewer requests under way.
    LeastRequests,
}

/// The cookie of session affinity.
#[derive(Clone, Debug)]
pub struct Cookie {
    /// Name.
    pub name: String,
    /// Path; that of the rule when none.
    pub path: Option<String>,
    /// Domain.
    pub domain: Option<String>,
    /// Seconds.
    pub max_age: Option<u64>,
    /// Seconds until it expires.
    pub expires: Option<u64>,
    /// `Strict`, `Lax` or `None`.
    pub same_site: Option<&'static str>,
    /// Sent over HTTPS only; as the request came when none.
    pub secure: Option<bool>,
    /// A session never moves while its endpoint is there.
    pub persistent: bool,
    /// A session moves when its endpoint fails.
    pub change_on_failure: bool,
    /// Sessions do not keep clients with a canary.
    pub legacy_canary: bool,
}

/// When another endpoint is tried.
#[derive(Clone, Debug)]
pub struct Retry {
    /// The connection failed or broke.
    pub error: bool,
    /// The endpoint was silent for too long.
    pub timeout: bool,
    /// Answers with these statuses.
    pub statuses: Vec<u16>,
    /// Also what may have an effect each time.
    pub non_idempotent: bool,
    /// Most attempts; 0 is as many as there are endpoints.
    pub tries: usize,
    /// Most time for all; zero is no limit.
    pub time: Duration,
    /// Time between two attempts.
    pub wait: Duration,
    /// Also the endpoint that was tried, where there is no other.
    pub same_endpoint: bool,
}

/// Passwords.
#[derive(Clone, Debug, Default)]
pub struct Basic {
    /// Whether one is asked for.
    pub enabled: bool,
    /// Secret, `name` or `namespace/name`.
    pub secret: Option<String>,
    /// The Secret has one key for each user (`auth-map`), not one file (`auth-file`).
    pub map: bool,
    /// Shown to people.
    pub realm: String,
}

/// Somebody who says whether a request may pass.
#[derive(Clone, Debug, Default)]
pub struct External {
    /// Whom to ask.
    pub url: Option<Template>,
    /// With this method instead of the request's.
    pub method: Option<http::Method>,
    /// Headers of the answer that back ends get.
    pub response_headers: Vec<HeaderName>,
    /// Clients get its cookies with every answer, not with those alone that tell of no error.
    pub always_cookies: bool,
    /// Where who may not pass is sent.
    pub signin: Option<Template>,
    /// The parameter that brings them back.
    pub signin_parameter: Option<String>,
}

/// Cross-origin requests.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Whether they are answered.
    pub enabled: bool,
    /// Allowed origins; a `*` stands for any, or for one or more labels.
    pub origins: Vec<String>,
    /// Whether an answer names the origin that asks where any may ask.
    pub repeats_origin: bool,
    /// Allowed methods.
    pub methods: Told,
    /// Allowed headers.
    pub headers: Told,
    /// Headers that scripts may read.
    pub expose: Option<HeaderValue>,
    /// With credentials.
    pub credentials: bool,
    /// Seconds that an answer holds.
    pub max_age: u64,
}

/// What a browser is told that it may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: what every page may send.
    Nothing,
    /// These.
    These(HeaderValue),
    /// What it asks for.
    Asked,
}

/// How much one client may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests each second.
    pub rps: Option<u32>,
    /// Requests each minute.
    pub rpm: Option<u32>,
    /// Requests at once.
    pub connections: Option<u32>,
    /// How many times the rate may come at once.
    pub burst: u32,
    /// Clients without limits.
    pub exempt: Vec<IpNet>,
}

/// Which requests a canary takes.
#[derive(Clone, Debug, Default)]
pub struct Canary {
    /// Whether the Ingress is one.
    pub enabled: bool,
    /// By a header.
    pub header: Option<HeaderName>,
    /// With this value; `always` and `never` when none.
    pub header_value: Option<String>,
    /// With a value like this.
    pub header_pattern: Option<Arc<Pattern>>,
    /// By a cookie, `always` or `never`.
    pub cookie: Option<String>,
    /// So many of `total`.
    pub weight: u32,
    /// 100 when none.
    pub total: Option<u32>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Policy {
    /// Whether paths that are not exact are regular expressions.
    pub fn has_patterns(&self) -> bool {
        self.use_regex || self.rewrite.is_some()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ssl_redirect: true,
            force_ssl_redirect: false,
            app_root: None,
            permanent: None,
            permanent_code: StatusCode::MOVED_PERMANENTLY,
            temporal: None,
            temporal_code: StatusCode::FOUND,
            rewrite: None,
            use_regex: false,
            passthrough: false,
            aliases: Vec::new(),
            www: false,
            protocol: None,
            tls_name: None,
            tls_send_name: false,
            vhost: None,
            prefix: None,
            balance: Balance::RoundRobin,
            hash_by: None,
            affinity: false,
            cookie: Cookie::default(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: MINUTE,
            send_timeout: MINUTE,
            retry: Retry::default(),
            body_size: Some(1 << 20),
            allow: Vec::new(),
            deny: Vec::new(),
            basic: Basic::default(),
            external: External::default(),
            clients: ClientAuth::default(),
            satisfy_any: false,
            cors: Cors::default(),
            limits: Limits { rps: None, rpm: None, connections: None, burst: 5, exempt: Vec::new() },
            canary: Canary::default(),
            default_backend: None,
            access_log: true,
            closed: false,
            namespace: String::new(),
        }
    }
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "INGRESSCOOKIE".to_owned(),
            path: None,
            domain: None,
            max_age: None,
            expires: None,
            same_site: None,
            secure: None,
            persistent: false,
            change_on_failure: false,
            legacy_canary: false,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            statuses: Vec::new(),
            non_idempotent: false,
            tries: 3,
            time: Duration::ZERO,
            wait: Duration::ZERO,
            same_endpoint: false,
        }
    }
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            enabled: false,
            origins: vec!["*".to_owned()],
            repeats_origin: false,
            methods: Told::These(HeaderValue::from_static("GET, PUT, POST, DELETE, PATCH, OPTIONS")),
            headers: Told::These(HeaderValue::from_static(
                "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
            )),
            expose: None,
            credentials: true,
            max_age: 1_728_000,
        }
    }
}
