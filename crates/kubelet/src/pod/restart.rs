//! All containers of a pod restart in place, since one of them ended as a rule with the action `RestartAllContainers` says (KEP-5532). Pure.
//!
//! First what runs is stopped, without preStop hooks and without the pod's grace period. Then it is written down which containers are of the
//! last round, so that a kubelet that starts meanwhile does not take their ends for ends of the new round. Then the pod starts as a
//! new one does, init containers first, in the sandbox and with the volumes that it has. Ephemeral containers run on.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::action::{Action, Plan, Stage};
use super::state::{Slot, State, Step};
use crate::spec::{Member, Model, Role};

/// The rule's action.
const ALL: &str = "RestartAllContainers";

fn takes_part(member: &&Member) -> bool {
    member.role != Role::Ephemeral
}

/// Whether a rule of the pod may restart all containers.
pub fn is_possible(model: &Model) -> bool {
    let mut rules = model.members.iter().flat_map(|member| member.spec.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == ALL)
}

/// The container whose end restarts all, if one has ended so and the restart is not through.
pub fn source<'a>(model: &'a Model, state: &'a State) -> Option<(&'a Member, &'a Slot)> {
    model.members.iter().filter(takes_part).find_map(|member| {
        let slot = state.slots.get(&member.spec.name)?;
        let code = slot.exited()?.exit_code?;
        member.rule(code).filter(|rule| rule.action == ALL).map(|_| (member, slot))
    })
}

/// Stops what runs; then, when the back-off of the container that wants it is over, begins a new round.
pub fn plan(plan: &mut Plan, model: &Model, state: &State, (member, source): (&Member, &Slot), now: Timestamp) {
    let (source_name, mut ends) = (member.spec.name.clone(), true);
    for member in model.members.iter().filter(takes_part) {
        let name = &member.spec.name;
        let Some(slot) = state.slots.get(name).filter(|slot| slot.running() || slot.starting) else { continue };
        ends = false;
        if !slot.running() || slot.stopping.is_some() {
            continue;
        }
        match slot.stop_retry.filter(|retry| *retry > now) {
            Some(retry) => plan.wake_at(retry),
            None => {
                let message = format!("Stopping container {name}: all containers of the pod restart");
                // Hooks are not run, since they are for pods that end.
                plan.actions.push(Action::Stop { name: name.clone(), grace: Duration::ZERO, message, stage: Stage::Hooked });
            }
        }
    }
    if !ends {
        return;
    }
    // A restart that could not be written down has begun already.
    match source.crash_backoff(now).filter(|_| state.restart == Step::Idle) {
        Some((until, _)) => plan.wake_at(until),
        None => plan.when_due(&state.restart, now, Action::RestartAll { source: source_name, round: round(model, state) }),
    }
}

