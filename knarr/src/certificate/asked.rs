//! Certificates of an agent that somebody wants to see renewed. Only the server can issue new ones, and only the agent asks for them.

use std::path::{Path, PathBuf};

use base::tls::{self, Identity};

fn path(pki: &Path) -> PathBuf {
    pki.join("renew")
}

/// Asks for other certificates in the place of these. They stay in use until there are others.
///
/// # Errors
/// It cannot be written, or one of them cannot be read.
pub(crate) fn ask(pki: &Path, present: &[Identity]) -> Result<(), tls::Error> {
    let lines = present.iter().map(|identity| Ok(tls::digest_of_signer(&identity.certificate)? + "\n"));
    tls::write_private(&path(pki), lines.collect::<Result<String, tls::Error>>()?.as_bytes())
}

/// Whether somebody has asked for another one in the place of this.
pub(crate) fn is_asked_for(pki: &Path, identity: &Identity) -> bool {
    let Ok(Some(asked)) = tls::read_private(&path(pki)) else { return false };
    tls::digest_of_signer(&identity.certificate).is_ok_and(|digest| asked.lines().any(|line| line == digest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::{Authority, Request};

    use super::*;

    #[test]
    fn a_new_certificate_is_not_asked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::in_memory("ca").unwrap();
        let issue = || authority.issue(&Request::Client { user: "u".into(), groups: Vec::new() }).unwrap();
        let (before, after) = (issue(), issue());
        assert!(!is_asked_for(directory.path(), &before));
        ask(directory.path(), std::slice::from_ref(&before)).unwrap();
        assert!(is_asked_for(directory.path(), &before) && !is_asked_for(directory.path(), &after));
    }
}
