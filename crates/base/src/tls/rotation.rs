//! How an authority takes the place of another one. Pure: the states of its two files, one after the other.
//!
//! The file of certificates holds what is trusted, the signer first. The file of keys holds a key of the signer and, as long as both
//! authorities are trusted, one of the former signer, with which the new one's certificate is signed once more: whoever trusts only
//! the former authority then believes what the new one issues. Two states that follow each other differ in one file, and an authority
//! can be loaded in each of them: a crash between two writes leaves one that works.

use super::authority::{block_of, keys_of};
use super::bundle::certificates;
use super::{Authority, Error, Identity};

/// The contents of the two files of an authority, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What is trusted, the signer first.
    pub certificates: String,
    /// The keys of some of them, among which that of the signer.
    pub keys: String,
}

/// The keys of an authority's certificates.
struct Held {
    certificates: Vec<String>,
    /// The blocks of the keys, each with the number of the certificate that it is of.
    keys: Vec<(String, Option<usize>)>,
}

impl Held {
    fn read(files: &Files) -> Result<Self, Error> {
        let certificates = certificates(&files.certificates)?;
        let mut keys = Vec::new();
        for key in keys_of(&files.keys)? {
            let mut of = None;
            for (number, certificate) in certificates.iter().enumerate() {
                if key.is_of(certificate)? {
                    of = Some(number);
                    break;
                }
            }
            keys.push((block_of(&key), of));
        }
        match keys.iter().any(|(_, of)| *of == Some(0)) {
            true => Ok(Self { certificates, keys }),
            false => Err(Error::Parse("certificate authority: none of the keys is that of its first certificate".into())),
        }
    }

    fn signer(&self) -> &str {
        self.keys.iter().find(|(_, of)| *of == Some(0)).map(|(key, _)| key.as_str()).unwrap_or_default()
    }
}

impl Files {
    /// The authority of the files.
    ///
    /// # Errors
    /// They cannot be read, or do not fit each other; the former authority cannot vouch for the present one.
    pub fn load(&self) -> Result<Authority, Error> {
        Authority::from_pem(&self.certificates, &self.keys)
    }

    /// The certificates of former signers, whose keys are still here: there are some while a rotation is under way.
    ///
    /// # Errors
    /// The files cannot be read, or do not fit each other.
    pub fn former(&self) -> Result<Vec<String>, Error> {
        let held = Held::read(self)?;
        let numbers = held.keys.iter().filter_map(|(_, of)| of.filter(|number| *number > 0));
        Ok(numbers.map(|number| held.certificates[number].clone()).collect())
    }

    /// The states in which a new authority becomes the signer beside the present one. None when that has been done already.
    ///
    /// # Errors
    /// As [`Files::former`].
    pub fn begin(&self, new: &Identity) -> Result<Vec<Self>, Error> {
        if !self.former()?.is_empty() {
            return Ok(Vec::new());
        }
        let held = Held::read(self)?;
        // A key that was left over by an attempt which did not come further has signed nothing.
        let prepared = Self { certificates: self.certificates.clone(), keys: format!("{}{}", new.key, held.signer()) };
        let begun = Self { certificates: format!("{}{}", new.certificate, held.certificates.concat()), ..prepared.clone() };
        Ok(vec![prepared, begun])
    }

