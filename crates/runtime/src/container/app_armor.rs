//! AppArmor profiles of containers (apparmor.d(5)): which one a container has, and the runtime's own.
//!
//! Profiles are loaded by administrators. The runtime loads its own by apparmor_parser, since the kernel takes compiled ones only.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::programs::{self, Limits};
use tokio::sync::Mutex;

use crate::api::{AppArmor, Error, Result, SecurityContext};
use crate::images::blocking;

/// The directory of AppArmor in the kernel's file system `securityfs`.
const KERNEL: &str = "/sys/kernel/security/apparmor";
/// The name of the runtime's own profile.
const OWN: &str = "knarr-default";
const PARSER: &str = "apparmor_parser";
/// What rules mean: without it, newer parsers deny what older kernels and profiles do not know of.
const ABI: &str = "abi/3.0";
/// The parser takes some hundredths of a second.
const LIMITS: Limits = Limits { time: Duration::from_secs(60), answer: 64 << 10 };
/// How long after the parser has failed it is tried again for containers that have not asked for a profile.
const PAUSE: Duration = Duration::from_secs(60);

/// Whether this machine confines programs by AppArmor profiles: its kernel does, and shows them.
pub fn has_app_armor() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with('Y')) && Path::new(KERNEL).is_dir()
}

/// The profiles of this machine.
pub(crate) struct Profiles {
    is_enabled: bool,
    /// Directories of programs, as in PATH.
    programs: OsString,
    own: Mutex<Own>,
}

/// What has become of the runtime's own profile.
enum Own {
    New,
    Loaded,
    /// Why, and when it is tried again for anybody.
    Failed(String, Instant),
}

impl Own {
    /// Why the profile is not there.
    fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(why, _) => Some(why),
            Self::New | Self::Loaded => None,
        }
    }

    /// Takes the place of what was, which the node's log tells where it is something else.
    fn replace(&mut self, next: Self) {
        match (self.failure(), next.failure()) {
            (before, Some(error)) if before != Some(error) => {
                tracing::warn!(error, "the default AppArmor profile is not loaded: containers that name none have none");
            }
            (Some(_), None) => tracing::info!("the default AppArmor profile is loaded: new containers that name none have it"),
            _ => {}
        }
        *self = next;
    }
}

/// What a container is to have.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    None,
    /// The runtime's own profile. A container that has not asked for it runs without where the machine cannot load it.
    Own {
        is_asked_for: bool,
    },
    Named(&'a str),
}

/// As containerd: privileged containers have a profile only where they name one.
fn choose(security: &SecurityContext, is_enabled: bool) -> Result<Choice<'_>> {
    match &security.app_armor {
        Some(AppArmor::Unconfined) => Ok(Choice::None),
        None if !is_enabled => Ok(Choice::None),
        Some(_) if !is_enabled => Err(Error::Create("an AppArmor profile: AppArmor is not enabled on this node".to_owned())),
        Some(AppArmor::Localhost(name)) => Ok(Choice::Named(name)),
        None | Some(AppArmor::RuntimeDefault) if security.privileged => Ok(Choice::None),
        asked => Ok(Choice::Own { is_asked_for: asked.is_some() }),
    }
}

impl Profiles {
    pub(crate) fn detect() -> Self {
        let programs = std::env::var_os("PATH").unwrap_or_default();
        Self { is_enabled: has_app_armor(), programs, own: Mutex::new(Own::New) }
    }

    /// Loads the runtime's own profile ahead of the first container, where there is AppArmor. A failure is logged.
    pub(crate) async fn prepare(&self) {
        if self.is_enabled {
            let _ = self.load_own(false).await;
        }
    }

    /// The name of the profile for a container; none where it has none. What it names is loaded.
    ///
    /// # Errors
    /// What it asks for is not there.
    pub(crate) async fn of_container(&self, security: &SecurityContext) -> Result<Option<String>> {
        match choose(security, self.is_enabled)? {
            Choice::None => Ok(None),
            Choice::Named(name) => match is_loaded(name).await? {
                Ok(true) => Ok(Some(name.to_owned())),
                Ok(false) => Err(Error::Create(not_loaded(name))),
                Err(error) => Err(Error::Create(format!("reading the loaded AppArmor profiles: {error}"))),
            },
            Choice::Own { is_asked_for } => match self.load_own(is_asked_for).await {
                Ok(()) => Ok(Some(OWN.to_owned())),
                Err(_) if !is_asked_for => Ok(None),
                Err(error) => Err(Error::Create(format!("the default AppArmor profile: {error}"))),
            },
        }
    }

