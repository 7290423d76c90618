//! What is wrong with the Secrets that an Ingress refers to. Pure.

use std::collections::HashMap;

use client::Key;

use super::{Known, KnownSecret};
use crate::annotations::Problem;
use crate::guard::clients::Authorities;
use crate::guard::passwords::Passwords;

/// Reason of the events.
pub(super) const REASON: &str = "SecretNotUsable";

impl Known {
    /// What is wrong, of the Secrets that somebody has looked at.
    pub(super) fn secrets_in_trouble(&self, known: &HashMap<Key, KnownSecret>) -> Vec<Problem> {
        let compiled = &self.compiled;
        let (mut found, problem) =
            (Vec::new(), |key: &Key, why: &str, then: &str| Problem::new(REASON, format!("Secret {key} {why}: {then}")));
        if let Some((key, secret)) = compiled.passwords.as_ref().and_then(|key| Some((key, known.get(key)?))) {
            let then = "requests are refused until it has passwords";
            match &secret.secret {
                None => found.push(problem(key, "is not there", then)),
                Some(secret) if Passwords::of(secret, compiled.policy.basic.map).is_none() => {
                    found.push(problem(key, "has no key auth", then));
                }
                Some(_) => {}
            }
        }
        if let Some((key, secret)) = compiled.authorities.as_ref().and_then(|key| Some((key, known.get(key)?))) {
            let then = "requests are refused until it has authorities of clients";
            match secret.secret.as_deref().map(Authorities::of) {
                None => found.push(problem(key, "is not there", then)),
                Some(Err(error)) => found.push(problem(key, &format!("cannot be used ({error})"), then)),
                Some(Ok(_)) => {}
            }
        }
        // What an issuer is asked for is there later.
        let named = compiled.tls.iter().filter_map(|(_, secret)| secret.as_ref()).filter(|_| compiled.issuer.is_none());
        for key in named.filter(|key| known.get(*key).is_some_and(|known| known.secret.is_none())) {
            let told = problem(key, "is not there", "a certificate that nobody trusts is shown");
            if !found.contains(&told) {
                found.push(told);
            }
        }
        found
    }
}
