//! Lifecycle hooks: postStart and preStop.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use client::events::Type;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};

use crate::context::Context;
use crate::metrics::hook_fell_back;
use crate::probes::OUTPUT;
use crate::probes::http::{self, Get, Purpose};
use crate::spec::{Member, Model};

/// Runs `handler` in or against the container, at most for `limit`. The error is for an event.
pub async fn run(
    cx: &Context,
    model: &Model,
    member: &Member,
    id: &str,
    ip: Option<IpAddr>,
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.as_deref().unwrap_or_default();
        let output = cx.runtime().exec_sync(id, command, limit, OUTPUT).await.map_err(|error| error.to_string())?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        return Err(format!("command '{}' exited with {}: {text}", command.join(" "), output.exit_code));
    }
    if let Some(action) = &handler.http_get {
        if let Asked::ByHttp(host) = get(action, &member.spec, ip, limit).await? {
            hook_fell_back();
            let message = format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded");
            cx.pod_event(model, Type::Warning, "LifecycleHTTPFallback", message);
        }
        return Ok(());
    }
    if let Some(action) = &handler.sleep {
        // The hook is the sleep: nothing is awaited by it.
        let time = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
        return tokio::time::timeout(limit, tokio::time::sleep(time))
            .await
            .map_err(|_| "the grace period ended first".to_owned());
    }
    Err("a tcpSocket hook does nothing: use exec, httpGet or sleep".to_owned())
}

/// How a hook was asked.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// As it says.
    AsItSays,
    /// By HTTP, though it says HTTPS: the host.
    ByHttp(String),
}

/// Asks over HTTP. Any answer will do, as upstream: a hook tells the container something, and does not ask how it is. Where HTTPS is asked for and the
/// server speaks HTTP, it is told by that, as kubelets did before v1.26 for all hooks.
async fn get(action: &HTTPGetAction, container: &Container, ip: Option<IpAddr>, limit: Duration) -> Result<Asked, String> {
    let (get, begun) = (Get::new(action, container, ip, Purpose::Hook)?, Instant::now());
    match get.send(limit).await {
        // Nothing of the answer is read.
        Ok(_) | Err(http::Error::Body(_)) => Ok(Asked::AsItSays),
        Err(http::Error::Plain(_)) => {
            let answer = get.by_http()?.send(limit.saturating_sub(begun.elapsed())).await;
            match answer {
                Ok(_) | Err(http::Error::Body(_)) => Ok(Asked::ByHttp(get.authority().to_owned())),
                Err(error) => Err(error.to_string()),
            }
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// pkg/kubelet/lifecycle/handlers.go: the answer's status is not looked at.
    #[tokio::test]
    async fn any_answer_to_an_http_hook_will_do() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let action = |port: u16| serde_json::from_value(json!({"port": port, "path": "/up"})).unwrap();
        let container: Container = serde_json::from_value(json!({"name": "c"})).unwrap();
        let limit = Duration::from_secs(20);
        for status in ["200 OK", "404 Not Found", "500 Internal Server Error"] {
            let action = action(address.port());
            let ask = get(&action, &container, Some(address.ip()), limit);
            let answer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.unwrap();
                let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(text.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&request[..count]).to_lowercase()
            };
            let (result, request) = tokio::join!(ask, answer);
            assert_eq!(result, Ok(Asked::AsItSays), "{status}");
            assert!(request.contains("get /up ") && request.contains("user-agent: kube-lifecycle/"), "{request}");
        }
        drop(listener);
        get(&action(address.port()), &container, Some(address.ip()), limit).await.unwrap_err();
    }

    /// kubernetes/kubernetes#86139: "Lifecycle handlers configured with `scheme: HTTPS` that encounter errors indicating the endpoint is actually using
    /// HTTP fall back to making the request over HTTP".
    #[tokio::test]
    async fn a_server_without_tls_is_told_by_http() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let headers = json!([{"name": "Authorization", "value": "Bearer secret"}, {"name": "X-Own", "value": "kept"}]);
        let action = json!({"port": address.port(), "scheme": "HTTPS", "httpHeaders": headers});
        let action = serde_json::from_value(action).unwrap();
        let container: Container = serde_json::from_value(json!({"name": "c"})).unwrap();
        let serve = async |status: &str| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..count]).to_lowercase()
        };
        let ask = get(&action, &container, Some(address.ip()), Duration::from_secs(20));
        let answers = async { (serve("400 Bad Request").await, serve("200 OK").await) };
        let (result, (_, request)) = tokio::join!(ask, answers);
        assert_eq!(result, Ok(Asked::ByHttp(address.to_string())));
        assert!(request.contains("x-own: kept") && !request.contains("secret"), "{request}");
    }
}
