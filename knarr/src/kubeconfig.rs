//! The administrator's kubeconfig.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use base::tls::{Authority, Request, write_private};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Writes it (mode 0600), with a certificate for `system:masters`.
pub(crate) fn write(path: &Path, pki: &Path, authority: &Arc<Authority>, listen: IpAddr, port: u16) -> Result<()> {
    let request = Request::Client { user: "kubernetes-admin".into(), groups: vec!["system:masters".into()] };
    let identity = authority.load_or_issue(pki, "admin", &request)?;
    let host = match listen {
        address if !address.is_unspecified() => address.to_string(),
        address if address.is_ipv6() => "::1".to_owned(),
        _ => "127.0.0.1".to_owned(),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let encode = |text: &str| STANDARD.encode(text);
    let text = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: knarr
  cluster:
    server: https://{host}:{port}
    certificate-authority-data: {}
users:
- name: admin
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: knarr
  context:
    cluster: knarr
    user: admin
current-context: knarr
",
        encode(authority.bundle()),
        encode(&identity.certificate),
        encode(&identity.key)
    );
    write_private(path, text.as_bytes())?;
    Ok(())
}
