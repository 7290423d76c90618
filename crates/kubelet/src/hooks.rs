//! Lifecycle hooks: postStart and preStop.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::context::Context;
use crate::probes::OUTPUT;
use crate::probes::http::Get;
use crate::spec::Member;

/// Runs `handler` in or against the container, at most for `limit`. The error is for an event.
pub async fn run(
    cx: &Context,
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
        let (status, _) = Get::new(action, &member.spec, ip)?.send(limit).await?;
        return if status < 400 { Ok(()) } else { Err(format!("HTTP hook failed with statuscode: {status}")) };
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
