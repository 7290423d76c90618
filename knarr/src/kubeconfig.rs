//! The administrator's kubeconfig.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use base::directory::Followed;
use base::tasks::{OnFailure, Tasks};
use base::tls::{Authority, Identity, Request, write_private};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Time between two looks at how old its certificate is: clocks may be set.
const LOOK: Duration = Duration::from_secs(3600);

/// The name of its certificate.
pub(crate) const ADMIN: &str = "admin";

/// The file, and what is in it.
pub(crate) struct Kubeconfig {
    /// The file.
    pub(crate) path: PathBuf,
    /// What its cluster and context are called; its user, too, with `-admin`, since files are merged by names.
    pub(crate) name: String,
    /// Where the administrator's certificate is kept.
    pub(crate) pki: PathBuf,
    /// Who issues it.
    pub(crate) authority: Arc<Authority>,
    /// Where the API server listens.
    pub(crate) listen: SocketAddr,
}

impl Kubeconfig {
    /// Writes it, and again whenever its certificate is due.
    pub(crate) fn keep(self, tasks: &Tasks) -> Result<()> {
        let identity = match self.write() {
            Ok(identity) => Some(identity),
            Err(error) if self.path.exists() => {
                tracing::error!(%error, "the administrator's kubeconfig cannot be written: the one that is there stays for now");
                None
            }
            Err(error) => return Err(error),
        };
        tasks.spawn_until_cancelled("administrator's kubeconfig", OnFailure::Log, self.renew(identity));
        Ok(())
    }

    async fn renew(self, mut identity: Option<Identity>) -> Result<(), Infallible> {
        let mut followed = Followed::new(&self.pki);
        loop {
            let left = identity.as_ref().and_then(|identity| identity.due_in(SystemTime::now())).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(left.clamp(Duration::from_secs(60), LOOK)) => {}
                () = followed.changed() => {}
            }
            let is_good = |identity: &Identity| !identity.is_due(SystemTime::now()) && !self.is_replaced(identity);
            if !identity.as_ref().is_some_and(is_good) {
                match self.write() {
                    Ok(renewed) => identity = Some(renewed),
                    Err(error) => tracing::error!(%error, "the administrator's kubeconfig cannot be renewed"),
                }
            }
        }
    }

    /// Whether somebody else has made another certificate, and not the half of it.
    fn is_replaced(&self, identity: &Identity) -> bool {
        let file = |kind: &str| self.pki.join(format!("{ADMIN}.{kind}"));
        let present = Identity::load(&file("crt"), &file("key")).ok().flatten();
        present.is_some_and(|present| present.certificate != identity.certificate && present.certified().is_ok())
    }

    /// Writes it (mode 0600), with a certificate for `system:masters`.
    fn write(&self) -> Result<Identity> {
        let request = Request::Client { user: "kubernetes-admin".into(), groups: vec!["system:masters".into()] };
        let identity = self.authority.load_or_issue(&self.pki, ADMIN, &request)?;
        let port = self.listen.port();
        let host = match self.listen.ip() {
            address if !address.is_unspecified() => address.to_string(),
            address if address.is_ipv6() => "::1".to_owned(),
            _ => "127.0.0.1".to_owned(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let text = text(&self.name, &format!("https://{host}:{port}"), self.authority.bundle(), &identity);
        write_private(&self.path, text.as_bytes())?;
        Ok(identity)
    }
}

/// The configuration of an administrator of this server, whose cluster and context have the name.
pub(crate) fn text(name: &str, server: &str, bundle: &str, identity: &Identity) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    format!(
        r#"apiVersion: v1
kind: Config
clusters:
- name: "{name}"
  cluster:
    server: {server}
    certificate-authority-data: {}
users:
- name: "{name}-admin"
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: "{name}"
  context:
    cluster: "{name}"
    user: "{name}-admin"
current-context: "{name}"
"#,
        encode(bundle),
        encode(&identity.certificate),
        encode(&base::tls::sec1(&identity.key))
    )
}
