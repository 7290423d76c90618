//! Passwords from a Secret: a file of `htpasswd` under the key `auth`, or a key for each user.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use k8s_openapi::api::core::v1::Secret;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use ring::rand::SecureRandom;
use ring::{digest, hmac, rand};

use super::turns::{TooMany, Turns};

/// Right credentials that are remembered, and for how long: checking one takes a processor for a tenth of a second.
const REMEMBERED: usize = 1024;
const HOLDS: Duration = Duration::from_secs(300);
/// Costly checks, one at a time, so that guessing does not take all processors. Namespaces take turns: one chooses how much its own checks cost.
static CHECKS: Turns = Turns::free();
/// The highest cost of bcrypt that is checked, about a second of a processor. `htpasswd -B` writes 5.
const MOST_COST: u32 = 14;
/// Under this key credentials are remembered, so that memory holds none.
static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    let mut bytes = [0; 32];
    // A system without randomness has no TLS either; the credentials are hashed all the same.
    let _ = rand::SystemRandom::new().fill(&mut bytes);
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
});

/// The passwords of an Ingress, hashed.
#[derive(Debug)]
pub struct Passwords {
    /// Whose they are.
    namespace: String,
    users: HashMap<String, String>,
    right: Mutex<HashMap<Vec<u8>, Instant>>,
    checked: Mutex<Checked>,
}

/// Credentials that are being checked, each by one request for which the others with the same wait.
type Checked = HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>;

/// One of those who wait for a check, or do it.
struct Waiting<'p> {
    passwords: &'p Passwords,
    tag: &'p [u8],
    one: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut checked = self.passwords.checked.lock();
        // Beside the one in the list, this is the last: nobody else waits.
        if Arc::strong_count(&self.one) == 2 {
            checked.remove(self.tag);
        }
    }
}

impl Passwords {
    /// Of a Secret; none when it has no such key.
    pub fn of(secret: &Secret, map: bool) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let users = if map {
            data.iter().map(|(user, hash)| (user.clone(), text(&hash.0))).collect()
        } else {
            let file = text(&data.get("auth")?.0);
            let lines = file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.trim().split_once(':'));
            lines.map(|(user, hash)| (user.to_owned(), hash.to_owned())).collect()
        };
        Some(Self {
            namespace: secret.metadata.namespace.clone().unwrap_or_default(),
            users,
            right: Mutex::default(),
            checked: Mutex::default(),
        })
    }

    /// The user whose password a request shows.
    ///
    /// # Errors
    /// Too many requests have their passwords checked at once.
    pub async fn user(&self, headers: &HeaderMap) -> Result<Option<String>, TooMany> {
        let Some(shown) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else { return Ok(None) };
        let Some((user, password)) = credentials(shown) else { return Ok(None) };
        let Some(hash) = self.users.get(&user).cloned() else { return Ok(None) };
        let tag = hmac::sign(&KEY, shown).as_ref().to_vec();
        if self.is_known(&tag) {
            return Ok(Some(user));
        }
        // A browser asks for many things at once with one password.
        let waiting = Waiting { passwords: self, tag: &tag, one: self.checked.lock().entry(tag.clone()).or_default().clone() };
        let _one = waiting.one.lock().await;
        if self.is_known(&tag) {
            return Ok(Some(user));
        }
        let right = if is_cheap(&hash) {
            verify(&password, &hash)
        } else {
            let turn = CHECKS.take(&self.namespace).await?;
            let checking = move || {
                // It lasts as long as the check, also when the request goes.
                let _turn = turn;
                verify(&password, &hash)
            };
            tokio::task::spawn_blocking(checking).await.unwrap_or(false)
        };
        if right {
            let mut remembered = self.right.lock();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(tag.clone(), Instant::now());
        }
        Ok(right.then_some(user))
    }

    /// Whether credentials were right a while ago.
    fn is_known(&self, tag: &[u8]) -> bool {
        self.right.lock().get(tag).is_some_and(|since| since.elapsed() < HOLDS)
    }
}