    /// Sees to it that the runtime's own profile is loaded: once by every process, since the one that is there may be that of another
    /// version, and again when somebody has taken it away. What failed is tried again after a time, and at once for who asks for it.
    async fn load_own(&self, is_asked_for: bool) -> std::result::Result<(), String> {
        let mut own = self.own.lock().await;
        match &*own {
            Own::Loaded if matches!(is_loaded(OWN).await, Ok(Ok(true))) => return Ok(()),
            Own::Failed(error, again) if !is_asked_for && Instant::now() < *again => return Err(error.clone()),
            _ => {}
        }
        let parser = find(&self.programs);
        let loaded = match &parser {
            Some(parser) => load(parser, &text(Path::new("/etc/apparmor.d").join(ABI).exists())).await,
            None => Err(format!("install the program {PARSER} on this node (package apparmor)")),
        };
        // Where there is none, one may be installed at any time, and to look for it costs little.
        let pause = if parser.is_some() { PAUSE } else { Duration::ZERO };
        own.replace(match &loaded {
            Ok(()) => Own::Loaded,
            Err(error) => Own::Failed(error.clone(), Instant::now() + pause),
        });
        loaded
    }
}

/// In words for people.
fn not_loaded(name: &str) -> String {
    format!("AppArmor profile {name:?} is not loaded on this node: load it there with {PARSER}")
}

/// Has the AppArmor profile put on the program that this process, or the child that it forks, becomes. Written before the container's
/// namespaces are joined: what lies at /proc in there may be of the container's own making.
pub(super) fn confine_next(profile: &str) -> std::result::Result<(), String> {
    // With several security modules `attr/exec` belongs to the first; `attr/apparmor/exec` is AppArmor's own.
    let files = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"].map(Path::new);
    let file = files.into_iter().find(|file| file.exists()).ok_or("AppArmor is not enabled on this node")?;
    std::fs::write(file, format!("exec {profile}")).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => not_loaded(profile),
        _ => format!("AppArmor profile {profile:?}: {error}"),
    })
}

async fn is_loaded(name: &str) -> Result<io::Result<bool>> {
    let name = name.to_owned();
    let read = move || {
        let list = std::fs::read(Path::new(KERNEL).join("profiles"))?;
        Ok(lists(&String::from_utf8_lossy(&list), &name))
    };
    blocking(read).await
}

/// Whether the kernel's list has this profile: a line for each, with its mode in parentheses at the end.
fn lists(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(listed, _)| listed == name))
}

/// The parser is in a directory of administrators, which is not in everybody's PATH.
fn find(path: &OsStr) -> Option<PathBuf> {
    let others = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(path).chain(others).map(|dir| dir.join(PARSER)).find(|file| file.is_absolute() && file.is_file())
}

/// The source of the runtime's own profile.
fn text(has_abi: bool) -> String {
    let abi = if has_abi { format!("abi <{ABI}>,") } else { String::new() };
    include_str!("app_armor/default.profile").replace("@ABI@", &abi).replace("@NAME@", OWN)
}

