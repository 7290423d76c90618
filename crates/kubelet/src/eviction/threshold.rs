//! Below what something is short, in the words of the kubelet's options (`--eviction-hard` and the like).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use apimachinery::quantity::Quantity;

use super::signal::Signal;

/// Room on a disk that is enough on any disk, bytes. A tenth of a big disk, or of a file system whose quota is smaller than what it shows
/// as its size, is plenty: unlike upstream's, the default thresholds of disks are never above this.
const ENOUGH_DISK: i64 = 1 << 30;

/// An amount, or a part of the capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, inodes or processes.
    Absolute(i64),
    /// Percent of the capacity, and no more than so much.
    Percent(f64, i64),
}

impl Amount {
    const NONE: Self = Self::Absolute(0);

    fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Absolute(amount) => amount,
            // A float has more digits than any capacity is measured with.
            Self::Percent(percent, most) => ((capacity as f64 * percent / 100.0) as i64).min(most),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => percent
                .parse()
                .ok()
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(|percent| Self::Percent(percent, i64::MAX)),
            None => {
                Quantity::parse(text).ok().filter(|amount| amount.signum() >= 0).map(|amount| Self::Absolute(amount.as_i64()))
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(amount) => write!(f, "{amount}"),
            Self::Percent(percent, _) => write!(f, "{percent}%"),
        }
    }
}

/// A signal below an amount.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What is looked at.
    pub signal: Signal,
    /// Less than this is short.
    pub amount: Amount,
    /// How long it must be short before a pod has to go; zero for a hard threshold.
    pub grace: Duration,
    /// How much more there must be before it is over.
    pub reclaim: Amount,
}

impl Threshold {
    fn hard(signal: Signal, amount: Amount) -> Self {
        Self { signal, amount, grace: Duration::ZERO, reclaim: Amount::NONE }
    }

    /// Whether it follows from another one, and is no setting of its own.
    pub fn is_derived(&self) -> bool {
        self.signal == Signal::AllocatableMemoryAvailable
    }

    /// The amount as options have it.
    pub fn limit_text(&self) -> String {
        self.amount.to_string()
    }

    /// How much more is to be given back, as options have it; none where that is nothing.
    pub fn reclaim_text(&self) -> Option<String> {
        (self.reclaim != Amount::NONE).then(|| self.reclaim.to_string())
    }

    /// Whether pods go at once.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }

    /// The amount below which it is short.
    pub fn quantity(&self, capacity: i64) -> i64 {
        self.amount.of(capacity)
    }

    /// The amount at which it is over, once it was short.
    pub fn goal(&self, capacity: i64) -> i64 {
        self.quantity(capacity).saturating_add(self.reclaim.of(capacity))
    }
}

/// How a node evicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What is short when.
    pub thresholds: Vec<Threshold>,
    /// How often it is looked whether something is short.
    pub period: Duration,
    /// How long a condition is kept after it was met last.
    pub transition: Duration,
    /// Longest grace period of a pod that goes for a soft threshold.
    pub max_pod_grace: Duration,
}

/// Upstream's.
const PERIOD: Duration = Duration::from_secs(10);
/// Upstream's default.
const TRANSITION: Duration = Duration::from_secs(300);

impl Default for Settings {
    fn default() -> Self {
        let percent = |percent: f64| Amount::Percent(percent, i64::MAX);
        let thresholds = vec![
            Threshold::hard(Signal::MemoryAvailable, Amount::Absolute(100 << 20)),
            Threshold::hard(Signal::NodeFsAvailable, Amount::Percent(10.0, ENOUGH_DISK)),
            Threshold::hard(Signal::NodeFsInodesFree, percent(5.0)),
            Threshold::hard(Signal::ImageFsAvailable, Amount::Percent(15.0, ENOUGH_DISK)),
            Threshold::hard(Signal::ImageFsInodesFree, percent(5.0)),
            Threshold::hard(Signal::PidAvailable, percent(5.0)),
        ];
        Self { thresholds: with_allocatable(thresholds), period: PERIOD, transition: TRANSITION, max_pod_grace: Duration::ZERO }
    }
}

/// Pods together are limited, and must not come to their limit either.
fn with_allocatable(mut thresholds: Vec<Threshold>) -> Vec<Threshold> {
    let memory = thresholds.iter().find(|threshold| threshold.signal == Signal::MemoryAvailable && threshold.is_hard());
    let added = memory.map(|memory| Threshold { signal: Signal::AllocatableMemoryAvailable, ..memory.clone() });
    thresholds.extend(added);
    thresholds
}

