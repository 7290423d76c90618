//! Whom a node trusts as the cluster's authorities, and whom it trusted before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base::tls;

/// The files that say whom the node trusts.
pub(super) struct Trusted {
    /// The certificates, the signer first.
    bundle: PathBuf,
    /// Digests of authorities whose place others have taken: tokens that name them are of this cluster.
    former: PathBuf,
}

impl Trusted {
    /// The files in this directory.
    pub(super) fn new(pki: &Path) -> Self {
        Self { bundle: pki.join("server-ca.crt"), former: pki.join("server-ca.former") }
    }

    /// Whom the node trusts, once it knows that.
    pub(super) fn read(&self) -> Result<Option<String>, tls::Error> {
        tls::read_private(&self.bundle)
    }

    /// Trusts a cluster that the node has not known before.
    pub(super) fn begin(&self, bundle: &str) -> Result<(), tls::Error> {
        // Tokens of another cluster lead back to that one.
        base::files::remove(&self.former).map_err(|source| tls::Error::File { path: self.former.clone(), source })?;
        tls::write_private(&self.bundle, bundle.as_bytes())
    }

    /// Whether a token with this digest is of the cluster whose authorities these are.
    pub(super) fn is_of(&self, bundle: &str, digest: &str) -> Result<bool, tls::Error> {
        let former = tls::read_private(&self.former)?.unwrap_or_default();
        Ok(tls::vouched(bundle, digest).is_some() || former.lines().any(|line| line == digest))
    }

    /// Trusts these from now on, in the place of others of the same cluster.
    pub(super) fn replace(&self, before: &str, bundle: &str) -> Result<(), tls::Error> {
        let present = tls::read_private(&self.former)?.unwrap_or_default();
        let mut former: BTreeSet<String> = present.lines().map(str::to_owned).collect();
        former.insert(tls::digest_of_bundle(before)?);
        for one in tls::certificates(before)? {
            former.insert(tls::digest_of_bundle(&one)?);
        }
        // First: without it a token of before would lead a node that starts again to ask whose it is.
        tls::write_private(&self.former, former.into_iter().map(|line| line + "\n").collect::<String>().as_bytes())?;
        tls::write_private(&self.bundle, bundle.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::Authority;

    use super::*;

    #[test]
    fn tokens_of_former_authorities_are_of_the_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let trusted = Trusted::new(directory.path());
        let [old, new, other] = ["a", "b", "c"].map(|name| Authority::in_memory(name).unwrap().bundle().to_owned());
        let check = |expected: [bool; 3]| {
            let bundle = trusted.read().unwrap().unwrap();
            let is_of = [&old, &new, &other].map(|of| trusted.is_of(&bundle, &tls::digest_of_bundle(of).unwrap()).unwrap());
            assert_eq!(is_of, expected);
        };
        assert!(trusted.read().unwrap().is_none());
        trusted.begin(&old).unwrap();
        check([true, false, false]);
        let both = format!("{new}{old}");
        trusted.replace(&old, &both).unwrap();
        check([true, true, false]);
        trusted.replace(&both, &new).unwrap();
        check([true, true, false]);
        assert_eq!(trusted.read().unwrap().unwrap(), new);
        trusted.begin(&other).unwrap();
        check([false, false, true]);
    }
}
