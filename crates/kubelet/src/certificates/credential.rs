//! The life of one certificate of a pod: asked for, issued, asked for again before it ends. Pure.

use jiff::{SignedDuration, Timestamp};

use super::request::Answer;

/// A refresh begins so much later at most, so that pods which began together do not ask together for ever (KEP-4317: "a randomized jitter of up to
/// five minutes").
const JITTER: SignedDuration = SignedDuration::from_mins(5);
/// A certificate that is not renewed so long after its time is told of.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);
/// Least time between two requests: somebody may remove them as they come.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// Time until a request that could not be made is tried again, while the certificate before is still good.
const RETRY: SignedDuration = SignedDuration::from_secs(60);

/// A key and the certificate for it, as the volume shows them; both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The private key.
    pub key: String,
    /// The certificate, and those that lead to it.
    pub chain: String,
}

struct Issued {
    pair: Pair,
    refresh: Timestamp,
    until: Timestamp,
}

struct Asked {
    key: String,
    /// The request's name and UID.
    name: String,
    uid: String,
    /// The resource version at which the request was there.
    version: u64,
}

/// A request as it was made.
pub struct Made {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub version: u64,
}

/// What is known of the request that was made.
pub enum Seen {
    /// It is there, and this has become of it; with its UID.
    There(String, Answer),
    /// It is not there, in a view of the API as of this resource version.
    Missing(u64),
}