/// The number of the next container of each name.
fn round(model: &Model, state: &State) -> BTreeMap<String, u32> {
    let slots = model.members.iter().filter(takes_part).filter_map(|member| state.slots.get_key_value(&member.spec.name));
    slots.map(|(name, slot)| (name.clone(), slot.attempt)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::outcome::Outcome;
    use crate::pod::plan::{advance, begin};
    use crate::pod::testing::{at, container, ended, model, sandbox};
    use runtime::api::ContainerState::Running;
    use runtime::api::{Container, Image, SandboxState};
    use serde_json::json;

    fn pod() -> Model {
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [7]}},
            {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [7, 42]}}]);
        model(json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "img"}],
            "containers": [{"name": "a", "image": "img"}, {"name": "w", "image": "img", "restartPolicy": "Never", "restartPolicyRules": rules}],
            "ephemeralContainers": [{"name": "e", "image": "img"}]}))
    }

    fn state(model: &Model, containers: Vec<Container>) -> State {
        let mut state = State { sandbox: Step::Done(sandbox()), volumes: Step::Done(()), ..Default::default() };
        for container in containers {
            state.slot(&container.name.clone()).observe(container);
        }
        for member in model.members.iter() {
            state.slot(&member.spec.name).image = Step::Done(Image::default());
            state.slot(&member.spec.name).hook = Step::Done(());
        }
        state
    }

    /// The actions at `second`, in words, begun.
    fn step(model: &Model, state: &mut State, second: i64) -> Vec<String> {
        advance(model, state, false, at(second));
        let actions = crate::pod::plan::plan(model, state, at(second)).actions;
        begin(state, &actions, at(second));
        actions.iter().map(|action| format!("{action:?}").split(", message").next().unwrap().to_owned()).collect()
    }

    fn all(code: i32) -> Vec<Container> {
        vec![
            ended("i0", "i", 0, 0),
            container("a0", "a", 0, Running),
            ended("w0", "w", 0, code),
            container("e0", "e", 0, Running),
        ]
    }

    /// KEP-5532: "Kill all running containers. No ordering during the kill. Termination grace periods are not respected", "Init containers
    /// are started in order", "All regular containers will be restarted", ephemeral ones "will not be restarted".
    #[test]
    fn all_stop_and_begin_anew_with_the_init_containers() {
        let model = pod();
        let mut state = state(&model, all(42));
        assert_eq!(step(&model, &mut state, 100), ["Stop { name: \"a\", grace: 0ns"]);
        assert!(step(&model, &mut state, 101).is_empty() && state.ending.is_none());
        state.slot("a").observe(ended("a0", "a", 0, 137));
        assert_eq!(step(&model, &mut state, 102), ["RestartAll { source: \"w\", round: {\"a\": 1, \"i\": 1, \"w\": 1} }"]);
        assert!(step(&model, &mut state, 103).is_empty());
        let round: BTreeMap<String, u32> = ["a", "i", "w"].map(|name| (name.to_owned(), 1)).into();
        state.apply(Outcome::AllRestart(round, Ok(())), at(104));
        assert!(source(&model, &state).is_none());
        assert_eq!(step(&model, &mut state, 105), ["EnsureImage(\"i\")"]);
        assert!(state.slots["e"].running());
        // The runtime tells of what has ended for as long as it is there.
        state.apply(Outcome::Observed(vec![ended("w0", "w", 0, 42), ended("i0", "i", 0, 0)], Some(SandboxState::Ready)), at(106));
        assert!(source(&model, &state).is_none() && state.slots["i"].current.is_none());
    }

    /// KEP-5307: "The rules will be evaluated in order. On the first match, the action will be applied."
    #[test]
    fn other_ends_restart_nobody_else() {
        let model = pod();
        for code in [0, 1, 7] {
            assert!(source(&model, &state(&model, all(code))).is_none(), "{code}");
        }
        assert!(is_possible(&model));
        assert!(!is_possible(&super::super::testing::model(json!({"containers": [{"name": "a"}]}))));
    }

    /// KEP-5532: "This same backoff mechanism will be applied to pod restarts triggered by this feature."
    #[test]
    fn the_second_restart_waits() {
        let model = pod();
        let mut state = state(&model, vec![ended("i0", "i", 0, 0), ended("a0", "a", 0, 0), ended("w0", "w", 0, 42)]);
        assert!(step(&model, &mut state, 3)[0].starts_with("RestartAll"));
        let round = round(&model, &state);
        state.apply(Outcome::AllRestart(round, Ok(())), at(4));
        for (name, code) in [("i", 0), ("a", 0), ("w", 42)] {
            state.slot(name).observe(ended("again", name, 1, code));
        }
        assert!(step(&model, &mut state, 5).is_empty(), "the end was at second 3");
        assert!(step(&model, &mut state, 13)[0].starts_with("RestartAll"));
    }

    #[test]
    fn what_cannot_be_written_down_is_tried_again() {
        let model = pod();
        let mut state = state(&model, vec![ended("w0", "w", 0, 42)]);
        assert!(step(&model, &mut state, 3)[0].starts_with("RestartAll"));
        state.apply(Outcome::AllRestart(BTreeMap::new(), Err("no space".to_owned())), at(4));
        assert!(step(&model, &mut state, 4).is_empty());
        assert!(step(&model, &mut state, 6)[0].starts_with("RestartAll"));
    }
}
