//! A server starts again when its authorities are others: everything that trusts them is made of them at its start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use apiserver::TokenKeys;
use base::directory::Followed;
use base::tls::{self, Authority};

use super::authorities::{AUTHORITIES, TOKENS};
use crate::process::Again;

/// Time after a change in which the other files are written, too.
const SETTLED: Duration = Duration::from_millis(500);

/// What a server was started with of the files that say whom the cluster trusts.
pub(crate) struct Begun {
    pki: PathBuf,
    /// Each file's text; none of one that is made by the start.
    texts: Vec<Option<String>>,
}

fn texts(pki: &Path) -> Vec<Option<String>> {
    let names = AUTHORITIES.iter().map(|(name, _)| format!("{name}.crt")).chain([TOKENS.to_owned()]);
    names.map(|name| tls::read_private(&pki.join(name)).ok().flatten()).collect()
}

/// Whether a server could start with the files.
fn usable(pki: &Path) -> Result<(), tls::Error> {
    AUTHORITIES.iter().try_for_each(|(name, _)| Authority::load(pki, name).map(drop))?;
    TokenKeys::load_or_create(&pki.join(TOKENS), "").map(drop)
}

impl Begun {
    /// To be called before the files are read by anybody else: what changes after that is another.
    pub(crate) fn new(pki: PathBuf) -> Self {
        Self { texts: texts(&pki), pki }
    }

    /// Returns when the server must start again, which is an error. What a server could not start with changes nothing.
    pub(crate) async fn until_replaced(mut self) -> Result<()> {
        let mut followed = Followed::new(&self.pki);
        loop {
            if self.is_replaced() {
                match usable(&self.pki) {
                    Ok(()) => return Err(Again::Authorities.into()),
                    Err(error) => tracing::error!(%error, "the changed authorities are not used; those before stay in force"),
                }
            }
            followed.changed().await;
            tokio::time::sleep(SETTLED).await;
        }
    }

    /// Whether a file is another. One that was made since is the one that the server has.
    fn is_replaced(&mut self) -> bool {
        let mut is_replaced = false;
        for (begun, present) in self.texts.iter_mut().zip(texts(&self.pki)) {
            match (&begun, present) {
                (None, present) => *begun = present,
                (Some(before), Some(present)) => is_replaced |= *before != present,
                (Some(_), None) => {}
            }
        }
        is_replaced
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;
    use crate::certificate::authorities;

    #[tokio::test]
    async fn other_authorities_start_a_server_again() {
        let directory = tempfile::tempdir().unwrap();
        let pki = directory.path().to_owned();
        let begun = Begun::new(pki.clone());
        for (name, common_name) in AUTHORITIES {
            Authority::load_or_create(&pki, name, common_name).unwrap();
        }
        tls::write_private(&pki.join(TOKENS), tls::generate_key().unwrap().as_bytes()).unwrap();
        let mut following = std::pin::pin!(begun.until_replaced());
        assert!(futures::poll!(following.as_mut()).is_pending(), "the start has made them");
        // A certificate without its key is nobody's authority.
        let before = std::fs::read_to_string(pki.join("ca.crt")).unwrap();
        tls::write_private(&pki.join("ca.crt"), Authority::in_memory("x").unwrap().bundle().as_bytes()).unwrap();
        assert!(tokio::time::timeout(SETTLED * 3, following.as_mut()).await.is_err());
        tls::write_private(&pki.join("ca.crt"), before.as_bytes()).unwrap();
        authorities::begin(&pki, Timestamp::now()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), following).await.unwrap();
        assert!(ended.unwrap_err().is::<Again>());
    }
}
