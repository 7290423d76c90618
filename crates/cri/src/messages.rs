//! Messages of `runtime.v1.RuntimeService` and `runtime.v1.ImageService`, with their names and numbers (kubernetes/cri-api, `api.proto` of
//! Kubernetes 1.36). Those for Windows are left out: a reader of protobuf skips what it does not know.
//!
//! | module | what |
//! |---|---|
//! | [`calls`] | which request has which answer |

pub mod calls;
mod container;
mod events;
mod images;
mod names;
mod resources;
mod runtime;
mod sandbox;
mod security;
mod signal;
mod stats;
mod streams;

use std::fmt;

pub use container::*;
pub use events::*;
pub use images::*;
pub use names::*;
pub use resources::*;
pub use runtime::*;
pub use sandbox::*;
pub use security::*;
pub use signal::*;
pub use stats::*;
pub use streams::*;

/// Secrets are not shown.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { username, server_address, .. } = self;
        f.debug_struct("AuthConfig").field("username", username).field("server_address", server_address).finish_non_exhaustive()
    }
}

impl Signal {
    /// As images and pods have it, such as `SIGTERM` or `SIGRTMIN+3`; none is for the runtime to choose.
    pub fn name(self) -> Option<String> {
        let name = format!("{self:?}").to_ascii_uppercase();
        (self != Self::RuntimeDefault).then(|| name.replace("PLUS", "+").replace("MINUS", "-"))
    }

    /// The signal of a name, with `SIG` before it or not.
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let wanted = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        (1..=Self::SigRtmax as i32)
            .filter_map(|number| Self::try_from(number).ok())
            .find(|signal| signal.name().as_ref() == Some(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_that_images_use() {
        let check = |signal: Signal, number: i32, name: Option<&str>| {
            assert_eq!((signal as i32, signal.name().as_deref()), (number, name));
            assert_eq!(name.and_then(Signal::named), name.map(|_| signal));
        };
        check(Signal::RuntimeDefault, 0, None);
        check(Signal::SigKill, 13, Some("SIGKILL"));
        check(Signal::SigTerm, 23, Some("SIGTERM"));
        check(Signal::SigUsr1, 29, Some("SIGUSR1"));
        check(Signal::SigRtminPlus15, 50, Some("SIGRTMIN+15"));
        check(Signal::SigRtmaxMinus14, 51, Some("SIGRTMAX-14"));
        check(Signal::SigRtmax, 65, Some("SIGRTMAX"));
        assert_eq!(Signal::named("winch"), Some(Signal::SigWinch));
        assert_eq!(Signal::named("SIGNOT"), None);
        // The engine sends each of them, here to a process that there cannot be (proc(5), pid_max).
        for name in (1..=65).filter_map(|number| Signal::try_from(number).ok()?.name()) {
            assert!(::runtime::send_signal(i32::MAX, &name).is_ok(), "{name}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let auth =
            AuthConfig { username: "u".to_owned(), password: "p4ss".to_owned(), auth: "p4ss".to_owned(), ..Default::default() };
        let shown = format!("{:?}", PullImageRequest { auth: Some(auth), ..Default::default() });
        assert!(shown.contains("\"u\"") && !shown.contains("p4ss"), "{shown}");
    }
}
