//! Bindings that wait for what their pods need, which may be called off until they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

const WAITS: u8 = 0;
const CALLED_OFF: u8 = 1;
const WRITTEN: u8 = 2;

/// The binding of a pod as the scheduler and whoever makes the binding know it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingBinding(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    called_off: Notify,
}

/// A binding ends without a node for its pod, since somebody more important needs the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("preempted by DefaultPreemption")]
pub(crate) struct CalledOff;

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

impl PendingBinding {
    /// Ends the binding, if its node is not written yet.
    pub(crate) fn call_off(&self) -> CallOff {
        match self.0.state.compare_exchange(WAITS, CALLED_OFF, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.0.called_off.notify_one();
                CallOff::Ends
            }
            Err(CALLED_OFF) => CallOff::EndsAlready,
            Err(_) => CallOff::IsWritten,
        }
    }

    /// From here on it is written.
    ///
    /// # Errors
    ///
    /// It has been called off.
    pub(crate) fn write(&self) -> Result<(), CalledOff> {
        match self.0.state.compare_exchange(WAITS, WRITTEN, Ordering::AcqRel, Ordering::Acquire) {
            Err(CALLED_OFF) => Err(CalledOff),
            _ => Ok(()),
        }
    }

    /// What `wait` gives, if the binding is not called off before. Nothing may be written in it: a write that breaks off may have been made.
    ///
    /// # Errors
    ///
    /// It is called off.
    pub(crate) async fn unless_called_off<T>(&self, wait: impl Future<Output = T>) -> Result<T, CalledOff> {
        tokio::select! {
            biased;
            () = self.0.called_off.notified() => Err(CalledOff),
            result = wait => Ok(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Who calls off is told whether it is in time, and who waits hears of it, also when it begins to wait afterwards.
    #[test]
    fn it_is_called_off_or_written() {
        let waits = |binding: &PendingBinding| binding.unless_called_off(std::future::pending::<()>()).now_or_never();
        let binding = PendingBinding::default();
        assert!(waits(&binding).is_none());
        assert!(matches!(binding.unless_called_off(std::future::ready(1)).now_or_never(), Some(Ok(1))));
        assert_eq!([binding.call_off(), binding.call_off()], [CallOff::Ends, CallOff::EndsAlready]);
        assert!(matches!(waits(&binding), Some(Err(CalledOff))));
        assert!(matches!(binding.write(), Err(CalledOff)));

        let binding = PendingBinding::default();
        assert!(binding.write().is_ok());
        assert_eq!(binding.call_off(), CallOff::IsWritten);
        assert!(waits(&binding).is_none());
    }
}
