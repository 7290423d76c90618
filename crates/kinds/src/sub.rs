//! Sub-resources: what a path below an object stands for, and what may be done with it.

use std::borrow::Cow;

use serde_json::Value;

use crate::def::GroupVersionKindRef;
use crate::verb::{Verb, VerbSet};

/// Where the parts of `autoscaling/v1 Scale` are found, as JSON pointers.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// Desired count.
    pub replicas: Cow<'static, str>,
    /// Observed count.
    pub status_replicas: Cow<'static, str>,
    /// Label selector: an object, for ReplicationControllers a map, for custom resources text. None where there is no selector.
    pub selector: Option<Cow<'static, str>>,
}

impl ScalePaths {
    /// Those of all built-in kinds.
    pub const BUILTIN: Self = Self {
        replicas: Cow::Borrowed("/spec/replicas"),
        status_replicas: Cow::Borrowed("/status/replicas"),
        selector: Some(Cow::Borrowed("/spec/selector")),
    };
}

/// What is posted to a sub-resource, and done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A pod gets its node.
    Bind,
    /// A pod is deleted if its disruption budgets allow it.
    Evict,
    /// A token of a service account is issued.
    IssueToken,
}

/// What a connection is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// The standard streams of a running container.
    Attach,
    /// A new process in a container.
    Exec,
    /// The log of a container.
    Log,
    /// Ports of a pod.
    PortForward,
    /// An HTTP server behind a pod, service or node.
    Proxy,
}

/// What a sub-resource is.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// The status, which is written here only.
    Status,
    /// Another part of the object. The function takes back what a write through it may not change.
    Part(fn(object: &mut Value, old: &Value)),
    /// Its size, as `autoscaling/v1 Scale`. The kind says where it stands.
    Scale,
    /// Something is posted and done.
    Action(Action),
    /// The request becomes a connection.
    Connect(Connect),
}

/// A sub-resource.
#[derive(Clone, Copy, Debug)]
pub struct Sub {
    /// Name in the path.
    pub name: &'static str,
    /// Kind of the body, none for the kind of the object itself.
    pub kind: Option<GroupVersionKindRef<'static>>,
    /// Other API versions of the body that are taken as well. Their fields are the same.
    pub accepts: &'static [&'static str],
    /// API verbs that it takes.
    pub verbs: VerbSet,
    /// What it is.
    pub behaviour: Behaviour,
}

impl Sub {
    /// `status`.
    pub const STATUS: Self =
        Self { name: "status", kind: None, accepts: &[], verbs: VerbSet::PART, behaviour: Behaviour::Status };

    /// `scale`.
    pub const SCALE: Self = Self {
        name: "scale",
        kind: Some(("autoscaling", "v1", "Scale")),
        accepts: &[],
        verbs: VerbSet::PART,
        behaviour: Behaviour::Scale,
    };

    /// A part of the object besides its status.
    pub const fn part(name: &'static str, verbs: VerbSet, confine: fn(&mut Value, &Value)) -> Self {
        Self { name, kind: None, accepts: &[], verbs, behaviour: Behaviour::Part(confine) }
    }

    /// Something that is posted.
    pub const fn action(name: &'static str, kind: GroupVersionKindRef<'static>, action: Action) -> Self {
        Self { name, kind: Some(kind), accepts: &[], verbs: VerbSet::CREATE, behaviour: Behaviour::Action(action) }
    }

    /// The same, whose body may also be of these API versions.
    pub const fn accepting(self, accepts: &'static [&'static str]) -> Self {
        Self { accepts, ..self }
    }

    /// A connection.
    pub const fn connect(name: &'static str, kind: Option<GroupVersionKindRef<'static>>, connect: Connect) -> Self {
        let verbs: &[Verb] = match connect {
            Connect::Log => &[Verb::Get],
            Connect::Attach | Connect::Exec | Connect::PortForward => &[Verb::Create, Verb::Get],
            Connect::Proxy => &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        };
        Self { name, kind, accepts: &[], verbs: VerbSet::of(verbs), behaviour: Behaviour::Connect(connect) }
    }
}
