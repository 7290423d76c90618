//! What every component needs and none owns: supervised tasks, readiness, logs, metrics, TLS, programs that answer.

pub mod accept;
pub mod addresses;
pub mod budgets;
pub mod connection;
pub mod directory;
pub mod files;
pub mod listen;
pub mod logging;
pub mod lookup;
pub mod metrics;
pub mod patience;
pub mod programs;
pub mod readiness;
pub mod records;
pub mod sockets;
pub mod stat;
pub mod tasks;
pub mod tls;
pub mod trees;
pub mod unread;
pub mod zpages;