async fn load(parser: &Path, profile: &str) -> std::result::Result<(), String> {
    let mut command = tokio::process::Command::new(parser);
    command.args(["--replace", "--skip-cache"]);
    let mut complaint = Vec::new();
    let failed = |why: String| format!("{}: {why}", parser.display());
    match programs::ask(command, profile.as_bytes(), LIMITS, &mut complaint).await {
        Ok((status, _)) if status.success() => Ok(()),
        Ok((status, _)) => Err(failed(format!("{status}: {}", String::from_utf8_lossy(&complaint).trim()))),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn who_has_which_profile() {
        let named = || Some(AppArmor::Localhost("p".to_owned()));
        let check = |app_armor: Option<AppArmor>, privileged: bool, expected: Choice<'_>, without: Option<Choice<'_>>| {
            let security = SecurityContext { app_armor, privileged, ..SecurityContext::default() };
            assert_eq!(choose(&security, true).unwrap(), expected, "{security:?}");
            assert_eq!(choose(&security, false).ok(), without, "{security:?}");
        };
        check(None, false, Choice::Own { is_asked_for: false }, Some(Choice::None));
        check(None, true, Choice::None, Some(Choice::None));
        check(Some(AppArmor::Unconfined), false, Choice::None, Some(Choice::None));
        check(Some(AppArmor::RuntimeDefault), false, Choice::Own { is_asked_for: true }, None);
        check(Some(AppArmor::RuntimeDefault), true, Choice::None, None);
        check(named(), false, Choice::Named("p"), None);
        check(named(), true, Choice::Named("p"), None);
    }

    #[test]
    fn the_kernels_list() {
        let list = "k8s-deny (enforce)\na b (c) (complain)\n:ns://inner (enforce)\n";
        let check = |name: &str, expected: bool| assert_eq!(lists(list, name), expected, "{name}");
        check("k8s-deny", true);
        check("a b (c)", true);
        check(":ns://inner", true);
        for other in ["", "k8s", "a b", "k8s-deny (enforce)", "unconfined", "k8s-deny//&a b (c)", "k8s-deny (enforce)\na b (c)"] {
            check(other, false);
        }
    }

    /// Makes a program of it.
    fn write(parser: &Path, script: &str) {
        std::fs::write(parser, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(parser, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A parser that was late when the node started is no reason to confine nothing until it starts again.
    #[tokio::test]
    async fn what_has_failed_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let parser = directory.path().join(PARSER);
        let programs = directory.path().as_os_str().to_owned();
        let profiles = Profiles { is_enabled: true, programs, own: Mutex::new(Own::New) };
        let fails = async |is_asked_for: bool, why: &str| {
            let error = profiles.load_own(is_asked_for).await.unwrap_err();
            assert!(error.ends_with(why), "{error}");
            assert_eq!(profiles.own.lock().await.failure(), Some(error.as_str()));
        };
        let wait = async || {
            let mut own = profiles.own.lock().await;
            let Own::Failed(why, again) = &*own else { panic!("nothing has failed") };
            assert!(*again > Instant::now());
            *own = Own::Failed(why.clone(), Instant::now());
        };
        write(&parser, "echo one >&2; exit 1");
        fails(false, "one").await;
        write(&parser, "echo two >&2; exit 1");
        fails(false, "one").await;
        fails(true, "two").await;
        write(&parser, "echo three >&2; exit 1");
        fails(false, "two").await;
        wait().await;
        fails(false, "three").await;
        write(&parser, "cat >/dev/null");
        fails(false, "three").await;
        wait().await;
        profiles.load_own(false).await.unwrap();
        assert_eq!(profiles.own.lock().await.failure(), None);
        std::fs::remove_file(&parser).unwrap();
        if find(&profiles.programs).is_none() {
            *profiles.own.lock().await = Own::New;
            fails(false, "(package apparmor)").await;
            write(&parser, "cat >/dev/null");
            profiles.load_own(false).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_parser_reads_the_profile_and_says_why_it_fails() {
        let directory = tempfile::tempdir().unwrap();
        let parser = directory.path().join(PARSER);
        assert_ne!(find(directory.path().as_os_str()).as_ref(), Some(&parser));
        let seen = directory.path().join("seen");
        write(&parser, &format!("echo \"$@\" >{0}; cat >>{0}", seen.display()));
        assert_eq!(find(directory.path().as_os_str()), Some(parser.clone()));
        load(&parser, &text(true)).await.unwrap();
        let said = std::fs::read_to_string(&seen).unwrap();
        assert!(said.starts_with("--replace --skip-cache\nabi <abi/3.0>,\n"), "{said}");
        assert!(said.contains("\nprofile knarr-default flags=") && said.ends_with("}\n") && !said.contains('@'), "{said}");
        assert!(!text(false).contains("abi <"));
        write(&parser, "echo 'syntax error' >&2; exit 1");
        let error = load(&parser, "").await.unwrap_err();
        assert_eq!(error, format!("{}: exit status: 1: syntax error", parser.display()));
    }
}
