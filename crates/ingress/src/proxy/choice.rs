//! Which back end a request goes to, and how its endpoint is chosen: canaries, sessions, hashes.

use std::sync::Arc;

use crate::balance::{Choice, Member, hash};
use crate::canary;
use crate::forward::Answered;
use crate::gateway::actions::BackendChanges;
use crate::policy::Policy;
use crate::session::Session;
use crate::table::Route;
use crate::template::Facts;
use crate::upstream::Upstream;

/// What was chosen.
pub(super) struct Chosen {
    pub(super) upstream: Arc<Upstream>,
    pub(super) choice: Choice,
    /// What the back end of a route changes.
    pub(super) changes: Option<Arc<BackendChanges>>,
    policy: Arc<Policy>,
    /// The session that the client has, and that this back end knows.
    session: Option<Session>,
    /// The number that a new session gets.
    random: u64,
}

impl Chosen {
    /// Chooses for a request; `random` is a number of its own. None when a rule has nobody who could answer.
    pub(super) fn of(route: &Route, facts: &Facts<'_>, random: u64) -> Option<Self> {
        let policy = &route.policy;
        let cookie = policy.affinity.then(|| Session::of(&policy.cookie, facts.headers)).flatten();
        let (upstream, changes) = match &route.gateway {
            Some(gateway) => {
                let backend = gateway.backend(cookie, random)?;
                (backend.to.clone()?, Some(backend.changes.clone()))
            }
            None => (upstream(route, facts, cookie, random), None),
        };
        let session = cookie.filter(|session| session.upstream == upstream.id);
        let choice = if policy.affinity {
            match session {
                Some(session) if policy.cookie.persistent => Choice::Pinned(session.value),
                Some(session) => Choice::Hash(session.value),
                None if policy.cookie.persistent => Choice::Any(policy.balance),
                None => Choice::Hash(random),
            }
        } else if let Some(template) = &policy.hash_by {
            Choice::Hash(hash(&template.render(facts)))
        } else {
            Choice::Any(policy.balance)
        };
        Some(Self { upstream, choice, changes, policy: policy.clone(), session, random })
    }

    /// The session that the client has to remember after this answer; none when it knows it already, or there is none.
    pub(super) fn cookie(&self, answered: &Answered) -> Option<Session> {
        if !self.policy.affinity {
            return None;
        }
        let (used, cookie) = (answered.lease.endpoint().id(), &self.policy.cookie);
        let value = match self.session {
            None if cookie.persistent => used,
            None => self.random,
            Some(session) if cookie.persistent => {
                let gone = !self.upstream.has(session.value);
                let moves = used != session.value && (gone || cookie.change_on_failure);
                Some(used).filter(|_| moves)?
            }
            Some(_) => {
                let moves = !answered.first && cookie.change_on_failure;
                // A number that leads to the endpoint that answered; among a thousand there is one.
                let leads = |value: &u64| self.upstream.choose(Choice::Hash(*value), &[]).is_some_and(|one| one.id() == used);
                Some(1024).filter(|_| moves).and_then(|most| (0..most).map(|_| crate::random::next()).find(leads))?
            }
        };
        Some(Session { value, upstream: self.upstream.id })
    }
}

/// The back end: a session stays where it is, all others go where the canary's rules say.
fn upstream(route: &Route, facts: &Facts<'_>, cookie: Option<Session>, random: u64) -> Arc<Upstream> {
    let Some((policy, canary)) = &route.canary else { return route.upstream.clone() };
    if let Some(session) = cookie.filter(|_| !policy.cookie.legacy_canary) {
        for known in [canary, &route.upstream] {
            if known.id == session.upstream && !known.is_empty() {
                return known.clone();
            }
        }
    }
    let takes = canary::takes(&policy.canary, facts.headers, random) && !canary.is_empty();
    if takes { canary.clone() } else { route.upstream.clone() }
}
