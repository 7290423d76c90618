//! SPDY/3.1, both ends, as far as Kubernetes uses it: streams that the client opens, data, half-close, reset and ping.
//!
//! There is no flow control on purpose. The one library that still speaks this protocol (moby/spdystream, in clients and in
//! container runtimes) sends no WINDOW_UPDATE and expects none; waiting for a window would stop every transfer at 64 KiB.
//! The connection under it holds back a sender, and each stream's pipe is bounded.

mod connection;
mod frame;
mod headers;

pub(crate) use connection::{Direction, Opened, open, serve};
#[cfg(test)]
pub(crate) use frame::{Frame, Head, Reader, Writer};