/// What is told of a certificate: reason and message of an event.
pub type Told = (&'static str, String);

/// One certificate.
#[derive(Default)]
pub struct Credential {
    issued: Option<Issued>,
    asked: Option<Asked>,
    /// Why there will be no other one.
    refused: Option<String>,
    /// No request is made before.
    pause: Option<Timestamp>,
    told_overdue: bool,
    told_expired: bool,
}

fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// When a new certificate is asked for: between the time that the signer says and the middle of what is left then, by a number from 0 to 1.
fn refresh_at(begin: Timestamp, until: Timestamp, random: f64) -> Timestamp {
    let most = JITTER.min(until.duration_since(begin) / 2).max(SignedDuration::ZERO);
    after(begin, most.mul_f64(random.clamp(0.0, 1.0)))
}

impl Credential {
    /// The request whose end is waited for.
    pub fn awaited(&self) -> Option<&str> {
        self.asked.as_ref().map(|asked| asked.name.as_str())
    }

    /// Takes in what has become of the request that was made. `random` is from 0 to 1.
    pub fn see(&mut self, seen: Seen, now: Timestamp, random: f64) -> Option<Told> {
        let asked = self.asked.take()?;
        match seen {
            Seen::There(uid, _) if uid != asked.uid => {}
            Seen::There(_, Answer::Open) => self.asked = Some(asked),
            // What shows the API may not have come so far.
            Seen::Missing(version) if version < asked.version => self.asked = Some(asked),
            Seen::Missing(_) => {}
            Seen::There(_, Answer::Issued { chain, refresh, until }) => {
                let refresh = refresh_at(refresh, until, random);
                // A signer that says so would be asked again at once.
                self.pause = Some(after(now, PAUSE));
                self.issued = Some(Issued { pair: Pair { key: asked.key, chain }, refresh, until });
                (self.told_overdue, self.told_expired) = (false, false);
            }
            Seen::There(_, Answer::Refused { condition, message }) => {
                self.refused = Some(message.clone());
                return Some((condition, message));
            }
        }
        None
    }

    /// Whether a request is to be made now.
    pub fn is_wanted(&self, now: Timestamp) -> bool {
        self.wanted_at(now).is_some_and(|at| at <= now)
    }

    /// When a request is to be made; none when one is under way, or makes no sense.
    fn wanted_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.asked.is_some() || self.refused.is_some() {
            return None;
        }
        let refresh = self.issued.as_ref().map_or(Timestamp::MIN, |issued| issued.refresh);
        // One that would last longer than any does is of before the clock was set back.
        let pause = self.pause.filter(|pause| *pause <= after(now, RETRY.max(PAUSE)));
        Some(pause.map_or(refresh, |pause| pause.max(refresh)))
    }

    /// A request was made, for this key.
    pub fn asked(&mut self, key: String, made: Made, now: Timestamp) {
        let Made { name, uid, version } = made;
        self.asked = Some(Asked { key, name, uid, version });
        self.pause = Some(after(now, PAUSE));
    }

    /// A request could not be made. An error when nothing is left to show.
    pub fn not_asked(&mut self, why: String, now: Timestamp) -> Result<(), String> {
        if self.issued.as_ref().is_some_and(|issued| now < issued.until) {
            self.pause = Some(after(now, RETRY));
            return Ok(());
        }
        Err(why)
    }

    /// The key and certificate to show; the error is why there are none. What has expired is not shown any more: "it's better for the pod to
    /// noisily go unhealthy than to continue to run with an expired certificate" (KEP-4317).
    pub fn pair(&self, now: Timestamp) -> Result<&Pair, String> {
        match (&self.issued, &self.refused) {
            (Some(issued), _) if now < issued.until => Ok(&issued.pair),
            (_, Some(refused)) => Err(refused.clone()),
            (Some(_), None) => Err("the certificate has expired, and there is no new one yet".to_owned()),
            (None, None) => Err(match self.awaited() {
                Some(name) => format!("PodCertificateRequest {name} has no answer of its signer yet"),
                None => "the certificate is not asked for yet".to_owned(),
            }),
        }
    }

    /// What is to be told now, once.
    pub fn tell(&mut self, now: Timestamp) -> Option<Told> {
        let issued = self.issued.as_ref()?;
        if now >= issued.until {
            let told = std::mem::replace(&mut self.told_expired, true);
            return (!told).then(|| ("CertificateExpired", "PodCertificate expired".to_owned()));
        }
        if now >= after(issued.refresh, OVERDUE) {
            let told = std::mem::replace(&mut self.told_overdue, true);
            return (!told).then(|| ("CertificateOverdueForRefresh", "PodCertificate refresh overdue".to_owned()));
        }
        None
    }

    /// When to look again, if nothing happens before.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let told = self.issued.as_ref().map(|issued| [after(issued.refresh, OVERDUE), issued.until]);
        let told = told.into_iter().flatten().filter(|at| *at > now);
        told.chain(self.wanted_at(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn made(name: &str, version: u64) -> Made {
        Made { name: name.to_owned(), uid: format!("uid-{name}"), version }
    }

    fn there(name: &str, answer: Answer) -> Seen {
        Seen::There(format!("uid-{name}"), answer)
    }

    fn issued(chain: &str, refresh: i64, until: i64) -> Answer {
        Answer::Issued { chain: chain.to_owned(), refresh: at(refresh), until: at(until) }
    }

    fn refused() -> Answer {
        Answer::Refused { condition: "Denied", message: "no".to_owned() }
    }

    /// One that was issued at 0, is renewed at 1000 and ends at 3600.
    fn first() -> Credential {
        let mut credential = Credential::default();
        assert!(credential.is_wanted(at(0)));
        credential.asked("key 1".to_owned(), made("a", 5), at(0));
        assert_eq!(credential.see(there("a", issued("chain 1", 1000, 3600)), at(0), 0.0), None);
        credential
    }

    fn shown(credential: &Credential, now: i64) -> Result<(&str, &str), String> {
        credential.pair(at(now)).map(|pair| (pair.key.as_str(), pair.chain.as_str()))
    }

    #[test]
    fn a_certificate_is_waited_for() {
        let mut credential = Credential::default();
        assert_eq!(shown(&credential, 0), Err("the certificate is not asked for yet".to_owned()));
        credential.asked("key".to_owned(), made("a", 5), at(0));
        assert!(!credential.is_wanted(at(99)) && credential.due(at(99)).is_none(), "an event tells of the answer");
        // The view of the API is older than the request.
        credential.see(Seen::Missing(4), at(0), 0.0);
        credential.see(there("a", Answer::Open), at(0), 0.0);
        assert_eq!(shown(&credential, 0), Err("PodCertificateRequest a has no answer of its signer yet".to_owned()));
        credential.see(there("a", issued("chain", 1000, 3600)), at(0), 0.0);
        assert_eq!(shown(&credential, 0), Ok(("key", "chain")));
        assert_eq!(credential.awaited(), None);
    }

    /// Somebody removes the request, or puts another one in its place: there is a new one, not at once.
    #[test]
    fn a_clock_that_is_set_back_stops_no_request() {
        let mut credential = Credential::default();
        credential.asked("key".to_owned(), made("a", 5), at(10_000));
        credential.see(Seen::Missing(5), at(10_000), 0.0);
        assert!(!credential.is_wanted(at(10_000)) && credential.is_wanted(at(10_010)));
        assert!(credential.is_wanted(at(2800)) && credential.due(at(2800)).is_some_and(|due| due <= at(2800)));
    }

    #[test]
    fn a_request_that_is_gone_is_made_again() {
        let gone: [fn() -> Seen; 2] = [|| Seen::Missing(5), || there("b", issued("of another", 1000, 3600))];
        for seen in gone {
            let mut credential = Credential::default();
            credential.asked("key".to_owned(), made("a", 5), at(0));
            assert_eq!(credential.see(seen(), at(3), 0.0), None);
            assert!(shown(&credential, 3).is_err());
            assert_eq!((credential.is_wanted(at(9)), credential.due(at(3))), (false, Some(at(10))));
            assert!(credential.is_wanted(at(10)));
        }
    }

    /// KEP-4317: "The kubelet will begin trying to rotate the certificate at the time indicated by the signer".
    #[test]
    fn a_certificate_is_renewed() {
        let mut credential = first();
        assert_eq!((credential.is_wanted(at(999)), credential.due(at(0))), (false, Some(at(1000))));
        assert!(credential.is_wanted(at(1000)));
        credential.asked("key 2".to_owned(), made("b", 9), at(1000));
        assert_eq!(shown(&credential, 1000), Ok(("key 1", "chain 1")), "until the new one is there");
        credential.see(there("b", issued("chain 2", 4000, 7200)), at(1001), 0.0);
        assert_eq!(shown(&credential, 1001), Ok(("key 2", "chain 2")));
        assert_eq!(credential.due(at(1001)), Some(at(4000)));
    }

    /// A signer that wants a refresh at once is not asked without end.
    #[test]
    fn there_is_time_between_two_requests() {
        let mut credential = Credential::default();
        credential.asked("key".to_owned(), made("a", 5), at(0));
        credential.see(there("a", issued("chain", -100, 3600)), at(5), 0.0);
        assert_eq!((credential.is_wanted(at(14)), credential.due(at(5))), (false, Some(at(15))));
        assert!(credential.is_wanted(at(15)));
    }

    /// KEP-4317: "If the PodCertificateRequest is denied, the kubelet treats this as a fatal error", and of renewals "Errors in the certificate
    /// issuance process are treated as non-fatal ... while the original certificate is still valid".
    #[test]
    fn a_refusal_is_final() {
        let mut credential = Credential::default();
        credential.asked("key".to_owned(), made("a", 5), at(0));
        assert_eq!(credential.see(there("a", refused()), at(1), 0.0), Some(("Denied", "no".to_owned())));
        assert_eq!((shown(&credential, 1), credential.is_wanted(at(9999))), (Err("no".to_owned()), false));
        let mut credential = first();
        credential.asked("key 2".to_owned(), made("b", 9), at(1000));
        assert_eq!(credential.see(there("b", refused()), at(1001), 0.0), Some(("Denied", "no".to_owned())));
        assert_eq!((shown(&credential, 3599), shown(&credential, 3600)), (Ok(("key 1", "chain 1")), Err("no".to_owned())));
        assert_eq!(credential.due(at(1700)), Some(at(3600)), "its end is told");
    }

    #[test]
    fn what_is_late_is_told_once() {
        let mut credential = first();
        let mut told = |now: i64| credential.tell(at(now)).map(|(reason, _)| reason);
        assert_eq!((told(1000), told(1599)), (None, None));
        assert_eq!((told(1600), told(1601)), (Some("CertificateOverdueForRefresh"), None));
        assert_eq!((told(3600), told(3601)), (Some("CertificateExpired"), None));
        // The next one is told of again.
        credential.asked("key 2".to_owned(), made("b", 9), at(3600));
        credential.see(there("b", issued("chain 2", 4000, 7200)), at(3601), 0.0);
        assert_eq!(credential.tell(at(7200)).map(|(reason, _)| reason), Some("CertificateExpired"));
    }

    #[test]
    fn a_request_that_fails_is_tried_again() {
        assert_eq!(Credential::default().not_asked("down".to_owned(), at(0)), Err("down".to_owned()));
        let mut credential = first();
        assert_eq!(credential.not_asked("down".to_owned(), at(1000)), Ok(()));
        assert_eq!((credential.is_wanted(at(1059)), credential.is_wanted(at(1060))), (false, true));
        assert_eq!(credential.not_asked("down".to_owned(), at(3600)), Err("down".to_owned()));
    }

    /// KEP-4317: "a randomized jitter of up to five minutes".
    #[test]
    fn pods_do_not_ask_together() {
        let check = |begin: i64, until: i64, random: f64, expected: i64| {
            assert_eq!(refresh_at(at(begin), at(until), random), at(expected), "{begin} {until} {random}");
        };
        check(1000, 9000, 0.0, 1000);
        check(1000, 9000, 0.5, 1150);
        check(1000, 9000, 1.0, 1300);
        check(1000, 1010, 1.0, 1005);
        check(1000, 900, 1.0, 1000);
    }
}
