//! `knarr certificate`: what there is of certificates, new ones, and new authorities.

mod rotation;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::tls;
use jiff::Timestamp;

use crate::certificate::report::{File, KUBECONFIG, Report, rows};
use crate::certificate::{authorities, leaves};
use crate::cli::{Certificate, CertificateCommand, CheckForm};
use crate::dev;
use crate::paths::Paths;
use crate::process;

/// How long the server may take to write its kubeconfig anew, and the time between two looks.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(50);

/// Runs one of them.
pub(crate) fn run(options: &Certificate) -> Result<()> {
    let data_dir = dev::server_dir(&options.data_dir)?;
    let paths = Paths::new(&data_dir);
    match options.command {
        CertificateCommand::Check { output } => check(&data_dir, &paths, output),
        CertificateCommand::Rotate => rotate(&paths, &dev::kubeconfig(&options.data_dir)?),
        CertificateCommand::RotateCa { finish: false, .. } => rotation::begin(&paths, &options.data_dir),
        CertificateCommand::RotateCa { finish: true, force } => rotation::finish(&paths, force),
    }
}

/// Whose data directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Server,
    Agent,
}

impl Owner {
    fn of(paths: &Paths) -> Result<Self> {
        let has = |name: &str| paths.pki().join(name).exists();
        match (has("ca.crt"), has("server-ca.crt")) {
            (true, _) => Ok(Self::Server),
            (false, true) => Ok(Self::Agent),
            (false, false) => {
                bail!("{}: neither a server nor an agent has certificates here: name their --data-dir", paths.pki().display())
            }
        }
    }
}

fn check(data_dir: &Path, paths: &Paths, form: CheckForm) -> Result<()> {
    let owner = Owner::of(paths)?;
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(paths.pki()).with_context(|| paths.pki().display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // What is being written has a name that begins with a dot.
        if name.ends_with(".crt") && !name.starts_with('.') {
            names.push(format!("pki/{name}"));
        }
    }
    let mut files: Vec<File> = names.into_iter().map(|name| File { text: text(&data_dir.join(&name)), name }).collect();
    if paths.kubeconfig().exists() {
        files.push(File { name: KUBECONFIG.to_owned(), text: certificate_of(&paths.kubeconfig()) });
    }
    let is_server = owner == Owner::Server;
    let report = Report {
        is_running: process::is_locked(&paths.lock())?,
        is_rotating: is_server && authorities::is_rotating(&paths.pki()).unwrap_or_default(),
        service_account_keys: authorities::token_keys(&paths.pki())?,
        certificates: rows(&files, Timestamp::now()),
    };
    match form {
        CheckForm::Text => print!("{}", report.text()),
        CheckForm::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let problems = report.problems();
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("; ")) }
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The client certificate in a kubeconfig.
fn certificate_of(path: &Path) -> Result<String, String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let read = client::kube::config::Kubeconfig::from_yaml(&text(path)?).map_err(|error| error.to_string())?;
    let data = read.auth_infos.first().and_then(|named| named.auth_info.as_ref()?.client_certificate_data.clone());
    let data = STANDARD.decode(data.ok_or("it has no client certificate")?).map_err(|error| error.to_string())?;
    String::from_utf8(data).map_err(|error| error.to_string())
}

fn rotate(paths: &Paths, kubeconfig: &Path) -> Result<()> {
    match Owner::of(paths)? {
        Owner::Server => rotate_server(paths, kubeconfig),
        Owner::Agent => {
            leaves::ask(paths)?;
            match process::is_locked(&paths.lock())? {
                true => println!(
                    "The agent asks the server for new certificates now; `knarr certificate check` shows when it has them."
                ),
                false => println!("The agent asks the server for new certificates when it runs."),
            }
            Ok(())
        }
    }
}

fn rotate_server(paths: &Paths, kubeconfig: &Path) -> Result<()> {
    // No server starts meanwhile: it writes the same files.
    let held = match process::is_locked(&paths.lock())? {
        true => None,
        false => Some(process::lock(&paths.lock())?),
    };
    for file in leaves::renew(paths)? {
        println!("new: {file}");
    }
    match held {
        Some(_) => leaves::write_kubeconfig(paths)?,
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(until_in_kubeconfig(paths))?;
            println!("The server shows the new certificates within ten seconds.");
        }
    }
    println!("new: {}", kubeconfig.display());
    println!("What they replace stays good until it ends.");
    Ok(())
}

/// Waits until the server has written its administrator's new certificate into the kubeconfig.
async fn until_in_kubeconfig(paths: &Paths) -> Result<()> {
    let start = Instant::now();
    while !leaves::is_in_kubeconfig(paths)? {
        if start.elapsed() > PATIENCE {
            bail!("the server does not write {} anew: see its log", paths.kubeconfig().display());
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// The authorities that the server of a data directory has, PEM.
fn authority(paths: &Paths) -> Result<String> {
    let path = paths.pki().join("ca.crt");
    tls::read_private(&path)?.with_context(|| format!("{}: no such file", path.display()))
}
