//! `knarr secrets-encryption`: Secrets are encrypted in the store with keys that this command makes.
//!
//! The keys stand in an EncryptionConfiguration in the data directory, which the server follows. What is there already is written anew
//! by way of the API. A key goes only when nothing is encrypted with it any more.

mod file;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::kube::{self, Client};
use serde_json::Value;

use super::token::{client, why};
use crate::cli::{EncryptionCommand, SecretsEncryption};
use crate::dev;
use crate::paths::Paths;
use file::Keys;

/// How long the server may take to follow the file.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at the server's metrics, which announce nothing.
const RETRY: Duration = Duration::from_millis(50);
/// How often a Secret is written that others write, too.
const ATTEMPTS: u32 = 10;
/// Secrets that are read at once.
const PAGE: usize = 200;
/// The metric that tells which configuration is in force.
const IN_FORCE: &str = "apiserver_encryption_config_controller_last_config_info";

/// Runs one of them on the data directory, and against its server where one runs.
pub(crate) fn run(options: &SecretsEncryption) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paths = Paths::new(&dev::server_dir(&options.data_dir)?);
    runtime.block_on(act(&paths, options.command))
}

async fn act(paths: &Paths, command: EncryptionCommand) -> Result<()> {
    let path = paths.encryption();
    let keys = Keys::read(&path)?;
    let server = server(paths).await;
    if command == EncryptionCommand::Status {
        return status(&path, keys.as_ref(), server.as_ref()).await;
    }
    if server.is_none() && command != EncryptionCommand::Enable {
        bail!("no server runs with this data directory: start it first, Secrets are written anew by it");
    }
    if let Some(server) = &server {
        // A server that follows another file will never have this one in force: nothing is changed then.
        follows(server, &path).await?;
    }
    let plan = file::plan(keys, command, apiserver::encryption::secret)?;
    plan.first.write(&path)?;
    let Some(server) = server else {
        println!(
            "Secrets will be encrypted once the server runs; `knarr secrets-encryption reencrypt` then encrypts those there are."
        );
        return Ok(());
    };
    in_force(&server, &path).await?;
    let count = rewrite(&server).await?;
    if let Some(after) = plan.after {
        after.write(&path)?;
        if let Err(error) = in_force(&server, &path).await {
            // Something is encrypted with a key that it does not have: the next start would not read that.
            plan.first.write(&path)?;
            return Err(error.context("no key is forgotten"));
        }
    }
    println!("{count} Secrets are {}.", if plan.first.enabled { "encrypted with the newest key" } else { "not encrypted" });
    println!("Keep a copy of {}: without it the cluster does not start.", path.display());
    Ok(())
}

/// A client of the server, if one answers.
async fn server(paths: &Paths) -> Option<Client> {
    let client = client(&paths.kubeconfig()).await.ok()?;
    let alive = http::Request::get("/livez").body(Vec::new()).ok()?;
    match client.request_text(alive).await {
        Ok(_) | Err(kube::Error::Api(_)) => Some(client),
        Err(_) => None,
    }
}

async fn status(path: &Path, keys: Option<&Keys>, server: Option<&Client>) -> Result<()> {
    let Some(keys) = keys else {
        println!("Secrets are not encrypted; `knarr secrets-encryption enable` changes that.");
        return Ok(());
    };
    match keys.names().next() {
        Some(first) if keys.enabled => println!("Secrets are encrypted (AES-GCM) with {first}."),
        _ => println!("Secrets are not encrypted from now on; those that are can be read."),
    }
    println!("keys: {}", keys.names().collect::<Vec<_>>().join(", "));
    match server {
        None => println!("No server runs with this data directory."),
        Some(server) => {
            follows(server, path).await?;
            println!("The server has it in force.");
        }
    }
    Ok(())
}

/// Fails when the server has another configuration in force than the file's; without a file, when it has any.
async fn follows(server: &Client, path: &Path) -> Result<()> {
    let is_own = match path.exists() {
        true => has(server, &hash(path)?).await?,
        false => !has(server, "sha256:").await?,
    };
    match is_own {
        true => Ok(()),
        false => bail!(
            "the server has another configuration in force: see its log, and whether it was started with --encryption-provider-config"
        ),
    }
}

fn hash(path: &Path) -> Result<String> {
    Ok(apiserver::encryption::digest(&std::fs::read(path).with_context(|| path.display().to_string())?))
}

/// Whether the server has the configuration of this hash in force.
async fn has(server: &Client, hash: &str) -> Result<bool> {
    let page = server.request_text(http::Request::get("/metrics").body(Vec::new())?).await.map_err(why)?;
    Ok(page.lines().any(|line| line.starts_with(IN_FORCE) && line.contains(hash)))
}

/// Waits until the server has taken in the file.
async fn in_force(server: &Client, path: &Path) -> Result<()> {
    let (hash, start) = (hash(path)?, Instant::now());
    while !has(server, &hash).await? {
        if start.elapsed() > PATIENCE {
            bail!(
                "the server does not take in {}: see its log, and whether it was started with --encryption-provider-config",
                path.display()
            );
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// Writes each Secret as it is. The server stores it anew where it is not stored as the configuration says.
async fn rewrite(server: &Client) -> Result<usize> {
    let (mut count, mut next) = (0, String::new());
    loop {
        let page = format!("/api/v1/secrets?limit={PAGE}&continue={next}");
        let page: Value = server.request(http::Request::get(page).body(Vec::new())?).await.map_err(why)?;
        for secret in page["items"].as_array().into_iter().flatten() {
            put(server, secret).await?;
            count += 1;
        }
        match page["metadata"]["continue"].as_str().filter(|next| !next.is_empty()) {
            Some(token) => token.clone_into(&mut next),
            None => return Ok(count),
        }
    }
}

/// Writes a Secret as it is, again where somebody else has written it meanwhile.
async fn put(server: &Client, secret: &Value) -> Result<()> {
    let text = |field: &str| secret["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let failed = |error| why(error).context(format!("Secret {namespace}/{name} is not written anew; no key is forgotten"));
    let is = |error: &kube::Error, code| matches!(error, kube::Error::Api(status) if status.code == code);
    let mut whole = secret.clone();
    for attempt in 1.. {
        (whole["apiVersion"], whole["kind"]) = ("v1".into(), "Secret".into());
        let request = http::Request::put(&path).header(http::header::CONTENT_TYPE, "application/json");
        match server.request::<Value>(request.body(serde_json::to_vec(&whole)?)?).await {
            Err(error) if is(&error, 409) && attempt < ATTEMPTS => {}
            Err(error) if !is(&error, 404) => return Err(failed(error)),
            _ => break,
        }
        whole = match server.request(http::Request::get(&path).body(Vec::new())?).await {
            Err(error) if is(&error, 404) => break,
            read => read.map_err(failed)?,
        };
    }
    Ok(())
}
