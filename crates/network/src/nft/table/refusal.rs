//! Telling what the kernel refuses from what it takes.

use std::collections::{BTreeMap, VecDeque};

use super::{Error, Inner, Table, features, try_out};
use crate::netlink;
use crate::nft::claims::World;
use crate::nft::contents::{Change, Contents};

/// Changes that the kernel refuses.
#[derive(Debug)]
pub struct Refusal {
    /// The table's name.
    pub table: String,
    /// The kernel's answer.
    pub source: netlink::Error,
    /// The changes, all of them.
    pub changes: Vec<Change>,
    /// The owners of those that the kernel refuses whatever else there is, with its answers; where there are none of these, it refuses the changes together, or with what
    /// there is. None: nobody is to blame, and the same may be taken another time.
    pub culprits: Option<BTreeMap<String, netlink::Error>>,
}

/// The changes that were not taken.
pub type Settled = Result<Vec<(Change, netlink::Error)>, Box<Refusal>>;

/// What is done about an error that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// All is given back, to be tried again.
    Left,
    /// It has not passed, so that it may be about what was asked for, as where a batch is too large: it is taken for a refusal.
    Spent,
}

impl Patience {
    fn waits_for(self, error: &netlink::Error) -> bool {
        self == Self::Left && error.is_passing()
    }
}

impl Table {
    /// Replaces what each owner contributes, of all whose changes the kernel takes. Returns the others, of which what each had contributed stays in force: those that it
    /// refuses whatever else there is, and those that it refuses with what is there then. An error is a passing one for which there is patience, or the kernel does not take what it had; all changes that are not in force are given back
    /// with it, to be tried again.
    pub fn replace_what_can(&self, changes: Vec<Change>, patience: Patience) -> Settled {
        let result = take_what_can(changes, |part| self.0.lock().replace(part, patience));
        self.forget_stale();
        result
    }

    /// [`Self::replace_what_can`], for tasks that wait for nothing themselves. None when the process ends.
    pub async fn settle(&self, changes: Vec<Change>, patience: Patience) -> Option<Settled> {
        let table = self.clone();
        tokio::task::spawn_blocking(move || table.replace_what_can(changes, patience)).await.ok()
    }
}

/// Gives changes to `replace`, which takes all of them or none, in ever smaller parts.
fn take_what_can(
    changes: Vec<Change>,
    mut replace: impl FnMut(Vec<Change>) -> Result<(), Box<Refusal>>,
) -> Result<Vec<(Change, netlink::Error)>, Box<Refusal>> {
    let (mut refused, mut pending) = (Vec::new(), changes);
    // What refers to a change that comes later is refused until that is taken: round after round, as long as one takes something.
    loop {
        let (mut later, mut has_taken) = (Vec::new(), false);
        let mut parts = VecDeque::from([pending]);
        while let Some(part) = parts.pop_front() {
            if part.is_empty() {
                continue;
            }
            let Err(mut refusal) = replace(part) else {
                has_taken = true;
                continue;
            };
            let Some(mut culprits) = refusal.culprits.take() else {
                let left = parts.into_iter().flatten();
                let others = refused.into_iter().chain(later).map(|(change, _)| change);
                refusal.changes.extend(left.chain(others));
                return Err(refusal);
            };
            let Refusal { source, changes, .. } = *refusal;
            let mut rest = Vec::with_capacity(changes.len());
            let blames = !culprits.is_empty();
            for change in changes {
                match culprits.remove(&change.0) {
                    Some(error) => refused.push((change, error)),
                    None => rest.push(change),
                }
            }
            if blames {
                parts.push_front(rest);
            } else if rest.len() > 1 {
                parts.push_front(rest.split_off(rest.len() / 2));
                parts.push_front(rest);
            } else {
                later.extend(rest.pop().map(|change| (change, source)));
            }
        }
        if later.is_empty() || !has_taken {
            refused.extend(later);
            return Ok(refused);
        }
        pending = later.into_iter().map(|(change, _)| change).collect();
    }
}

/// The owners, of these, whose changes are refused by themselves, with the answers. `try_alone` says whether the kernel takes changes where nothing else is. A passing error
/// blames nobody while there is patience.
fn culprits(
    changes: &[Change],
    patience: Patience,
    mut try_alone: impl FnMut(&[Change]) -> Result<(), netlink::Error>,
) -> Result<BTreeMap<String, netlink::Error>, netlink::Error> {
    let mut found = BTreeMap::new();
    let mut left = vec![changes];
    while let Some(changes) = left.pop() {
        let Err(error) = try_alone(changes) else { continue };
        match changes {
            _ if patience.waits_for(&error) => return Err(error),
            [(owner, _)] => drop(found.insert(owner.clone(), error)),
            many => left.extend(<[&[Change]; 2]>::from(many.split_at(many.len() / 2))),
        }
    }
    Ok(found)
}

impl Inner {
    pub(super) fn replace(&mut self, changes: Vec<Change>, patience: Patience) -> Result<(), Box<Refusal>> {
        let owners: Vec<String> = changes.iter().map(|(owner, _)| owner.clone()).collect();
        let (before, taken) = self.take(changes, &owners);
        let Err(source) = taken else { return Ok(()) };
        let changes = self.fragments(&owners);
        let world = self.world();
        self.contents.replace(before, &world);
        self.decided.notify_one();
        let culprits = self.blame(&changes, &source, patience);
        Err(Box::new(Refusal { table: self.name.clone(), source, changes, culprits }))
    }

    fn blame(
        &mut self,
        changes: &[Change],
        source: &netlink::Error,
        patience: Patience,
    ) -> Option<BTreeMap<String, netlink::Error>> {
        // Who is to blame is known only if the kernel takes what it has taken before.
        if let Err(error) = self.flush().and_then(|()| self.probe_own()) {
            tracing::error!(%error, "the kernel does not take the table that it had");
            return None;
        }
        if patience.waits_for(source) {
            return None;
        }
        let found = culprits(changes, patience, |changes| self.try_alone(changes));
        found.inspect_err(|error| tracing::error!(%error, "who is to blame for a refusal cannot be found out")).ok()
    }

    /// Whether the kernel takes the changes where nothing else is.
    pub(super) fn try_alone(&mut self, changes: &[Change]) -> Result<(), netlink::Error> {
        let mut contents = Contents::default();
        let alone = changes.iter().map(|(owner, fragment)| (owner.clone(), fragment.clone().alone()));
        let mut deltas = contents.replace(alone, &World::default());
        for family in self.families.clone() {
            let ops = deltas.remove(&family).unwrap_or_default().ops();
            if !ops.is_empty() {
                try_out(&mut self.socket, &self.name, family, ops)?;
            }
        }
        Ok(())
    }

    /// Whether the kernel takes tables at all.
    fn probe_own(&mut self) -> Result<(), Error> {
        let features = ("features".to_owned(), features::fixed(&self.config, &self.families));
        self.try_alone(&[features]).map_err(|source| Error::Batch { table: self.name.clone(), source })
    }
}

#[cfg(test)]
mod tests;
