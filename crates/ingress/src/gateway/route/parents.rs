//! What a route gets of what it wants from a Gateway, and what its status says of it.

use serde_json::{Value, json};

use super::{Parent, Planner};
use crate::gateway::kinds::Rejected;
use crate::gateway::placed::Served;
use crate::gateway::precedence::{Claims, Lost, isolated};
use crate::gateway::rules::{Matched, Unsupported};
use crate::gateway::status::{condition, generation};
use crate::gateway::types::GROUP;
use crate::gateway::{Backend, CONTROLLER, Door, Plan, Planned};
use crate::upstream::UpstreamKey;

impl Planner<'_> {
    /// Attaches the route to a parent. The listeners that take it, and the parent's status.
    pub(in crate::gateway) fn parent(
        &self,
        parent: &Parent<'_>,
        rules: &Result<Vec<Planned>, Unsupported>,
        first: (&Rejected<'_>, &Claims),
        plan: &mut Plan,
    ) -> (Vec<usize>, Value) {
        let seen = generation(&self.route.metadata);
        let mut places = Vec::new();
        let accepted = match (&parent.attached, rules) {
            (Err(refusal), _) => {
                let (reason, message) = refusal.reason();
                condition("Accepted", Err(()), reason, message, seen)
            }
            (_, Err(unsupported)) => condition("Accepted", Err(()), "UnsupportedValue", &unsupported.to_string(), seen),
            (Ok(attached), Ok(rules)) => {
                let mut outcome = Outcome::default();
                for (place, hosts) in attached {
                    if self.serve(parent, (*place, hosts), (rules, first), plan, &mut outcome) {
                        places.push(*place);
                    }
                }
                let holds = if outcome.lost.is_empty() || outcome.has_any { Ok(()) } else { Err(()) };
                let reason = if holds.is_ok() { "Accepted" } else { outcome.reason };
                let mut lost: Vec<_> = outcome.lost.iter().map(Lost::to_string).collect();
                lost.dedup();
                condition("Accepted", holds, reason, &lost.join("; "), seen)
            }
        };
        let resolved = match self.unresolved() {
            None => condition("ResolvedRefs", Ok(()), "ResolvedRefs", "", seen),
            Some((reason, message)) => condition("ResolvedRefs", Err(()), reason, &message, seen),
        };
        let kind = if parent.set.is_some() { "ListenerSet" } else { "Gateway" };
        let mut reference = json!({"group": GROUP, "kind": kind, "name": parent.reference.name});
        for (name, value) in [
            ("namespace", parent.reference.namespace.clone().map(Value::from)),
            ("sectionName", parent.reference.section_name.clone().map(Value::from)),
            ("port", parent.reference.port.map(Value::from)),
        ] {
            if let Some(value) = value {
                reference[name] = value;
            }
        }
        let status = json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": [accepted, resolved]});
        (places, status)
    }

    /// Has the rules served at a listener, as far as nobody older has its port or its hosts. Whether the listener has the route.
    fn serve(
        &self,
        parent: &Parent<'_>,
        (place, hosts): (usize, &[String]),
        (rules, (rejected, claims)): (&[Planned], (&Rejected<'_>, &Claims)),
        plan: &mut Plan,
        outcome: &mut Outcome,
    ) -> bool {
        let placed = &parent.listed.listeners[place];
        if let Some(other) = rejected.other((parent.key, place), (self.kind, self.key)) {
            return outcome.note(Err(Lost::to_other_kind(&placed.listener.name, other)), "HostnameConflict");
        }
        let (entrance, door) = match placed.served {
            Ok(Served::Hosts(entrance, door)) => (entrance, door),
            Ok(Served::Stream(port)) => {
                let has = claims.has_port(port, &self.claim(placed, "")).map(|()| {
                    plan.streams.extend(rules.first().map(|rule| (port, rule.clone())));
                });
                return outcome.note(has, "PortConflict");
            }
            // "Listener status does not impact successful attachment" (ListenerStatus, attachedRoutes).
            Err(_) => return true,
        };
        let clients = self.askings.get(&(parent.key, place)).map(|asking| asking.clients.clone());
        let mut has_any = false;
        for host in hosts {
            if let Some((other, isolating)) = isolated(host, placed, parent.listed) {
                let is_there = parent.attached.iter().flatten().any(|(place, hosts)| *place == other && hosts.contains(host));
                let has = if is_there { Ok(()) } else { Err(Lost::to_listener(host, placed, isolating)) };
                has_any |= outcome.note(has, "HostnameConflict");
                continue;
            }
            let by = self.by(parent.key, place, host);
            let has = claims.has_host(host, (entrance, door), (&by, &self.claim(placed, host)), self.around);
            if outcome.note(has, "HostnameConflict") {
                let here = |rule: &Planned| {
                    let backends = if door == Door::Terminated { self.by_policies(rule) } else { rule.backends.clone() };
                    let (host, clients, listener) = (host.clone(), clients.clone(), by.listener.clone());
                    let matched = Matched { closeness: by.closeness, ..rule.matched.clone() };
                    Planned { entrance, door, host, clients, listener, matched, backends, ..rule.clone() }
                };
                plan.rules.extend(rules.iter().map(here));
                has_any = true;
            }
        }
        has_any
    }
}

impl Planner<'_> {
    /// The back ends of a rule as policies want them: what TLS that ends here carries goes on over TLS of its own where one says so.
    fn by_policies(&self, rule: &Planned) -> Vec<Backend<UpstreamKey>> {
        let apply = |one: &Backend<UpstreamKey>| {
            let to = one.to.clone().and_then(|key| self.policies.apply(key, self.around));
            Backend { weight: one.weight, to, changes: one.changes.clone() }
        };
        rule.backends.iter().map(apply).collect()
    }
}

/// What a route gets of what it wants from a Gateway.
#[derive(Default)]
struct Outcome {
    has_any: bool,
    lost: Vec<Lost>,
    /// The reason of the condition Accepted when it gets nothing.
    reason: &'static str,
}

impl Outcome {
    /// Notes whether it has one thing.
    fn note(&mut self, has: Result<(), Lost>, reason: &'static str) -> bool {
        self.has_any |= has.is_ok();
        let Err(lost) = has else { return true };
        self.lost.push(lost);
        self.reason = reason;
        false
    }
}
