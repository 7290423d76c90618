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

/// Whether a server could start with the files. All have to be there: of one that is not, a start would make a new one that nobody trusts.
fn usable(pki: &Path) -> Result<(), tls::Error> {
    for (name, _) in AUTHORITIES {
        Authority::load(pki, name)?.ok_or_else(|| tls::Error::Missing(pki.join(format!("{name}.crt"))))?;
    }
    let tokens = pki.join(TOKENS);
    if tls::read_private(&tokens)?.is_none() {
        return Err(tls::Error::Missing(tokens));
    }
    TokenKeys::load_or_create(&tokens, "".into()).map(drop)
}

impl Begun {
    /// To be called before the files are read by anybody else: what changes after that is another.
    pub(crate) fn new(pki: PathBuf) -> Self {
        Self { texts: texts(&pki), pki }
    }

    /// Returns when the server must start again, which is an error. What a server could not start with changes nothing.
    pub(crate) async fn until_replaced(mut self) -> Result<()> {
        let mut followed = Followed::new(&self.pki);
        while !self.must_start_again() {
            followed.changed().await;
            tokio::time::sleep(SETTLED).await;
        }
        Err(Again::Authorities.into())
    }

    /// Whether files are others, and such that a server can start with them.
    fn must_start_again(&mut self) -> bool {
        self.is_replaced()
            && usable(&self.pki)
                .inspect_err(|error| {
                    tracing::error!(%error, "the changed authorities are not used; those before stay in force");
                })
                .is_ok()
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

    /// The files of a server's start.
    fn start(pki: &Path) {
        for (name, common_name) in AUTHORITIES {
            Authority::load_or_create(pki, name, common_name).unwrap();
        }
        TokenKeys::load_or_create(&pki.join(TOKENS), "".into()).unwrap();
    }

    #[test]
    fn what_starts_a_server_again() {
        let directory = tempfile::tempdir().unwrap();
        let pki = directory.path();
        let mut begun = Begun::new(pki.to_owned());
        assert!(!begun.must_start_again(), "nothing is there");
        start(pki);
        assert!(!begun.must_start_again(), "the start has made them");
        assert!(!Begun::new(pki.to_owned()).must_start_again(), "they are those of a start before");
        let other = directory.path().join("other");
        std::fs::create_dir(&other).unwrap();
        start(&other);
        let read = |from: &Path, name: &str| std::fs::read_to_string(from.join(name)).unwrap();
        let write = |name: &str, text: &str| tls::write_private(&pki.join(name), text.as_bytes()).unwrap();
        for (name, _) in AUTHORITIES {
            let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
            let before = [&certificate, &key].map(|name| read(pki, name));
            write(&certificate, &read(&other, &certificate));
            assert!(!begun.must_start_again(), "{certificate} without its key is nobody's authority");
            write(&key, &read(&other, &key));
            assert!(begun.must_start_again(), "{name} is another one");
            write(&certificate, "no certificate");
            assert!(!begun.must_start_again(), "{certificate} is none");
            let tokens = read(pki, TOKENS);
            write(TOKENS, &read(&other, TOKENS));
            std::fs::remove_file(pki.join(&certificate)).unwrap();
            assert!(!begun.must_start_again(), "{certificate} is not there, which no other change makes good");
            write(TOKENS, &tokens);
            write(&certificate, &before[0]);
            write(&key, &before[1]);
            assert!(!begun.must_start_again(), "{name} is what it was");
        }
        write(TOKENS, "no key");
        assert!(!begun.must_start_again(), "{TOKENS} has none");
        write(TOKENS, &read(&other, TOKENS));
        assert!(begun.must_start_again(), "{TOKENS} is another one");
        std::fs::remove_file(pki.join(TOKENS)).unwrap();
        for end in ["crt", "key"] {
            write(&format!("ca.{end}"), &read(&other, &format!("ca.{end}")));
        }
        assert!(!begun.must_start_again(), "{TOKENS} is not there");
        assert!(!pki.join(TOKENS).exists(), "who looks makes nothing");
    }

    #[tokio::test]
    async fn a_rotation_starts_a_server_again() {
        let directory = tempfile::tempdir().unwrap();
        let pki = directory.path();
        start(pki);
        let mut following = std::pin::pin!(Begun::new(pki.to_owned()).until_replaced());
        assert!(futures::poll!(following.as_mut()).is_pending());
        authorities::begin(pki, Timestamp::now()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), following).await.unwrap();
        assert!(ended.unwrap_err().is::<Again>());
    }
}