/// The options, as they are written; none where nobody says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts<'a> {
    /// `memory.available<100Mi,nodefs.available<10%`
    pub hard: Option<&'a str>,
    /// As `hard`.
    pub soft: Option<&'a str>,
    /// `memory.available=1m30s`
    pub soft_grace: Option<&'a str>,
    /// `memory.available=50Mi`
    pub minimum_reclaim: Option<&'a str>,
}

/// Why options of eviction cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// One of the options cannot be read.
    #[error("{0}: {1}")]
    Option(&'static str, Fault),
    /// A soft threshold without its grace period.
    #[error("the soft threshold of {0} needs a grace period, such as --eviction-soft-grace-period {0}=1m30s")]
    Grace(&'static str),
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a list of such items.
    #[error("{0:?} is not of the form {1}")]
    Form(String, &'static str),
    /// There is no such signal.
    #[error(
        "there is no eviction signal {0:?}: it is one of memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available"
    )]
    Signal(String),
    /// Not an amount.
    #[error("{0:?} is no amount: expected something like 100Mi or 10%")]
    Amount(String),
}

fn signal(name: &str) -> Result<Signal, Fault> {
    Signal::SETTABLE.into_iter().find(|signal| signal.name() == name).ok_or_else(|| Fault::Signal(name.to_owned()))
}

/// Items of a list with commas, each a signal and what follows `separator`.
fn items<'a>(text: &'a str, separator: char, form: &'static str) -> Result<Vec<(Signal, &'a str)>, Fault> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (name, value) = item.split_once(separator).ok_or_else(|| Fault::Form(item.to_owned(), form))?;
            Ok((signal(name.trim())?, value.trim()))
        })
        .collect()
}

fn amounts(text: &str, separator: char, form: &'static str) -> Result<Vec<(Signal, Amount)>, Fault> {
    let amount = |(signal, value): (Signal, &str)| {
        Amount::parse(value).map(|amount| (signal, amount)).ok_or_else(|| Fault::Amount(value.to_owned()))
    };
    items(text, separator, form)?.into_iter().map(amount).collect()
}

/// The amounts of thresholds. One of nothing switches its signal off, and so does one of all, of which every disk would be short, as upstream has it.
fn thresholds(text: &str) -> Result<impl Iterator<Item = (Signal, Amount)>, Fault> {
    let is_one = |amount: &Amount| match amount {
        Amount::Absolute(amount) => *amount > 0,
        Amount::Percent(percent, _) => *percent > 0.0 && *percent < 100.0,
    };
    Ok(amounts(text, '<', "SIGNAL<AMOUNT")?.into_iter().filter(move |(_, amount)| is_one(amount)))
}

fn graces(text: &str) -> Result<BTreeMap<Signal, Duration>, Fault> {
    let grace = |(signal, text): (Signal, &str)| {
        let duration = apimachinery::time::parse_duration(text).and_then(|duration| Duration::try_from(duration).ok());
        let form = || Fault::Form(text.to_owned(), "1m30s");
        Ok((signal, duration.filter(|duration| !duration.is_zero()).ok_or_else(form)?))
    };
    items(text, '=', "SIGNAL=DURATION")?.into_iter().map(grace).collect()
}

