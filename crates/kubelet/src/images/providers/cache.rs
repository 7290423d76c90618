//! Credentials that plugins have given, for as long as they said. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use runtime::api::Credentials;
use tokio::time::Instant;

/// Most answers that are kept of one plugin; beyond them the one that ends first is asked for again.
const MOST: usize = 1000;

/// Credentials by registry and beginning of a path.
pub(super) type Auths = BTreeMap<String, Credentials>;

/// What an answer is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// Images of this name.
    Image(String),
    /// Images of this registry.
    Registry(String),
    /// All images of the plugin.
    Global,
}

/// Whose an answer is, of plugins that are shown tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    /// Namespace of the service account.
    pub(super) namespace: String,
    /// Name of the service account.
    pub(super) name: String,
    /// UID of the service account.
    pub(super) uid: String,
    /// What the plugin was shown of its annotations.
    pub(super) annotations: BTreeMap<String, String>,
    /// Digest of the token, where credentials are for it alone.
    pub(super) token: Option<String>,
}

struct Answer {
    auths: Arc<Auths>,
    ends: Instant,
}

/// The answers of one plugin.
#[derive(Default)]
pub(super) struct Cache(HashMap<(Scope, Option<Owner>), Answer>);

impl Cache {
    /// What is known for an image: that for itself before that for its registry, and that before what is good for all.
    pub(super) fn get(&self, repository: &str, owner: Option<&Owner>, now: Instant) -> Option<Arc<Auths>> {
        let scopes = [Scope::Image(repository.to_owned()), Scope::Registry(registry(repository)), Scope::Global];
        let mut answers = scopes.into_iter().filter_map(|scope| self.0.get(&(scope, owner.cloned())));
        answers.find(|answer| answer.ends > now).map(|answer| answer.auths.clone())
    }

    /// Keeps an answer until `ends`.
    pub(super) fn insert(&mut self, scope: Scope, owner: Option<Owner>, auths: Arc<Auths>, ends: Instant, now: Instant) {
        self.0.retain(|_, answer| answer.ends > now);
        if self.0.len() >= MOST {
            let first = self.0.iter().min_by_key(|(_, answer)| answer.ends).map(|(key, _)| key.clone());
            first.map(|key| self.0.remove(&key));
        }
        self.0.insert((scope, owner), Answer { auths, ends });
    }
}

/// The registry of an image's name.
pub(super) fn registry(repository: &str) -> String {
    repository.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn auths(name: &str) -> Arc<Auths> {
        Arc::new(Auths::from([(name.to_owned(), Credentials::default())]))
    }

    #[track_caller]
    fn check(cache: &Cache, (repository, owner): (&str, Option<&Owner>), at: Instant, expected: Option<&str>) {
        let found = cache.get(repository, owner, at);
        assert_eq!(found.as_ref().and_then(|auths| auths.keys().next()).map(String::as_str), expected, "{repository}");
    }

    /// The API reference of `CredentialProviderResponse.cacheKeyType`: Image, Registry and Global.
    #[test]
    fn scopes() {
        let (now, mut cache) = (Instant::now(), Cache::default());
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut insert = |scope, name: &str, seconds| cache.insert(scope, None, auths(name), later(seconds), now);
        insert(Scope::Image("r.io/a".into()), "image", 10);
        insert(Scope::Registry("r.io".into()), "registry", 20);
        insert(Scope::Global, "global", 30);
        check(&cache, ("r.io/a", None), now, Some("image"));
        check(&cache, ("r.io/b", None), now, Some("registry"));
        check(&cache, ("r.io:5000/b", None), now, Some("global"));
        check(&cache, ("r.io/a", None), later(10), Some("registry"));
        check(&cache, ("r.io/a", None), later(29), Some("global"));
        check(&cache, ("r.io/a", None), later(30), None);
        check(&cache, ("r.io/a", Some(&Owner::default())), now, None);
    }

    /// KEP-4412: credentials that were had with a token are kept for the service account, its uid and annotations, or for the token.
    #[test]
    fn owners() {
        let (now, mut cache) = (Instant::now(), Cache::default());
        let of = |uid: &str, token: Option<&str>| Owner {
            namespace: "n".into(),
            name: "crew".into(),
            uid: uid.into(),
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            token: token.map(str::to_owned),
        };
        cache.insert(Scope::Global, Some(of("1", None)), auths("x"), now + Duration::from_secs(1), now);
        check(&cache, ("r.io/a", Some(&of("1", None))), now, Some("x"));
        let mut changed = of("1", None);
        changed.annotations.insert("a".into(), "c".into());
        for other in [of("2", None), of("1", Some("t")), changed] {
            check(&cache, ("r.io/a", Some(&other)), now, None);
        }
        check(&cache, ("r.io/a", None), now, None);
    }

    #[test]
    fn answers_are_bounded() {
        let (now, mut cache) = (Instant::now(), Cache::default());
        let later = |number: usize| now + Duration::from_secs(1 + number as u64);
        for number in 0..MOST + 10 {
            cache.insert(Scope::Image(format!("r.io/{number}")), None, auths("x"), later(number), now);
        }
        assert_eq!(cache.0.len(), MOST);
        check(&cache, ("r.io/9", None), now, None);
        check(&cache, ("r.io/10", None), now, Some("x"));
        cache.insert(Scope::Global, None, auths("x"), later(MOST + 20), later(MOST + 10));
        assert_eq!(cache.0.len(), 1);
    }
}