/// User and password of the header (RFC 7617).
fn credentials(shown: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = std::str::from_utf8(shown).ok()?.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn is_cheap(hash: &str) -> bool {
    hash.starts_with('{')
}

/// Whether a password has this hash, in one of the forms that `htpasswd` writes.
fn verify(password: &str, hash: &str) -> bool {
    let sha1 = |bytes: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    if let Some(plain) = hash.strip_prefix("{PLAIN}") {
        return same(password.as_bytes(), plain.as_bytes());
    }
    if let Some(encoded) = hash.strip_prefix("{SHA}") {
        return STANDARD.decode(encoded).is_ok_and(|hash| same(&hash, sha1(password.as_bytes()).as_ref()));
    }
    if let Some(encoded) = hash.strip_prefix("{SSHA}") {
        let salted = |hash: Vec<u8>| {
            let (hash, salt) = hash.split_at_checked(20)?;
            Some(same(hash, sha1(&[password.as_bytes(), salt].concat()).as_ref()))
        };
        return STANDARD.decode(encoded).ok().and_then(salted).unwrap_or(false);
    }
    for magic in ["$apr1$", "$1$"] {
        if let Some((salt, _)) = hash.strip_prefix(magic).and_then(|rest| rest.split_once('$')) {
            return same(md5_crypt(password.as_bytes(), salt.as_bytes(), magic).as_bytes(), hash.as_bytes());
        }
    }
    is_affordable(hash) && bcrypt::verify(password, hash).unwrap_or(false)
}

/// Whether a hash of bcrypt may be checked: its cost is chosen by who has the Secret, and doubles the time with each step.
fn is_affordable(hash: &str) -> bool {
    let parts = hash.strip_prefix("$2").and_then(|rest| rest.split_once('$'));
    let cost = parts.and_then(|(_, rest)| rest.split_once('$')).and_then(|(cost, _)| cost.parse::<u32>().ok());
    cost.is_some_and(|cost| cost <= MOST_COST)
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// The MD5-based crypt of FreeBSD, and Apache's with another magic word.
fn md5_crypt(password: &[u8], salt: &[u8], magic: &str) -> String {
    let salt = &salt[..salt.len().min(8)];
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut context = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for chunk in password.chunks(16) {
        context.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits != 0 {
        context.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut hash = context.finalize();
    for round in 0..1000 {
        let mut context = Md5::new();
        context.update(if round & 1 == 1 { password } else { &hash[..] });
        if round % 3 != 0 {
            context.update(salt);
        }
        if round % 7 != 0 {
            context.update(password);
        }
        context.update(if round & 1 == 1 { &hash[..] } else { password });
        hash = context.finalize();
    }
    let mut text = format!("{magic}{}$", String::from_utf8_lossy(salt));
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        letters(&mut text, u32::from(hash[a]) << 16 | u32::from(hash[b]) << 8 | u32::from(hash[c]), 4);
    }
    letters(&mut text, u32::from(hash[11]), 2);
    text
}

fn letters(text: &mut String, mut value: u32, count: usize) {
    const LETTERS: &[u8] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..count {
        text.push(char::from(LETTERS[(value & 63) as usize]));
        value >>= 6;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// Hashes made by `openssl passwd` and `htpasswd`.
    #[test]
    fn hashes() {
        let check = |hash: &str| {
            assert!(verify("s3cret", hash), "{hash}");
            assert!(!verify("s3cret ", hash) && !verify("", hash), "{hash}");
        };
        check("{PLAIN}s3cret");
        check(APR1);
        check(MD5);
        check(SHA);
        check(BCRYPT);
        assert!(!verify("x", "x") && !verify("", "") && !verify("x", "$apr1$") && !verify("x", "$2y$"));
    }

    /// Each step of the cost doubles the time: one of 31 is days.
    #[test]
    fn what_costs_too_much_is_not_checked() {
        let check = |cost: &str, expected: bool| assert_eq!(is_affordable(&BCRYPT.replace("$04$", cost)), expected, "{cost}");
        check("$04$", true);
        check("$14$", true);
        check("$15$", false);
        check("$31$", false);
        check("$-1$", false);
        check("$$", false);
    }

    const APR1: &str = "$apr1$abcdefgh$M2T3erDstkD7SsE2QQnfH0";
    const MD5: &str = "$1$xyz$LR4giuEdCJh9gZXQkz20T/";
    const SHA: &str = "{SHA}/vNB+F2HQ559kaLUZbmHHvZrXpg=";
    const BCRYPT: &str = "$2b$04$NgQ486A3NZja9CqMjorrqODRkIrlqYImsNmAqDxaourIZZzWSyklS";

    /// More at once than may wait for a turn: one of them is checked, for all.
    #[tokio::test]
    async fn many_with_one_password() {
        let secret = serde_json::from_value(json!({"data": {"auth": STANDARD.encode(format!("jane:{BCRYPT}"))}})).unwrap();
        let passwords = Passwords::of(&secret, false).unwrap();
        let header = |password: &str| format!("Basic {}", STANDARD.encode(format!("jane:{password}"))).parse().unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, header("s3cret"))]);
        let found = futures::future::join_all((0..200).map(|_| passwords.user(&headers))).await;
        assert!(found.into_iter().all(|found| found.unwrap().as_deref() == Some("jane")));
        // Who goes while he waits, here for the turn of somebody else, leaves nothing behind.
        let _turn = CHECKS.take("somebody").await.unwrap();
        let wrong = HeaderMap::from_iter([(AUTHORIZATION, header("other"))]);
        let mut gone: Vec<_> = (0..3).map(|_| Box::pin(passwords.user(&wrong))).collect();
        for one in &mut gone {
            assert!(futures::FutureExt::now_or_never(one).is_none());
        }
        drop(gone);
        assert!(passwords.checked.lock().is_empty());
    }

    #[tokio::test]
    async fn users() {
        let file = format!("# people\njane:{BCRYPT}\njoe:{SHA}\n\nbroken");
        let secret = |data: serde_json::Value| serde_json::from_value::<Secret>(json!({"data": data})).unwrap();
        let encoded = |text: &str| STANDARD.encode(text);
        let file = Passwords::of(&secret(json!({"auth": encoded(&file)})), false).unwrap();
        let map = Passwords::of(&secret(json!({"jane": encoded(SHA)})), true).unwrap();
        let check = async |passwords: &Passwords, header: &str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
            assert_eq!(passwords.user(&headers).await.unwrap().as_deref(), expected, "{header}");
        };
        for _ in 0..2 {
            check(&file, &format!("Basic {}", encoded("jane:s3cret")), Some("jane")).await;
            check(&file, &format!("Basic {}", encoded("jane:other")), None).await;
        }
        check(&file, &format!("basic {}", encoded("joe:s3cret")), Some("joe")).await;
        check(&file, &format!("Basic {}", encoded("nobody:s3cret")), None).await;
        check(&file, &format!("Bearer {}", encoded("jane:s3cret")), None).await;
        check(&file, "Basic !", None).await;
        check(&map, &format!("Basic {}", encoded("jane:s3cret")), Some("jane")).await;
        assert!(Passwords::of(&secret(json!({"other": ""})), false).is_none());
    }
}
