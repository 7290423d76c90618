//! New certificates in the place of those that a server has, from the same authorities and for the same names.

use std::path::Path;

use anyhow::{Context, Result, bail};
use base::tls::{self, Authority, Identity, inspect, write_private};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::kube::config::Kubeconfig;

use super::asked;
use crate::kubeconfig::{self, ADMIN};
use crate::paths::Paths;

/// The certificates of a server, and the authority of each.
const LEAVES: [(&str, &str); 4] =
    [("apiserver", "ca"), ("kubelet", "ca"), (ADMIN, "ca"), ("front-proxy-client", "front-proxy-ca")];
/// Those of an agent.
const OF_AGENT: [&str; 2] = ["kubelet-client", "kubelet"];

fn present(pki: &Path, name: &str) -> Result<Option<Identity>, tls::Error> {
    Identity::load(&pki.join(format!("{name}.crt")), &pki.join(format!("{name}.key")))
}

/// Issues all certificates of a server anew. Gives the names of the files.
///
/// # Errors
/// One cannot be read or written; those before it are new.
pub(crate) fn renew(paths: &Paths) -> Result<Vec<String>> {
    let (pki, mut renewed) = (paths.pki(), Vec::new());
    for (name, authority) in LEAVES {
        let Some(before) = present(&pki, name)? else { continue };
        let Some(authority) = Authority::load(&pki, authority)? else {
            bail!("there is no {}", pki.join(format!("{authority}.crt")).display())
        };
        let file = pki.join(format!("{name}.crt"));
        let leaf = inspect(&before.certificate)?.into_iter().next();
        let request = leaf.and_then(|leaf| leaf.request()).with_context(|| {
            format!("{}: it is no certificate of Knarr's: remove it, and the server makes another", file.display())
        })?;
        let identity = authority.issue(&request)?;
        identity.store(&file, &pki.join(format!("{name}.key")))?;
        renewed.push(file.display().to_string());
    }
    Ok(renewed)
}

/// Whether the administrator's kubeconfig has the certificate that the administrator has now. Where there is none of either, it does.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn is_in_kubeconfig(paths: &Paths) -> Result<bool> {
    let (Some(identity), Some(text)) = (present(&paths.pki(), ADMIN)?, tls::read_private(&paths.kubeconfig())?) else {
        return Ok(true);
    };
    Ok(text.contains(&STANDARD.encode(&identity.certificate)))
}

/// Writes the administrator's kubeconfig anew, unless there is none yet. Only while no server runs, which writes it, too.
///
/// # Errors
/// It cannot be read or written.
pub(crate) fn write_kubeconfig(paths: &Paths) -> Result<()> {
    if is_in_kubeconfig(paths)? {
        return Ok(());
    }
    let (path, pki) = (&paths.kubeconfig(), paths.pki());
    let (Some(before), Some(identity)) = (tls::read_private(path)?, present(&pki, ADMIN)?) else { return Ok(()) };
    let authority = Authority::load(&pki, "ca")?.context("there is no authority")?;
    let before = Kubeconfig::from_yaml(&before).with_context(|| path.display().to_string())?;
    let cluster = before.clusters.into_iter().next().and_then(|named| Some((named.name, named.cluster?.server?)));
    let (name, server) = cluster.with_context(|| format!("{}: it names no server", path.display()))?;
    Ok(write_private(path, kubeconfig::text(&name, &server, authority.bundle(), &identity).as_bytes())?)
}

/// Has an agent ask for other certificates in the place of those that it has.
///
/// # Errors
/// There are none, or the wish cannot be written down.
pub(crate) fn ask(paths: &Paths) -> Result<()> {
    let pki = paths.pki();
    let found = OF_AGENT.iter().map(|name| present(&pki, name)).collect::<Result<Vec<_>, _>>()?;
    let found: Vec<Identity> = found.into_iter().flatten().collect();
    if found.is_empty() {
        bail!("the agent of this data directory has not joined yet");
    }
    Ok(asked::ask(&pki, &found)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::Request;

    use super::*;

    #[test]
    fn certificates_are_renewed_for_the_same_names() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let pki = paths.pki();
        let authority = Authority::load_or_create(&pki, "ca", "ca").unwrap();
        let sans = vec!["kubernetes".to_owned(), "10.43.0.1".to_owned()];
        let admin = Request::Client { user: "kubernetes-admin".into(), groups: vec!["system:masters".into()] };
        let requests = [("apiserver", Request::Server { name: "kube-apiserver".into(), sans }), (ADMIN, admin)];
        let before = requests.clone().map(|(name, request)| authority.load_or_issue(&pki, name, &request).unwrap());
        // A server that has not served yet has no kubeconfig.
        assert_eq!(renew(&paths).unwrap().len(), 2);
        write_kubeconfig(&paths).unwrap();
        assert!(!paths.kubeconfig().exists() && is_in_kubeconfig(&paths).unwrap());
        let written = kubeconfig::text("yes", "https://10.0.0.1:7443", authority.bundle(), &before[1]);
        std::fs::write(paths.kubeconfig(), written).unwrap();
        assert!(!is_in_kubeconfig(&paths).unwrap());
        assert_eq!(renew(&paths).unwrap().len(), 2);
        write_kubeconfig(&paths).unwrap();
        assert!(is_in_kubeconfig(&paths).unwrap());
        for ((name, request), before) in requests.iter().zip(&before) {
            let after = present(&pki, name).unwrap().unwrap();
            assert_ne!(after.certificate, before.certificate);
            assert_eq!(inspect(&after.certificate).unwrap()[0].request().as_ref(), Some(request));
            assert_eq!(
                authority.load_or_issue(&pki, name, request).unwrap().certificate,
                after.certificate,
                "the server keeps it"
            );
        }
        let after = present(&pki, ADMIN).unwrap().unwrap();
        let text = std::fs::read_to_string(paths.kubeconfig()).unwrap();
        assert_eq!(text, kubeconfig::text("yes", "https://10.0.0.1:7443", authority.bundle(), &after));
        assert!(ask(&Paths::new(&directory.path().join("agent"))).unwrap_err().to_string().contains("not joined"));
    }
}
