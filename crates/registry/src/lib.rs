//! The one path per verb, for every kind.
//!
//! [`Catalog`] is what is served: a [`Served`] for each version of each resource, with its strategy and schema type, over a storage
//! whose watch cache the store's own commits feed. Reads are served from the cache; writes go decode, default, admit, validate,
//! encode, commit, the same way for all. A kind with behaviour of its own says so in its strategy, or in an admission plugin where it needs other objects.

mod admission;
mod cache;
mod catalog;
mod confine;
mod context;
mod convert;
mod converted;
mod decode_error;
mod definitions;
mod derived;
mod entry;
mod form;
mod latencies;
mod metrics;
mod object_schema;
mod open;
mod options;
mod past;
mod pipeline;
mod remote;
mod scale;
mod served;
mod services;
mod size;
mod storage;
mod sub;
mod target;
mod verbs;
mod versions;

pub use admission::{Admission, Invoked, Operation, Request, Seen};
pub use cache::{Cursor, Event, EventType, Since, Watch};
pub use catalog::Catalog;
pub use context::{Annotations, Context, FieldValidation, MayCreate, User, Warnings};
pub use convert::Converter;
pub use definitions::Renewal;
pub use derived::Derived;
pub use entry::Entry;
pub use latencies::Layer;
pub use object_schema::ObjectSchema;
pub use open::{OpenError, Options, Registry, TokenSigner, Tokens};
pub use options::{DeleteOptions, Deleted, List, ListOptions, Patch, Written};
pub use pipeline::settle_posted;
pub use remote::Remote;
pub use served::Served;
pub use sub::TokenSubject;
pub use target::How;
