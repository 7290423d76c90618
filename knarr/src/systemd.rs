//! What the service manager is told of this process (sd_notify(3)): for units of `Type=notify`, with `WatchdogSec=`.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};

/// Where it is told, and how often.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What this process was given of them.
static GIVEN: OnceLock<Vec<(&str, OsString)>> = OnceLock::new();

/// Takes what the manager has given to this process, so that no other has it: an OCI runtime would wait for its container to say that it
/// serves, and what runs in pods could speak for this process. To be called first in `main`.
///
/// # Errors
/// It cannot be taken out of the environment.
pub(crate) fn take() -> io::Result<()> {
    let given = runtime::variables::take(&VARIABLES)?;
    GIVEN.get_or_init(|| given);
    Ok(())
}

/// What was taken, for a program that takes the place of this one in the same process.
pub(crate) fn given() -> &'static [(&'static str, OsString)] {
    GIVEN.get().map_or(&[], Vec::as_slice)
}

fn of(name: &str) -> Option<&'static OsStr> {
    given().iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_os_str())
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves.
    Ready,
    /// It ends.
    Stopping,
    /// It works still.
    Alive,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
            Self::Alive => "WATCHDOG=1",
        }
    }
}

/// Tells the service manager, where it has started this process and wants to hear.
pub(crate) fn tell(state: State) {
    let Some(socket) = of("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(socket, state) {
        tracing::warn!(%error, state = state.text(), "the service manager cannot be told");
    }
}

/// Never waits: what the manager does not read in time is lost.
fn send(socket: &OsStr, state: State) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.text().as_bytes(), &address).map(drop)
}

/// Says that the process serves, and from now on that it works still, if the manager ends it otherwise (`WatchdogSec=`).
pub(crate) fn serves(tasks: &Tasks) {
    tell(State::Ready);
    let text = |name: &str| of(name).and_then(OsStr::to_str);
    let Some(every) = period(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id()) else { return };
    tasks.spawn_until_cancelled("watchdog", OnFailure::Log, keep_alive(every));
}

async fn keep_alive(every: Duration) -> Result<(), Infallible> {
    let mut turns = tokio::time::interval(every);
    loop {
        turns.tick().await;
        tell(State::Alive);
    }
}

/// How often the manager is told: twice in the time that it waits (sd_watchdog_enabled(3)). None where it waits for another process, or none.
fn period(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let micros = micros?.parse::<u64>().ok().filter(|micros| *micros > 1)?;
    Some(Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(listener: &UnixDatagram, socket: &OsStr) {
        for (state, expected) in [(State::Ready, "READY=1"), (State::Alive, "WATCHDOG=1"), (State::Stopping, "STOPPING=1")] {
            send(socket, state).unwrap();
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
    }

    /// sd_notify(3): $NOTIFY_SOCKET is a path, or a name of the abstract namespace when it begins with @.
    #[test]
    fn managers_are_told_by_either_kind_of_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        check(&UnixDatagram::bind(&path).unwrap(), path.as_os_str());
        let name = format!("knarr-systemd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&UnixDatagram::bind_addr(&address).unwrap(), OsStr::new(&format!("@{name}")));
        assert!(send(OsStr::new("/nonexistent/notify"), State::Ready).is_err());
    }

    #[test]
    fn the_manager_hears_twice_in_the_time_that_it_waits() {
        let check = |micros: Option<&str>, pid: Option<&str>, expected: Option<u64>| {
            assert_eq!(period(micros, pid, 7), expected.map(Duration::from_millis), "{micros:?} {pid:?}");
        };
        check(Some("30000000"), Some("7"), Some(15_000));
        check(Some("30000000"), None, Some(15_000));
        check(Some("30000000"), Some("8"), None);
        check(Some("0"), None, None);
        check(Some("soon"), None, None);
        check(None, None, None);
    }
}
