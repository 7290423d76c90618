//! The way in from outside: HTTP and HTTPS by Ingress and the Gateway API, TCP and UDP by the latter.
//!
//! - Pure: [`annotations`] and [`compile`] read Ingresses, [`model`] makes the routing [`table`] of them step by step, [`paths`] finds a
//!   path's rule, [`endpoints`] looks behind Services, [`balance`] chooses among what is there, [`guard`] says who may pass.
//! - [`acme`] has certificates issued.
//! - The data path: `front` accepts, `proxy` decides what becomes of a request, `forward` takes it to a back end over
//!   connections of `connect` and `pool`.
//! - `service` follows the API and hands new tables to the data path, which never waits for it.

pub mod acme;
pub mod annotations;
pub mod balance;
mod body;
pub mod canary;
pub mod certificates;
pub mod classes;
mod cluster_addresses;
pub mod compile;
mod connect;
pub mod effort;
pub mod endpoints;
mod forward;
mod front;
pub mod gateway;
pub mod guard;
mod handshakes;
pub mod headers;
mod hello;
pub mod issuer;
pub mod live;
mod loops;
mod metrics;
pub mod model;
mod names;
mod passthrough;
pub mod paths;
pub mod patterns;
pub mod policy;
mod pool;
mod ports;
mod proxy;
mod proxy_protocol;
mod random;
pub mod service;
pub mod session;
pub mod several;
pub mod table;
pub mod template;
mod tunnel;
mod underway;
pub mod upstream;
pub mod verify;

pub use service::{Error, Handle, Options, Service};
