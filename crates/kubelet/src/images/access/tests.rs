#![allow(clippy::unwrap_used)]
use super::*;

fn secret(uid: &str, hash: &str) -> PullSecret {
    PullSecret { uid: uid.into(), namespace: "n".into(), name: format!("of-{uid}"), credential_hash: hash.into() }
}

fn record(repository: &str, access: &Access) -> Record {
    let mut record = Record::new("sha256:1", Timestamp::UNIX_EPOCH);
    record.add(repository, access, Timestamp::UNIX_EPOCH);
    record
}

const NAME: &str = "r.io/a/b";

#[track_caller]
fn check(policy: Policy, record: Option<&Record>, is_being_pulled: bool, shown: &Shown, expected: &Decision) {
    let allowlist =
        if policy == Policy::NeverVerifyAllowlistedImages { vec!["r.io/listed/*".into(), "plain".into()] } else { vec![] };
    let verification = Verification::new(policy, allowlist).unwrap();
    let question = Question { verification: &verification, record, is_being_pulled, repository: NAME };
    assert_eq!(&question.decide(shown), expected);
    assert!(question.depends() || question.decide(&Shown::default()) == *expected);
    let without = Shown { account: None, ..shown.clone() };
    assert!(question.depends_on_account() || question.decide(&without) == *expected);
}

/// KEP-2535: "the image is only used by pods that have access to the credentials that were used to pull it".
#[test]
fn who_has_pulled_an_image_may_use_it() {
    use Decision::{Granted, GrantedTo, Pull};
    let check = |record: Option<&Record>, secrets: &[PullSecret], expected: Decision| {
        let shown = Shown { secrets: secrets.to_vec(), account: None };
        check(Policy::default(), record, false, &shown, &expected);
    };
    check(None, &[], Granted);
    let anybody = record(NAME, &Access::by(Source::Node));
    check(Some(&anybody), &[], Granted);
    let private = record(NAME, &Access::by(Source::Secret(secret("u", "h"))));
    check(Some(&private), &[], Pull);
    check(Some(&private), &[secret("u", "h")], Granted);
    check(Some(&private), &[secret("v", "other")], Pull);
    check(Some(&private), &[secret("x", ""), secret("v", "h")], GrantedTo(secret("v", "h")));
    check(Some(&private), &[secret("u", "new")], GrantedTo(secret("u", "new")));
    // By another name the same image is another one.
    let other = record("other.io/a/b", &Access::by(Source::Node));
    check(Some(&other), &[secret("u", "h")], Pull);
    // Pulled before a crash, nobody knows by whom.
    check(Some(&Record::new("sha256:1", Timestamp::UNIX_EPOCH)), &[secret("u", "h")], Pull);
}

#[test]
fn policies_say_which_images_are_looked_after() {
    use Decision::{Granted, Pull};
    let private = record(NAME, &Access::by(Source::Secret(secret("u", "h"))));
    check(Policy::NeverVerify, Some(&private), false, &Shown::default(), &Granted);
    check(Policy::NeverVerifyPreloadedImages, None, false, &Shown::default(), &Granted);
    check(Policy::NeverVerifyPreloadedImages, None, true, &Shown::default(), &Pull);
    check(Policy::AlwaysVerify, None, false, &Shown::default(), &Pull);
    check(Policy::AlwaysVerify, Some(&private), false, &Shown { secrets: vec![secret("u", "h")], account: None }, &Granted);
    check(Policy::NeverVerifyAllowlistedImages, None, false, &Shown::default(), &Pull);
    let listed = Verification::new(Policy::NeverVerifyAllowlistedImages, vec!["r.io/a/*".into(), "plain".into()]).unwrap();
    for (name, asks) in [(NAME, false), ("r.io/ab", true), ("docker.io/library/plain", false), ("docker.io/library/plain2", true)]
    {
        assert_eq!(listed.asks(name, true), asks, "{name}");
    }
    for name in ["", "/*", "a:1", "a@sha256:1", "*.io/a", "r.io/*/a", " a"] {
        let made = Verification::new(Policy::NeverVerifyAllowlistedImages, vec![name.to_owned()]);
        assert_eq!(made, Err(BadList::Pattern(name.to_owned())));
    }
    assert_eq!(Verification::new(Policy::NeverVerifyAllowlistedImages, vec![]), Err(BadList::Missing));
    assert_eq!(Verification::new(Policy::AlwaysVerify, vec!["a".into()]), Err(BadList::Unused(Policy::AlwaysVerify)));
}

#[test]
fn records_are_bounded_and_say_no_more_than_is_needed() {
    let mut record = Record::new("sha256:1", Timestamp::UNIX_EPOCH);
    let mut add = |access: &Access| record.add(NAME, access, Timestamp::UNIX_EPOCH);
    assert!(add(&Access::by(Source::Secret(secret("u", "1")))) && !add(&Access::by(Source::Secret(secret("u", "1")))));
    assert!(add(&Access::by(Source::Secret(secret("u", "2")))), "the secret has changed");
    assert!((0..200).all(|number| add(&Access::by(Source::Secret(secret(&number.to_string(), "h"))))));
    assert_eq!(record.credential_mapping[NAME].kubernetes_secrets.len(), MOST);
    assert!(record.add(NAME, &Access::by(Source::Node), Timestamp::UNIX_EPOCH));
    let text = serde_json::to_value(&record).unwrap();
    assert_eq!(text["credentialMapping"], serde_json::json!({NAME: {"nodePodsAccessible": true}}));
    assert_eq!(serde_json::from_value::<Record>(text).unwrap(), record);
}

/// KEP-4412: "only pods that are running with the same service account that was used to pull the image can access it"; a service account that
/// was deleted and made again is another one.
#[test]
fn service_accounts_use_what_was_pulled_for_them() {
    use Decision::{Granted, Pull};
    let account = |uid: &str, name: &str| PullServiceAccount { uid: uid.into(), namespace: "n".into(), name: name.into() };
    let of = |account| Shown { secrets: vec![secret("u", "h")], account };
    let mut private = record(NAME, &Access::by(Source::ServiceAccount(account("1", "crew"))));
    let check = |record: &Record, shown: Option<PullServiceAccount>, expected: Decision| {
        check(Policy::default(), Some(record), false, &of(shown), &expected);
    };
    check(&private, Some(account("1", "crew")), Granted);
    check(&private, Some(account("2", "crew")), Pull);
    check(&private, Some(account("1", "cook")), Pull);
    check(&private, None, Pull);
    let text = serde_json::to_value(&private).unwrap();
    let accounts = serde_json::json!([{"uid": "1", "namespace": "n", "name": "crew"}]);
    assert_eq!(text["credentialMapping"], serde_json::json!({NAME: {"kubernetesServiceAccounts": accounts}}));
    let mut add = |access: Access| private.add(NAME, &access, Timestamp::UNIX_EPOCH);
    assert!(!add(Access::by(Source::ServiceAccount(account("1", "crew")))));
    assert!((0..200).all(|number| add(Access::by(Source::ServiceAccount(account(&number.to_string(), "many"))))));
    assert!(add(Access::by(Source::Secret(secret("u", "h")))));
    check(&private, None, Granted);
    let access = &private.credential_mapping[NAME];
    assert_eq!((access.kubernetes_service_accounts.len(), access.kubernetes_secrets.len()), (MOST, 1));
}
