//! Admission: what may change or refuse a request after authorization, and what is held until its commit is done.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::{Status, meta};
use async_trait::async_trait;
use kinds::Behaviour;
use serde_json::Value;
use store::Hold;

use crate::confine;
use crate::scale;
use crate::target::{How, Target};
use crate::{Context, FieldValidation, Registry, Served, User};

/// What the request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object or a sub-resource.
    Update,
    /// A deletion.
    Delete,
    /// exec, attach, portforward, proxy.
    Connect,
}

impl Operation {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// The new and the old object, as somebody sees them.
pub type Seen<'a> = (Option<Cow<'a, Value>>, Option<Cow<'a, Value>>);

/// Mutation goes through the plugins once, and a second time when one asks for it.
const ROUNDS: u8 = 2;

/// What a plugin has called that may be called again: webhooks, policies (upstream: `webhookReinvokeContext`).
#[derive(Debug, Default)]
pub struct Invoked {
    /// The object as the plugin left it.
    left: Option<Value>,
    /// Called, to be called again when the object changes after them.
    eligible: BTreeSet<String>,
    /// To be called again.
    due: BTreeSet<String>,
}

impl Invoked {
    /// The second round begins: when other plugins have changed the object since, all that are eligible are due.
    pub fn begin_again(&mut self, object: Option<&Value>) {
        if self.left.as_ref() != object {
            self.changed();
        }
    }

    /// Something has changed the object: those that were called before are due.
    pub fn changed(&mut self) {
        self.due.append(&mut self.eligible);
    }

    /// One has been called, and wants to be called again when the object changes.
    pub fn called(&mut self, key: &str) {
        self.eligible.insert(key.to_owned());
    }

    /// Whether one is to be called in the second round.
    pub fn is_due(&self, key: &str) -> bool {
        self.due.contains(key)
    }

