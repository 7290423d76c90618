//! `knarr token`: the tokens by which machines join.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::kube::config::{KubeConfigOptions, Kubeconfig};
use client::kube::{self, Client, Config};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::cli::{Token, TokenCommand};
use crate::dev;
use crate::paths::Paths;
use crate::token::{JoinToken, SECRET_TYPE, SERVERS, secret_name};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// Runs one of them against the server of the data directory.
pub(crate) fn run(options: &Token) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paths = Paths::new(&dev::server_dir(&options.data_dir)?);
    runtime.block_on(async {
        let client = client(&paths.kubeconfig()).await?;
        match &options.command {
            TokenCommand::Create { ttl, description } => create(&client, &paths, *ttl, description).await,
            TokenCommand::List => list(&client).await,
            TokenCommand::Delete { id } => delete(&client, &paths, id).await,
        }
    })
}

/// The administrator's configuration, which a server writes.
pub(super) fn kubeconfig(path: &Path) -> Result<String> {
    let directory = || path.parent().unwrap_or(path).display().to_string();
    let start = || {
        format!(
            "no server has started with the data directory {0}: start one (knarr server --data-dir {0}), or name another directory",
            directory()
        )
    };
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(start()),
        read => read.with_context(|| path.display().to_string()),
    }
}

/// A client of the administrator.
pub(super) async fn client(path: &Path) -> Result<Client> {
    let text = kubeconfig(path)?;
    let config = Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text)?, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn create(client: &Client, paths: &Paths, ttl: Duration, description: &str) -> Result<()> {
    let token = JoinToken::new(&authority(paths)?)?;
    let end = Some(ttl).filter(|ttl| !ttl.is_zero()).map(|ttl| {
        let end = Timestamp::now().as_second().saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
    });
    make_valid(client, &token, end, description).await?;
    println!("{token}");
    Ok(())
}

fn authority(paths: &Paths) -> Result<String> {
    let path = paths.pki().join("ca.crt");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

async fn make_valid(client: &Client, token: &JoinToken, end: Option<Timestamp>, description: &str) -> Result<()> {
    let request = http::Request::post(SECRETS).header(http::header::CONTENT_TYPE, "application/json");
    let body = serde_json::to_vec(&token.secret(end, description, &[]))?;
    client.request::<Value>(request.body(body)?).await.map(drop).map_err(why)
}

async fn list(client: &Client) -> Result<()> {
    let path = format!("{SECRETS}?fieldSelector=type%3D{}", SECRET_TYPE.replace('/', "%2F"));
    let found: k8s_openapi::List<Secret> = client.request(http::Request::get(path).body(Vec::new())?).await.map_err(why)?;
    println!("{:<8} {:<22} DESCRIPTION", "TOKEN", "EXPIRES");
    for secret in &found.items {
        println!("{}", line(secret));
    }
    Ok(())
}

fn line(secret: &Secret) -> String {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).filter(|text| !text.is_empty())
    };
    let never = || "never".to_owned();
    let (id, end) = (text("token-id").unwrap_or_default(), text("expiration").unwrap_or_else(never));
    let line = format!("{id:<8} {end:<22} {}", text("description").unwrap_or_default());
    ctl::visible(line.trim_end(), &[])
}

/// Makes a token worthless. In place of the server's own, which stands in a file, there is another one then.
async fn delete(client: &Client, paths: &Paths, id: &str) -> Result<()> {
    // The whole token is taken for its id, too.
    let id = id.rsplit("::").next().unwrap_or_default().split('.').next().unwrap_or_default();
    let path = format!("{SECRETS}/{}", secret_name(id));
    client.request::<Value>(http::Request::delete(path).body(Vec::new())?).await.map_err(why)?;
    println!("token {id} deleted");
    let file = paths.token();
    if JoinToken::read(&file).is_ok_and(|own| own.id == id) {
        let token = JoinToken::replace(&file, &authority(paths)?)?;
        make_valid(client, &token, None, SERVERS).await?;
        println!("{} has a new one", file.display());
    }
    Ok(())
}

pub(super) fn why(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(_) => anyhow::Error::msg(client::why(&error)),
        error => anyhow::Error::new(error)
            .context("the server does not answer: does it run? (knarr status says more, knarr server starts it)"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn lines_of_the_list() {
        let check = |data: &[(&str, &str)], expected: &str| {
            let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
            assert_eq!(line(&Secret { data: Some(data), ..Secret::default() }), expected);
        };
        check(&[("token-id", "abcdef")], "abcdef   never");
        check(
            &[("token-id", "abcdef"), ("expiration", "2026-01-01T00:00:00Z"), ("description", "for n2")],
            "abcdef   2026-01-01T00:00:00Z   for n2",
        );
        check(&[("token-id", "abcdef"), ("description", "for\n\x1b[2J")], "abcdef   never                  for\\n^[[2J");
    }
}
