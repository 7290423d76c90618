//! What has happened to containers. The engine says of which pods something has changed, and nothing twice for who is slow; what it was
//! follows from what was seen of the pod before.

use std::collections::{BTreeMap, VecDeque};

use futures::StreamExt;
use futures::stream::BoxStream;
use grpc::Error;
use grpc::server::Messages;
use jiff::Timestamp;
use prost::Message;
use runtime::api::{Container, ContainerState, RuntimeEvent, Sandbox};

use super::{Server, errors, view};
use crate::messages::{ContainerEventResponse, ContainerEventType};

/// Containers as they were seen last: whose they are, and their state.
type Seen = BTreeMap<String, (String, ContainerState)>;

/// One who follows.
struct Follower {
    server: Server,
    changes: BoxStream<'static, RuntimeEvent>,
    seen: Option<Seen>,
    ready: VecDeque<ContainerEventResponse>,
}

/// Events from now on.
pub(super) fn follow(server: Server) -> Messages {
    // Subscribed before the first look, so that nothing is missed between them.
    let changes = server.runtime.events();
    let follower = Follower { server, changes, seen: None, ready: VecDeque::new() };
    futures::stream::unfold(follower, |mut follower| async move {
        let next = follower.next().await.transpose()?;
        Some((next.map(|event| event.encode_to_vec()), follower))
    })
    .boxed()
}

impl Follower {
    async fn next(&mut self) -> Result<Option<ContainerEventResponse>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.seen.is_none() {
                let (sandboxes, containers) = look(&self.server).await?;
                self.seen = Some(seen(&sandboxes, &containers));
            }
            let Some(RuntimeEvent { pod_uid }) = self.changes.next().await else { return Ok(None) };
            let (sandboxes, containers) = look(&self.server).await?;
            let now = seen(&sandboxes, &containers);
            let happened = changes(self.seen.get_or_insert_default(), &now, &pod_uid);
            let sandbox = sandboxes.iter().filter(|sandbox| sandbox.pod.uid == pod_uid).max_by_key(|sandbox| sandbox.attempt);
            let inside = containers.iter().filter(|one| sandbox.is_some_and(|sandbox| sandbox.id == one.sandbox));
            let statuses: Vec<_> = inside.map(|one| view::container_status(one, sandbox.map(|sandbox| &sandbox.pod))).collect();
            self.ready.extend(happened.into_iter().map(|(container_id, kind)| ContainerEventResponse {
                container_id,
                container_event_type: kind.into(),
                created_at: view::nanoseconds(Timestamp::now()),
                pod_sandbox_status: sandbox.map(view::sandbox_status),
                containers_statuses: statuses.clone(),
            }));
        }
    }
}

async fn look(server: &Server) -> Result<(Vec<Sandbox>, Vec<Container>), Error> {
    tokio::try_join!(server.runtime.sandboxes(), server.runtime.containers(None)).map_err(errors::of)
}

fn seen(sandboxes: &[Sandbox], containers: &[Container]) -> Seen {
    let pods: BTreeMap<&str, &str> = sandboxes.iter().map(|one| (one.id.as_str(), one.pod.uid.as_str())).collect();
    let of = |container: &Container| {
        let pod = pods.get(container.sandbox.as_str())?;
        Some((container.id.clone(), ((*pod).to_owned(), container.state)))
    };
    containers.iter().filter_map(of).collect()
}

/// What has happened to containers of a pod, which are then seen as they are now.
fn changes(before: &mut Seen, now: &Seen, pod: &str) -> Vec<(String, ContainerEventType)> {
    use ContainerEventType::{Created, Deleted, Started, Stopped};
    let of_pod = |seen: &Seen| -> Seen {
        seen.iter().filter(|(_, (uid, _))| uid == pod).map(|(id, it)| (id.clone(), it.clone())).collect()
    };
    let (was, is) = (of_pod(before), of_pod(now));
    let mut happened = Vec::new();
    for (id, (_, state)) in &is {
        let steps: &[ContainerEventType] = match (was.get(id).map(|(_, state)| *state), *state) {
            (None, ContainerState::Created) => &[Created],
            (None, ContainerState::Running) => &[Created, Started],
            (None, ContainerState::Exited) => &[Created, Started, Stopped],
            (Some(ContainerState::Created), ContainerState::Running) => &[Started],
            (Some(ContainerState::Created), ContainerState::Exited) => &[Started, Stopped],
            (Some(ContainerState::Running), ContainerState::Exited) => &[Stopped],
            _ => &[],
        };
        happened.extend(steps.iter().map(|step| (id.clone(), *step)));
    }
    for (id, (_, state)) in was.iter().filter(|(id, _)| !is.contains_key(*id)) {
        let steps: &[ContainerEventType] = if *state == ContainerState::Running { &[Stopped, Deleted] } else { &[Deleted] };
        happened.extend(steps.iter().map(|step| (id.clone(), *step)));
    }
    before.retain(|id, _| !was.contains_key(id));
    before.extend(is);
    happened
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContainerEventType::{Created, Deleted, Started, Stopped};
    use ContainerState::{Exited, Running};

    #[test]
    fn what_has_happened_follows_from_two_looks() {
        let check = |before: Option<ContainerState>, now: Option<ContainerState>, expected: &[ContainerEventType]| {
            let of = |pod: &str, state: Option<ContainerState>| {
                let other = ("other".to_owned(), ("p2".to_owned(), if state.is_some() { Running } else { Exited }));
                let own = state.map(|state| ("c".to_owned(), (pod.to_owned(), state)));
                own.into_iter().chain([other]).collect::<Seen>()
            };
            let mut seen = of("p1", before);
            let happened = changes(&mut seen, &of("p1", now), "p1");
            assert_eq!(happened.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), expected, "{before:?} {now:?}");
            assert_eq!(seen.get("c").map(|(_, state)| *state), now);
            assert!(seen.contains_key("other"));
            assert!(changes(&mut seen, &of("p1", now), "p1").is_empty(), "nothing is told twice");
        };
        let created = ContainerState::Created;
        check(None, Some(created), &[Created]);
        check(None, Some(Exited), &[Created, Started, Stopped]);
        check(Some(created), Some(Running), &[Started]);
        check(Some(Running), Some(Exited), &[Stopped]);
        check(Some(Exited), None, &[Deleted]);
        check(Some(Running), None, &[Stopped, Deleted]);
        check(Some(Running), Some(Running), &[]);
    }
}
