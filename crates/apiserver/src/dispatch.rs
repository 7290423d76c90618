//! The one table from (resource, sub-resource, method) to (API verbs, handler). Authorization asks for these verbs and nothing
//! else is done than this handler, so that a request can never be authorized as one thing and served as another.

use apimachinery::Status;
use http::Method;
use kinds::{Action, Behaviour, Computed, Connect, KindDef, Verb};

use crate::route::{Route, Target};

/// What a request is authorized for, and what is then done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Verbs that the user must have, as in rules of roles. Never empty: a verb of no name is allowed only to who may do anything.
    pub(crate) verbs: Vec<&'static str>,
    /// What is done, or why nothing can be.
    pub(crate) handler: Result<Handler, Refusal>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    /// A document of the server itself.
    Document,
    /// A verb on objects.
    Object(Verb),
    /// A verb on objects that are computed when they are read.
    Computed(Computed),
    /// A verb on a part of an object, or a view of it.
    Part(Verb),
    /// What a sub-resource does when something is posted to it.
    Action(Action),
    /// A question that is answered and not kept.
    Review,
    /// What is posted to the collection is posted to a sub-resource of the object that it names.
    Forward,
    /// The request becomes a connection.
    Connect(Connect),
    /// Another server answers.
    Remote,
}

/// Why nothing can be done. Told only to who is allowed to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The path names nothing.
    NotFound,
    /// The path names something that does not take this method.
    MethodNotAllowed,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::page_not_found(),
            Refusal::MethodNotAllowed => Self::method_not_allowed(),
        }
    }
}

impl Plan {
    /// What `method` does to what the path names. `def` is none for a resource that is not served: whether it exists is told
    /// only to who may ask for it.
    pub(crate) fn of(method: &Method, route: &Route<'_>, query: &str, def: Option<&KindDef>) -> Self {
        let Route::Resource(target) = route else {
            return Self { verbs: vec![path_verb(method)], handler: Ok(Handler::Document) };
        };
        let verb = resource_verb(method, target, query);
        let handler = match def {
            None => Err(Refusal::NotFound),
            Some(def) => handler(method, target, def, verb),
        };
        let mut verbs = vec![verb.map_or("", Verb::as_str)];
        // A WebSocket handshake is a GET; what it starts is a creation (KEP-5515), also through a kubelet's own paths.
        let creates = match handler {
            Ok(Handler::Connect(Connect::Attach | Connect::Exec | Connect::PortForward)) => true,
            Ok(Handler::Connect(Connect::Proxy)) => crate::proxy::runs_commands(target),
            _ => false,
        };
        if creates && verb != Some(Verb::Create) {
            verbs.push(Verb::Create.as_str());
        }
        Self { verbs, handler }
    }
}

/// Non-resource paths are authorized by method (API page "Authorization", "Determine the Request Verb").
fn path_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

fn resource_verb(method: &Method, target: &Target<'_>, query: &str) -> Option<Verb> {
    let collection = target.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if target.watch || collection && crate::query::watches(query) => Some(Verb::Watch),
        Method::GET | Method::HEAD if collection => Some(Verb::List),
        Method::GET | Method::HEAD => Some(Verb::Get),
        Method::POST => Some(Verb::Create),
        Method::PUT => Some(Verb::Update),
        Method::PATCH => Some(Verb::Patch),
        Method::DELETE if collection => Some(Verb::DeleteCollection),
        Method::DELETE => Some(Verb::Delete),
        _ => None,
    }
}

fn handler(method: &Method, target: &Target<'_>, def: &KindDef, verb: Option<Verb>) -> Result<Handler, Refusal> {
    let (in_namespace, named) = (!target.namespace.is_empty(), !target.name.is_empty());
    if in_namespace && !def.namespaced || named && !in_namespace && def.namespaced {
        return Err(Refusal::NotFound);
    }
    if target.sub.is_empty() {
        return object(target, def, verb);
    }
    let sub = def.subresource(target.sub).filter(|_| !target.watch).ok_or(Refusal::NotFound)?;
    let connect = match sub.behaviour {
        Behaviour::Connect(connect) => Some(connect),
        _ => None,
    };
    if !matches!(target.rest, "" | "/") && connect != Some(Connect::Proxy) {
        return Err(Refusal::NotFound);
    }
    // A proxy passes on whatever the method is.
    let takes =
        verb.is_some_and(|verb| sub.verbs.contains(verb)) || connect == Some(Connect::Proxy) && *method == Method::OPTIONS;
    if !named || !takes {
        return Err(Refusal::MethodNotAllowed);
    }
    match (sub.behaviour, verb) {
        (Behaviour::Connect(connect), _) => Ok(Handler::Connect(connect)),
        (Behaviour::Action(action), _) => Ok(Handler::Action(action)),
        (Behaviour::Status | Behaviour::Part(_) | Behaviour::Scale, Some(verb)) => Ok(Handler::Part(verb)),
        (Behaviour::Status | Behaviour::Part(_) | Behaviour::Scale, None) => Err(Refusal::MethodNotAllowed),
    }
}

fn object(target: &Target<'_>, def: &KindDef, verb: Option<Verb>) -> Result<Handler, Refusal> {
    let verb = verb.filter(|verb| def.verbs.contains(*verb)).ok_or(Refusal::MethodNotAllowed)?;
    let (named, placed) = (!target.name.is_empty(), !def.namespaced || !target.namespace.is_empty());
    match verb {
        Verb::Create if named || !placed => Err(Refusal::MethodNotAllowed),
        // A collection of all namespaces is read only.
        Verb::DeleteCollection if !placed => Err(Refusal::MethodNotAllowed),
        Verb::Update | Verb::Patch if !named => Err(Refusal::MethodNotAllowed),
        Verb::Create if def.posted_to.is_some() => Ok(Handler::Forward),
        Verb::Create if !def.stored => Ok(Handler::Review),
        verb => Ok(def.computed.map_or(Handler::Object(verb), Handler::Computed)),
    }
}

#[cfg(test)]
mod tests;
