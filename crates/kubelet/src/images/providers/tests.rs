#![allow(clippy::unwrap_used)]
use client::fake::Fake;
use serde_json::{Value, json};

use super::testing::{Programs, provider};
use super::*;

fn model(spec: Value) -> Model {
    let metadata = json!({"namespace": "n", "name": "p", "uid": "u"});
    Model::new(Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()))
}

fn plain() -> Model {
    model(json!({"containers": []}))
}

/// Answers with the number of its runs as the password, for images as `scope` and `duration` say.
fn counting(scope: &str, duration: &str) -> String {
    let answer = format!(
        r#"{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"{scope}",
        {duration}"auth":{{"r.io":{{"username":"u","password":"%s"}}}}}}"#
    );
    format!("echo x >> \"$0.runs\"\nprintf '{answer}' $(wc -l < \"$0.runs\")")
}

async fn words(providers: &Providers, model: &Model, repository: &str) -> Vec<String> {
    let provided = providers.credentials(Some(model), repository).await;
    assert_eq!(provided.failures, [""; 0]);
    provided.credentials.into_iter().map(|found| found.word.password).collect()
}

fn providers(all: &[Provider]) -> Providers {
    Providers::new(all, Fake::default().client())
}

/// The API reference of `CredentialProviderResponse`: "cacheDuration [...] If null, the kubelet will use defaultCacheDuration provided in
/// CredentialProviderConfig. If set to 0, the kubelet will not cache the provided AuthConfig".
#[tokio::test]
async fn answers_are_kept_as_the_program_says() {
    let [image, registry, global] = ["Image", "Registry", "Global"].map(|scope| counting(scope, ""));
    let never = counting("Global", r#""cacheDuration":"0s","#);
    let programs =
        Programs::new(&[("image", &image), ("registry", &registry), ("global", &global), ("never", &never), ("none", &global)]);
    for (name, expected) in [
        ("image", ["1", "1", "2", "3"]),
        ("registry", ["1", "1", "1", "2"]),
        ("global", ["1", "1", "1", "1"]),
        ("never", ["1", "2", "3", "4"]),
        ("none", ["1", "2", "3", "4"]),
    ] {
        let mut provider = provider(&programs, name);
        provider.images.push(super::super::patterns::Pattern::parse("r.io:5000").unwrap());
        if name == "none" {
            provider.lifetime = Duration::ZERO;
        }
        let (program, model, accounts) = (Program::new(provider, Arc::new(Semaphore::new(1))), plain(), accounts());
        for (repository, expected) in ["r.io/a", "r.io/a", "r.io/b", "r.io:5000/a"].into_iter().zip(expected) {
            let (source, auths) = program.provide(&accounts, Some(&model), repository).await.unwrap();
            assert_eq!((source, auths["r.io"].password.as_str()), (Source::Node, expected), "{name} {repository}");
        }
    }
}

fn accounts() -> Accounts {
    Accounts::new(Fake::default().client())
}

#[tokio::test]
async fn one_run_answers_all_who_ask_meanwhile() {
    let wait = format!("read x < \"$0.go\"; {}", counting("Image", r#""cacheDuration":"0s","#));
    let programs = Programs::new(&[("waits", &wait)]);
    let go = programs.path("waits.go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (providers, model) = (providers(&[provider(&programs, "waits")]), plain());
    let asked = || words(&providers, &model, "r.io/a");
    // Each has asked before the program may go on; one of them does not wait for the answer.
    let mut all = Box::pin(futures::future::join3(asked(), asked(), asked()));
    let mut first = Box::pin(asked());
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut all).is_pending());
    drop(first);
    let write = tokio::task::spawn_blocking(move || std::fs::write(go, "x\n"));
    assert_eq!(all.await, (vec!["1".to_owned()], vec!["1".to_owned()], vec!["1".to_owned()]));
    write.await.unwrap().unwrap();
}

/// "If multiple providers are called for a single image, the results are combined"; one that fails is no reason not to use the others.
#[tokio::test]
async fn providers_are_combined() {
    let (good, other) = (counting("Global", ""), counting("Global", ""));
    let programs = Programs::new(&[("a", &good), ("b", &other), ("fails", "exit 1")]);
    let mut elsewhere = provider(&programs, "fails");
    elsewhere.images = vec![super::super::patterns::Pattern::parse("elsewhere.io").unwrap()];
    let all = [elsewhere, provider(&programs, "a"), provider(&programs, "fails"), provider(&programs, "b")];
    let providers = providers(&all);
    let provided = providers.credentials(Some(&plain()), "r.io/a").await;
    assert_eq!(provided.credentials.len(), 2);
    assert_eq!(provided.failures, ["credential provider \"fails\": it has ended with exit status: 1"]);
    let provided = providers.credentials(Some(&plain()), "other.io/a").await;
    assert!(provided.credentials.is_empty() && provided.failures.is_empty());
}

/// KEP-4412: "If set to true, kubelet will only invoke the plugin if the pod has a service account. If set to false, kubelet will invoke the
/// plugin even if the pod does not have a service account and will not include a token".
#[tokio::test]
async fn pods_without_a_service_account() {
    let script = counting("Global", "");
    let programs = Programs::new(&[("required", &script), ("optional", &script)]);
    let of = |name: &str, required: bool| {
        let tokens = configuration::Tokens {
            audience: "a".into(),
            per_token: false,
            required,
            required_annotations: Vec::new(),
            optional_annotations: Vec::new(),
        };
        Provider { tokens: Some(tokens), ..provider(&programs, name) }
    };
    assert!(words(&providers(&[of("required", true)]), &plain(), "r.io/a").await.is_empty());
    assert_eq!(words(&providers(&[of("optional", false)]), &plain(), "r.io/a").await, ["1"]);
    // Who pulls by hand has none either.
    let by_hand = |required: bool, name: &'static str| {
        let providers = providers(&[of(name, required)]);
        async move { providers.credentials(None, "r.io/a").await.credentials.len() }
    };
    assert_eq!((by_hand(true, "required").await, by_hand(false, "optional").await), (0, 1));
    // One that cannot be read is told.
    let model = model(json!({"containers": [], "serviceAccountName": "crew"}));
    let provided = providers(&[of("optional", false)]).credentials(Some(&model), "r.io/a").await;
    let [failure] = provided.failures.as_slice() else { panic!("{:?}", provided.failures) };
    assert!(failure.contains("cannot read service account \"crew\"") && provided.credentials.is_empty(), "{failure}");
}
