//! What a request to the kubelet needs to be allowed. Pure.
//!
//! The attributes are upstream's (docs "Kubelet authentication/authorization", KEP-2862 fine-grained authorization), except that what
//! runs commands in containers needs `create` also when it comes as a GET: the WebSocket handshake of an exec is no reading, and who may
//! read nodes/proxy must not be root in every pod.

use http::Method;

/// What has to be allowed: a verb on one of the sub-resources of the kubelet's node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Access {
    pub(super) verb: &'static str,
    /// One of them is enough.
    pub(super) subresources: &'static [&'static str],
}

impl Access {
    /// What a request needs; none for a method that means nothing here.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let verb = match *method {
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => return None,
        };
        let (verb, subresources): (_, &[&str]) = match path.trim_matches('/').split('/').next().unwrap_or_default() {
            "exec" | "run" | "attach" | "portForward" => ("create", &["proxy"]),
            "stats" => (verb, &["stats"]),
            "metrics" => (verb, &["metrics"]),
            "logs" => (verb, &["log"]),
            "checkpoint" => (verb, &["checkpoint"]),
            "healthz" => (verb, &["healthz", "proxy"]),
            "configz" | "flagz" => (verb, &["configz", "proxy"]),
            "statusz" => (verb, &["statusz", "proxy"]),
            "pods" | "runningpods" => (verb, &["pods", "proxy"]),
            _ => (verb, &["proxy"]),
        };
        Some(Self { verb, subresources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, expected: Option<(&str, &[&str])>) {
        let (method, path) = request.split_once(' ').unwrap();
        let access = Access::of(&method.parse().unwrap(), path);
        assert_eq!(access.map(|access| (access.verb, access.subresources)), expected, "{request}");
    }

    #[test]
    fn requests_need_what_upstream_says_and_commands_need_create() {
        check("GET /metrics", Some(("get", &["metrics"])));
        check("GET /metrics/cadvisor", Some(("get", &["metrics"])));
        check("GET /stats/summary", Some(("get", &["stats"])));
        check("GET /logs/", Some(("get", &["log"])));
        check("POST /checkpoint/n/p/c", Some(("create", &["checkpoint"])));
        check("GET /healthz", Some(("get", &["healthz", "proxy"])));
        check("GET /configz", Some(("get", &["configz", "proxy"])));
        check("GET /flagz", Some(("get", &["configz", "proxy"])));
        check("GET /statusz", Some(("get", &["statusz", "proxy"])));
        check("HEAD //pods", Some(("get", &["pods", "proxy"])));
        check("GET /runningpods/", Some(("get", &["pods", "proxy"])));
        check("GET /containerLogs/n/p/c", Some(("get", &["proxy"])));
        check("GET /metricsx", Some(("get", &["proxy"])));
        check("DELETE /anything", Some(("delete", &["proxy"])));
        for path in ["/exec/n/p/c", "//exec/n/p/c", "/run/n/p/c", "/attach/n/p/c", "/portForward/n/p"] {
            for method in ["GET", "POST", "PUT"] {
                check(&format!("{method} {path}"), Some(("create", &["proxy"])));
            }
        }
        check("OPTIONS /pods", None);
    }
}
