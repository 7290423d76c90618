//! Bindings that wait for what their pods need, which may be called off until they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

const WAITS: u8 = 0;
const PREEMPTED: u8 = 1;
const GONE: u8 = 2;
const NODE_GONE: u8 = 3;
const WRITTEN: u8 = 4;

/// The binding of a pod as the scheduler and whoever makes the binding know it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingBinding(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    called_off: Notify,
}

/// Why a binding ends without a node for its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CalledOff {
    /// Somebody more important needs the node. The pod is tried again.
    #[error("preempted by DefaultPreemption")]
    Preempted,
    /// The pod was deleted, ends, or has finished.
    #[error("pod does not exist any more")]
    Gone,
    /// The node was deleted. The pod is tried again.
    #[error("node does not exist any more")]
    NodeGone,
}

/// What became of the wish that a binding ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOff {
    /// It ends without a node for its pod.
    Ends,
    /// It ends already.
    EndsAlready,
    /// It is too late: the pod gets its node.
    IsWritten,
}

impl CalledOff {
    fn state(self) -> u8 {
        match self {
            Self::Preempted => PREEMPTED,
            Self::Gone => GONE,
            Self::NodeGone => NODE_GONE,
        }
    }

    /// None of a binding that has not been called off.
    fn of(state: u8) -> Option<Self> {
        [Self::Preempted, Self::Gone, Self::NodeGone].into_iter().find(|why| why.state() == state)
    }
}

impl PendingBinding {
    /// Ends the binding, if its node is not written yet. That the pod is gone is the reason from then on, whatever it was before: nobody tries it again.
    pub(crate) fn call_off(&self, why: CalledOff) -> CallOff {
        let next = |state: u8| match CalledOff::of(state) {
            None => (state == WAITS).then_some(why.state()),
            Some(_) => (why == CalledOff::Gone).then_some(GONE),
        };
        let was = self.0.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).unwrap_or_else(|state| state);
        match was {
            WAITS => {
                self.0.called_off.notify_one();
                CallOff::Ends
            }
            WRITTEN => CallOff::IsWritten,
            _ => CallOff::EndsAlready,
        }
    }

    /// From here on it is written.
    ///
    /// # Errors
    ///
    /// It has been called off.
    pub(crate) fn write(&self) -> Result<(), CalledOff> {
        let written = self.0.state.compare_exchange(WAITS, WRITTEN, Ordering::AcqRel, Ordering::Acquire);
        written.err().and_then(CalledOff::of).map_or(Ok(()), Err)
    }

    /// What `wait` gives, if the binding is not called off before. Nothing may be written in it: a write that breaks off may have been made.
    ///
    /// # Errors
    ///
    /// It is called off.
    pub(crate) async fn unless_called_off<T>(&self, wait: impl Future<Output = T>) -> Result<T, CalledOff> {
        tokio::select! {
            biased;
            why = self.called_off() => Err(why),
            result = wait => Ok(result),
        }
    }

    async fn called_off(&self) -> CalledOff {
        loop {
            if let Some(why) = CalledOff::of(self.0.state.load(Ordering::Acquire)) {
                return why;
            }
            // Whoever calls off in between is not missed: one notification is kept.
            self.0.called_off.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Who calls off is told whether it is in time, and who waits hears of it and why, also when it begins to wait afterwards.
    #[test]
    fn it_is_called_off_or_written() {
        use CalledOff::{Gone, NodeGone, Preempted};
        let waits = |binding: &PendingBinding| binding.unless_called_off(std::future::pending::<()>()).now_or_never();
        for (reasons, expected) in [
            ([Preempted, Preempted], Preempted),
            ([Gone, Gone], Gone),
            ([Preempted, Gone], Gone),
            ([Gone, Preempted], Gone),
            ([NodeGone, Preempted], NodeGone),
            ([NodeGone, Gone], Gone),
        ] {
            let binding = PendingBinding::default();
            assert!(waits(&binding).is_none());
            assert!(matches!(binding.unless_called_off(std::future::ready(1)).now_or_never(), Some(Ok(1))));
            assert_eq!(reasons.map(|why| binding.call_off(why)), [CallOff::Ends, CallOff::EndsAlready]);
            assert_eq!(waits(&binding), Some(Err(expected)), "{reasons:?}");
            assert_eq!(binding.write(), Err(expected), "{reasons:?}");
        }
        for why in [Preempted, Gone, NodeGone] {
            let binding = PendingBinding::default();
            assert_eq!(binding.write(), Ok(()));
            assert_eq!(binding.call_off(why), CallOff::IsWritten);
            assert!(waits(&binding).is_none());
        }
    }
}