    /// The plugin is done with its round.
    pub fn leave(&mut self, object: Option<&Value>) {
        self.left = object.cloned();
    }
}

/// A request as admission sees it (API page "Admission Controllers").
pub struct Request<'a> {
    /// For looking up other objects.
    pub registry: &'a Registry,
    /// What it does.
    pub operation: Operation,
    /// To what kind, in the version that was asked for.
    pub resource: &'a Served,
    /// Sub-resource, empty for the object itself.
    pub subresource: &'a str,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Name, empty when it will be generated.
    pub name: &'a str,
    /// The stored object, none for a creation.
    pub old: Option<&'a Value>,
    /// Who.
    pub user: &'a User,
    /// Nothing will be written.
    pub dry_run: bool,
    target: Target<'a>,
    object: Option<Value>,
    changed: bool,
    /// The managed fields as they were before somebody put another object in the place of this one.
    managed: Option<Option<Value>>,
    /// Rounds that have begun, and those that are wanted.
    round: u8,
    rounds: u8,
    invoked: BTreeMap<&'static str, Invoked>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        registry: &'a Registry,
        target: Target<'a>,
        operation: Operation,
        object: Option<Value>,
        old: Option<&'a Value>,
    ) -> Self {
        Self {
            registry,
            operation,
            resource: target.res,
            subresource: target.sub,
            namespace: target.namespace,
            name: target.name,
            old,
            user: &target.cx.user,
            dry_run: target.cx.dry_run,
            target,
            object,
            changed: false,
            managed: None,
            round: 0,
            rounds: 1,
            invoked: BTreeMap::new(),
        }
    }

    /// The circumstances of the write.
    pub fn context(&self) -> &'a Context {
        self.target.cx
    }

    /// What the client sent, where the operation does not tell it.
    pub fn how(&self) -> How<'a> {
        self.target.how
    }

    /// The new object, none for a deletion; the options of a connection.
    pub fn object(&self) -> Option<&Value> {
        self.object.as_ref()
    }

    /// The new object, to change it: it is decoded, and gets its defaults, once more.
    pub fn object_mut(&mut self) -> Option<&mut Value> {
        self.changed = true;
        self.object.as_mut()
    }

    /// The versions in which the resource is served, that of the request included.
    pub fn versions(&self) -> Vec<Arc<Served>> {
        self.registry.catalog().versions_of(self.resource).cloned().collect()
    }

    /// The new and the old object as a client of `version` sees them. Through a scale, that is the Scale.
    pub async fn seen_as(&self, version: &Served) -> Result<Seen<'_>, Status> {
        let object = self.see(self.object(), version).await?;
        Ok((object, self.see(self.old, version).await?))
    }

    async fn see<'o>(&self, object: Option<&'o Value>, version: &Served) -> Result<Option<Cow<'o, Value>>, Status> {
        let Some(object) = object else { return Ok(None) };
        if let Some(Behaviour::Scale) = self.resource.behaviour(self.subresource) {
            return scale::read(object, &self.resource.def.scale).map(|scale| Some(Cow::Owned(scale)));
        }
        if std::ptr::eq(version, self.resource) || !self.resource.is_own_body(self.subresource) {
            return Ok(Some(Cow::Borrowed(object)));
        }
        self.resource.convert_to(version, object.clone()).await.map(|object| Some(Cow::Owned(object)))
    }

    /// Puts what somebody has made of the new object, as [`Request::seen_as`] has shown it, in its place: it is decoded, loses what its
    /// schema does not know, and gets its defaults. Whether anything has changed.
    pub async fn replace(&mut self, version: &Served, mut object: Value) -> Result<bool, Status> {
        let Target { cx, res, sub, .. } = self.target;
        let lenient = Context { field_validation: FieldValidation::Ignore, ..cx.clone() };
        if let (Some(Behaviour::Scale), Some(own)) = (res.behaviour(sub), &mut self.object) {
            let before = own.clone();
            res.decode(&lenient, sub, &mut object)?;
            scale::write(own, &res.def.scale, &object);
            return Ok(*own != before);
        }
        version.decode(&lenient, sub, &mut object)?;
        if !std::ptr::eq(version, res) && res.is_own_body(sub) {
            object = version.convert_to(res, object).await?;
        }
        if res.is_own_body(sub) {
            res.strategy.apply_defaults(&mut object);
        }
        if let (Operation::Update, Some(old), Some(own)) = (self.operation, self.old, &self.object) {
            confine::keep_metadata(&mut object, old);
            meta::set_resource_version(&mut object, meta::resource_version(own));
            confine::confine(res, sub, &mut object, old);
        }
        let changed = self.object.as_ref() != Some(&object);
        let replaced = self.object.replace(object);
        if self.managed.is_none() {
            self.managed = Some(replaced.and_then(|mut replaced| meta::remove(&mut replaced, "managedFields")));
        }
        Ok(changed)
    }

    /// Wants the plugins to be asked once more, because the object has changed.
    pub fn reinvoke(&mut self) {
        self.rounds = ROUNDS;
    }

    /// Whether the plugins are asked for the second time.
    pub fn is_reinvoked(&self) -> bool {
        self.round > 1
    }

    /// What a plugin has called so far, by its name.
    pub fn invoked(&mut self, plugin: &'static str) -> &mut Invoked {
        self.invoked.entry(plugin).or_default()
    }

    /// Begins the next round, if it is wanted.
    pub(crate) fn begin_round(&mut self) -> bool {
        self.round += 1;
        self.round <= self.rounds
    }

    /// Whether a plugin has changed the object.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// The managed fields before the plugins, where one of them may have changed them.
    pub(crate) fn take_managed(&mut self) -> Option<Option<Value>> {
        self.managed.take()
    }

    /// The object as the plugins leave it.
    pub(crate) fn into_object(self) -> Option<Value> {
        self.object
    }
}

/// An admission plugin. The list of them is ordered.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Whether the request concerns this plugin. Requests that do not cost it nothing more.
    fn handles(&self, request: &Request<'_>) -> bool;

    /// Whether it may look at all of any object. Otherwise a write of a status has, of what it cannot change, only what the kind says.
    fn sees_all(&self, _registry: &Registry) -> bool {
        false
    }

    /// Changes the object, or refuses the request.
    async fn mutate(&self, _request: &mut Request<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Gives a valid object what only one object may have, such as an address, and holds it until the commit has succeeded or failed. The
    /// hold goes with the write, which happens also when the request has ended meanwhile.
    async fn reserve(&self, _request: &mut Request<'_>) -> Result<Option<Hold>, Status> {
        Ok(None)
    }

    /// Refuses the object in its final form.
    async fn validate(&self, _request: &Request<'_>) -> Result<(), Status> {
        Ok(())
    }
}
