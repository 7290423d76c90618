//! Ingress over real sockets: an API in memory, back ends that say what they saw, clients of HTTP/1.1, HTTP/2 and TLS.
#![allow(clippy::unwrap_used)]

mod acme;
mod bounds;
mod changes;
mod clients;
mod extended;
mod gateway;
mod guards;
mod listeners;
mod ports;
mod protocols;
mod routes;
mod world;
