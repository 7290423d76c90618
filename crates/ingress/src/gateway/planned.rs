//! What follows from the objects of the Gateway API: rules, ports, certificates, statuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Key;
use serde_json::Value;

use super::actions::{Actions, BackendChanges};
use super::frontend::Clients;
use super::rules::Matched;
use super::status::Kind;
use super::streams::{Carries, Port};
use crate::annotations::Problem;
use crate::issuer::Issuer;
use crate::upstream::UpstreamKey;

/// What follows.
#[derive(Debug, Default)]
pub struct Plan {
    /// Matches of rules, in no order.
    pub rules: Vec<Planned>,
    /// Ports that are served beside the two of ingress, and what for.
    pub ports: BTreeMap<Port, Carries>,
    /// Where what comes to those for TCP and UDP goes, as far as it goes anywhere.
    pub streams: BTreeMap<Port, Planned>,
    /// Hosts for which TLS ends here, whether or not a rule has them.
    pub ends_here: BTreeSet<(Entrance, String)>,
    /// Hosts of listeners over TLS.
    pub over_tls: BTreeSet<(Entrance, String)>,
    /// Certificates of HTTPS listeners, those of older Gateways first.
    pub tls: Vec<Certificates>,
    /// A route was refused for want of room for its regular expressions.
    pub without_room: bool,
    /// Hosts whose clients are asked for certificates.
    pub asks: BTreeSet<(Entrance, String)>,
    /// The Secrets that listeners refer to and may.
    pub secrets: BTreeSet<Key>,
    /// The ConfigMaps that are referred to and may.
    pub config_maps: BTreeSet<Key>,
    /// The certificates that issuers are asked for.
    pub orders: Vec<Order>,
    /// Who has each name of a single host first, of Gateways and their routes.
    pub holders: BTreeMap<String, Holder>,
    /// The hosts of Ingresses that routes have.
    pub conflicts: Vec<(Key, Problem)>,
    /// What of Gateways and ListenerSets does not work and has no place in their status.
    pub problems: Vec<(Kind, Key, Problem)>,
    /// What each status has to be.
    pub statuses: Vec<(Kind, Key, Value)>,
}

/// The certificates of an HTTPS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Where it is shown.
    pub entrance: Entrance,
    /// The listener's host.
    pub host: String,
    /// The Secrets with them; which one is shown is a matter of the names in them.
    pub secrets: Vec<Key>,
    /// Seconds of the creation of the one that has the listener.
    pub created: i64,
}

/// Who has a name first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Seconds of the creation of the one that has it.
    pub since: i64,
    /// Which: a Gateway, a ListenerSet or a route.
    pub key: Key,
    /// Whose the name is.
    pub namespace: String,
}

/// A name of a listener whose Gateway or ListenerSet names an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where the certificate is kept.
    pub secret: Key,
    /// The name.
    pub host: String,
    /// Who issues it.
    pub issuer: Issuer,
    /// Whose listener it is: a Gateway's or a ListenerSet's.
    pub kind: Kind,
    /// Which.
    pub owner: Key,
    /// Its unique name.
    pub uid: Option<String>,
    /// Seconds of its creation.
    pub created: i64,
}

/// Where connections come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entrance {
    /// The two ports of ingress, which Ingresses share with Gateways.
    #[default]
    Ingress,
    /// Another port of TCP.
    Port(u16),
}

/// How connections of a listener are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS, which ends here.
    Https,
    /// TLS that is passed through.
    Passthrough,
    /// TLS that ends here; what it carries goes on as it is.
    Terminated,
}

impl Door {
    /// Whether connections are led on by the name in their first message, each name's to one route.
    pub fn is_led_by_name(self) -> bool {
        matches!(self, Self::Passthrough | Self::Terminated)
    }
}

/// One match of one rule, under one host.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where requests come.
    pub entrance: Entrance,
    /// By which door requests come.
    pub door: Door,
    /// Host as it is written: `a.example`, `*.example`, or any when empty.
    pub host: String,
    /// What kind of route it is of.
    pub kind: Kind,
    /// Whose it is.
    pub route: Key,
    /// The listener that has it: its Gateway, and its place there.
    pub listener: (Key, usize),
    /// What requests are like.
    pub matched: Matched,
    /// What happens to them.
    pub actions: Arc<Actions>,
    /// Who answers, by weight.
    pub backends: Vec<Backend<UpstreamKey>>,
    /// Who gets copies; those of [`Actions::mirrors`] that lead somewhere, with their places there.
    pub mirrors: Vec<(usize, UpstreamKey)>,
    /// What clients have to show.
    pub clients: Option<Arc<Clients>>,
}

/// One of those that answer requests of a rule.
#[derive(Clone, Debug)]
pub struct Backend<T> {
    /// Its part of all weights.
    pub weight: u32,
    /// Where it is; none answers with status 500.
    pub to: Option<T>,
    /// What it changes.
    pub changes: Arc<BackendChanges>,
}