    /// The states in which the signer comes to be the only authority. None when it is.
    ///
    /// # Errors
    /// As [`Files::former`].
    pub fn finish(&self) -> Result<Vec<Self>, Error> {
        let held = Held::read(self)?;
        let last = Self { certificates: held.certificates[0].clone(), keys: held.signer().to_owned() };
        let mut states = Vec::new();
        if !self.former()?.is_empty() {
            states.push(Self { certificates: last.certificates.clone(), keys: self.keys.clone() });
        }
        if held.keys.len() > 1 {
            // Whoever has several certificates without a rotation, such as a signer below another authority, keeps them.
            let certificates = states.last().map_or(&self.certificates, |state| &state.certificates).clone();
            states.push(Self { certificates, ..last });
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::{Peer, Request, Resolver, Verifier, client, server};

    fn files(identity: &Identity) -> Files {
        Files { certificates: identity.certificate.clone(), keys: identity.key.clone() }
    }

    fn load(files: &Files) -> Arc<Authority> {
        Arc::new(files.load().unwrap())
    }

    /// Whether a client and a server with certificates of these authorities believe each other.
    async fn meet(serving: &Arc<Authority>, trusted_there: &str, calling: &Arc<Authority>, trusted_here: &str) -> bool {
        let of_server = Request::Server { name: "s".into(), sans: vec!["localhost".into()] };
        let of_client = Request::Client { user: "jane".into(), groups: vec![] };
        let verifier = Verifier::new(trusted_there).unwrap();
        let serving = Resolver::memory(serving.clone(), of_server).unwrap();
        let acceptor = TlsAcceptor::from(server(serving, Some(verifier.clone())).unwrap());
        let identity = Resolver::memory(calling.clone(), of_client).unwrap();
        let connector = TlsConnector::from(Arc::new(client(trusted_here, Some(identity)).unwrap()));
        let (a, b) = tokio::io::duplex(64 << 10);
        let (served, connected) =
            tokio::join!(acceptor.accept(a), connector.connect(ServerName::try_from("localhost").unwrap(), b));
        let Ok(served) = served else { return false };
        connected.is_ok() && matches!(verifier.peer(served.get_ref().1.peer_certificates()), Peer::User { .. })
    }

    /// The kubernetes.io page "Manual Rotation of CA Certificates": components trust both authorities while certificates of either are in use.
    #[tokio::test]
    async fn each_state_works_with_those_before_and_after() {
        let [old, new] = ["old", "new"].map(|name| Authority::generate(name).unwrap());
        let first = files(&old);
        let mut states = vec![first.clone()];
        states.extend(first.begin(&new).unwrap());
        let begun = states.last().unwrap().clone();
        assert_eq!(begun.former().unwrap(), std::slice::from_ref(&old.certificate));
        assert!(begun.begin(&new).unwrap().is_empty() && first.former().unwrap().is_empty());
        // Until the former authority goes, whoever knows only that one, or only the new one, is at home.
        for state in &states {
            let now = load(state);
            let before = load(&first);
            assert!(meet(&now, now.bundle(), &before, &old.certificate).await);
            assert!(meet(&before, &old.certificate, &now, now.bundle()).await);
        }
        let finished = begun.finish().unwrap();
        let after = load(finished.last().unwrap());
        assert_eq!(after.bundle(), new.certificate);
        let (now, before) = (load(&begun), load(&first));
        for state in &finished {
            assert!(meet(&load(state), load(state).bundle(), &now, now.bundle()).await);
            assert!(!meet(&load(state), load(state).bundle(), &before, now.bundle()).await, "the former authority's clients");
            assert!(
                !meet(&load(state), load(state).bundle(), &now, &old.certificate).await,
                "who trusts only the former authority"
            );
        }
        assert!(meet(&now, now.bundle(), &after, after.bundle()).await);
        assert!(finished.last().unwrap().finish().unwrap().is_empty());
    }

    #[test]
    fn states_differ_in_one_file_and_go_on_from_anywhere() {
        let [old, new, newer] = ["old", "new", "newer"].map(|name| Authority::generate(name).unwrap());
        let first = files(&old);
        let check = |from: &Files, states: &[Files]| {
            let all: Vec<&Files> = std::iter::once(from).chain(states).collect();
            for pair in all.windows(2) {
                assert!((pair[0].certificates != pair[1].certificates) != (pair[0].keys != pair[1].keys), "{pair:?}");
            }
        };
        let begun = first.begin(&new).unwrap();
        check(&first, &begun);
        // Killed after the keys were written: the next attempt has another authority, and the key of the one before is gone.
        let again = begun[0].begin(&newer).unwrap();
        check(&begun[0], &again);
        assert!(!again[0].keys.contains(new.key.trim()) && again[1].certificates.starts_with(&newer.certificate));
        // Killed while it finished.
        let finished = begun[1].finish().unwrap();
        check(&begun[1], &finished);
        assert_eq!(finished[0].finish().unwrap(), finished[1..]);
        assert_eq!(finished[1], files(&new));
        // A rotation after a rotation.
        assert_eq!(finished[1].begin(&newer).unwrap()[1].former().unwrap(), std::slice::from_ref(&new.certificate));
        // A key without a certificate is cleared away, certificates without keys stay.
        let chain = Files { certificates: format!("{}{}", new.certificate, old.certificate), keys: new.key.clone() };
        assert!(chain.former().unwrap().is_empty() && chain.finish().unwrap().is_empty());
        let foreign = Files { keys: newer.key.clone(), ..chain };
        assert!(foreign.former().unwrap_err().to_string().contains("none of the keys"));
    }
}
