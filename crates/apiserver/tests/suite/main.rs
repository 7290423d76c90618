//! The API over the embedded store in a temporary directory. One program: linking is what costs most.
#![allow(clippy::unwrap_used)]

mod access_reviews;
mod aggregation;
mod audit;
mod certificates;
mod components;
mod conformance;
mod connect;
mod credentials;
mod custom;
mod fairness;
mod figures;
mod forms;
mod full_store;
mod hangups;
mod history;
mod hostile;
mod https;
mod mountable_secrets;
mod noise;
mod oidc;
mod operations;
mod optional_plugins;
mod own_objects;
mod pod_changes;
mod pod_security;
mod policies;
mod requests;
mod review_webhooks;
mod security;
mod server;
mod storage;
mod usage;
mod watch;
mod webhooks;
mod zpages;
