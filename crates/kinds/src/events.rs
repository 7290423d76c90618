//! events.k8s.io/v1: the objects of core/v1 Event.

mod event;

pub(crate) use event::EventsV1;
