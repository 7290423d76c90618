//! Proofs that issuers ask for over plain HTTP (RFC 8555, 8.3).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

const PREFIX: &str = "/.well-known/acme-challenge/";

/// What is to be answered, by token.
#[derive(Debug, Default)]
pub(crate) struct Challenges(RwLock<HashMap<String, String>>);

/// A proof that is shown as long as this is there.
pub(crate) struct Shown {
    challenges: Arc<Challenges>,
    token: String,
}

impl Challenges {
    /// Shows a proof.
    pub(crate) fn show(self: &Arc<Self>, token: &str, proof: &str) -> Shown {
        self.0.write().insert(token.to_owned(), proof.to_owned());
        Shown { challenges: self.clone(), token: token.to_owned() }
    }

    /// The proof at a path. Other paths, and tokens of other programs, are for the routes.
    pub(crate) fn at(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PREFIX)?;
        self.0.read().get(token).cloned()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.challenges.0.write().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_shown_for_a_time() {
        let challenges = Arc::new(Challenges::default());
        let shown = challenges.show("t", "proof");
        for (path, expected) in [
            ("/.well-known/acme-challenge/t", Some("proof")),
            ("/.well-known/acme-challenge/u", None),
            ("/.well-known/acme-challenge/", None),
            ("/t", None),
        ] {
            assert_eq!(challenges.at(path).as_deref(), expected, "{path}");
        }
        drop(shown);
        assert_eq!(challenges.at("/.well-known/acme-challenge/t"), None);
    }
}