impl Settings {
    /// Reads the options. `hard` stands for all hard thresholds; none has upstream's default ones.
    ///
    /// # Errors
    /// One is malformed, or a soft threshold has no grace period.
    pub fn parse(texts: &Texts<'_>, transition: Option<Duration>, max_pod_grace: Duration) -> Result<Self, SettingsError> {
        let of = |option| move |fault| SettingsError::Option(option, fault);
        let mut thresholds = match texts.hard {
            Some(text) => {
                let stated = self::thresholds(text).map_err(of("--eviction-hard"))?;
                stated.map(|(signal, amount)| Threshold::hard(signal, amount)).collect()
            }
            None => Self::default().thresholds,
        };
        thresholds.retain(|threshold| threshold.signal != Signal::AllocatableMemoryAvailable);
        let graces = graces(texts.soft_grace.unwrap_or_default()).map_err(of("--eviction-soft-grace-period"))?;
        for (signal, amount) in self::thresholds(texts.soft.unwrap_or_default()).map_err(of("--eviction-soft"))? {
            let grace = *graces.get(&signal).ok_or(SettingsError::Grace(signal.name()))?;
            thresholds.push(Threshold { grace, ..Threshold::hard(signal, amount) });
        }
        let reclaims = amounts(texts.minimum_reclaim.unwrap_or_default(), '=', "SIGNAL=AMOUNT");
        for (signal, amount) in reclaims.map_err(of("--eviction-minimum-reclaim"))? {
            let of_signal = thresholds.iter_mut().filter(|threshold| threshold.signal == signal);
            of_signal.for_each(|threshold| threshold.reclaim = amount);
        }
        let transition = transition.unwrap_or(TRANSITION);
        Ok(Self { thresholds: with_allocatable(thresholds), period: PERIOD, transition, max_pod_grace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(hard: Option<&str>, soft: &str, grace: &str, reclaim: &str) -> Result<Settings, SettingsError> {
        let texts = Texts { hard, soft: Some(soft), soft_grace: Some(grace), minimum_reclaim: Some(reclaim) };
        Settings::parse(&texts, None, Duration::ZERO)
    }

    /// Thresholds as text, for a capacity of 1000.
    #[track_caller]
    fn check(hard: Option<&str>, soft: &str, grace: &str, reclaim: &str, expected: Result<&[&str], &str>) {
        let shown = parse(hard, soft, grace, reclaim).map(|settings| {
            let text = |threshold: &Threshold| {
                let (low, high, grace) = (threshold.quantity(1000), threshold.goal(1000), threshold.grace.as_secs());
                format!("{} {low} {high} {grace}s", threshold.signal.name())
            };
            settings.thresholds.iter().map(text).collect::<Vec<_>>()
        });
        let expected = expected.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect());
        assert_eq!(shown.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn options() {
        check(
            Some("nodefs.available<10%, pid.available<5"),
            "",
            "",
            "",
            Ok(&["nodefs.available 100 100 0s", "pid.available 5 5 0s"]),
        );
        let both = ["memory.available 100 120 0s", "allocatableMemory.available 100 120 0s"];
        check(Some("memory.available<100"), "", "", "memory.available=20", Ok(&both));
        let soft = ["memory.available 100 110 90s"];
        check(Some(""), "memory.available<100", "memory.available=1m30s", "memory.available=1%", Ok(&soft));
        let all = ["nodefs.available 100 1100 0s"];
        check(Some("nodefs.available<10%"), "", "", "nodefs.available=100%", Ok(&all));
        // As upstream, which ignores both ends: none of a disk is short of all of it.
        check(Some(""), "nodefs.available<0%,imagefs.available<100%", "", "", Ok(&[]));
        check(Some("memory.available<0"), "", "", "", Ok(&[]));
        check(Some("nodefs.available<0%,imagefs.available<100%"), "", "", "", Ok(&[]));
    }

    #[test]
    fn faults_of_options_are_told() {
        let grace = "the soft threshold of memory.available needs a grace period, such as --eviction-soft-grace-period memory.available=1m30s";
        check(Some(""), "memory.available<100", "", "", Err(grace));
        let form = "\"memory.available=1\" is not of the form SIGNAL<AMOUNT";
        check(Some("memory.available=1"), "", "", "", Err(&format!("--eviction-hard: {form}")));
        check(Some(""), "memory.available=1", "", "", Err(&format!("--eviction-soft: {form}")));
        let amount = |text: &str| format!("--eviction-hard: {text:?} is no amount: expected something like 100Mi or 10%");
        check(Some("memory.available<x"), "", "", "", Err(&amount("x")));
        check(Some("memory.available<-1"), "", "", "", Err(&amount("-1")));
        check(Some("memory.available<101%"), "", "", "", Err(&amount("101%")));
        check(Some(""), "", "memory.available=x", "", Err("--eviction-soft-grace-period: \"x\" is not of the form 1m30s"));
        let reclaim = "--eviction-minimum-reclaim: \"foo\" is not of the form SIGNAL=AMOUNT";
        check(Some(""), "", "", "foo", Err(reclaim));
        assert!(matches!(parse(Some("containerfs.available<1"), "", "", ""),
            Err(SettingsError::Option(_, Fault::Signal(name))) if name == "containerfs.available"));
    }

    #[test]
    fn a_default_of_a_disk_is_at_most_what_is_plenty() {
        let disk =
            Settings::default().thresholds.into_iter().find(|threshold| threshold.signal == Signal::NodeFsAvailable).unwrap();
        assert_eq!(disk.quantity(252 << 30), 1 << 30);
        assert_eq!(disk.quantity(2 << 30), 214_748_364);
        assert_eq!(Settings::parse(&Texts::default(), None, Duration::ZERO), Ok(Settings::default()));
    }
}
