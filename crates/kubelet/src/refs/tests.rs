use super::*;
use serde_json::json;

#[tokio::test]
async fn pods_that_are_gone_do_not_listen() {
    let (tasks, _failures) = Tasks::root();
    let references = References::new(client::fake::Fake::default().client(), tasks);
    let pod = json!({"metadata": {"namespace": "n"}, "spec": {"imagePullSecrets": [{"name": "s"}], "containers": []}});
    let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
    let stays = Arc::new(Notify::new());
    let held = references.of_pod(&model, &stays);
    for _ in 0..10 {
        references.of_pod(&model, &Arc::new(Notify::new()));
    }
    assert!(held.lasting.secrets["s"].listeners.lock().len() <= 2);
}

/// What is the matter with one object is said of it, and waits for no other; volumes are told which of them show it.
#[tokio::test]
async fn each_object_that_cannot_be_read_is_told() {
    let (tasks, _failures) = Tasks::root();
    let references = References::new(client::fake::Fake::default().client(), tasks);
    let from = |kind: &str, name: &str| json!({kind: {"name": name}});
    let sources = [from("configMapRef", "a"), from("configMapRef", "b"), from("secretRef", "c")];
    let pod = json!({"metadata": {"namespace": "n"}, "spec": {"containers": [{"name": "app", "envFrom": sources}]}});
    let held = references.of_pod(&Model::new(Arc::new(serde_json::from_value(pod).unwrap())), &Arc::default());
    let [a, b, c] = [Subject::ConfigMap("a".to_owned()), Subject::ConfigMap("b".to_owned()), Subject::Secret("c".to_owned())];
    let unread = |what: &Subject| Unread { what: what.clone(), why: "no".to_owned() };
    held.lasting.config_maps["a"].set(View::Unknown(Some(unread(&a))));
    held.lasting.config_maps["b"].set(View::Absent);
    held.lasting.secrets["c"].set(View::Unknown(Some(unread(&c))));
    assert_eq!(held.unread().await, [unread(&a), unread(&c)]);
    assert_eq!(held.known().await, Err(unread(&a)));
    let texts = [a, b, c, Subject::Both, Subject::TrustBundles].map(|what| what.to_string());
    let expected = ["ConfigMap \"a\"", "ConfigMap \"b\"", "Secret \"c\"", "ConfigMaps and Secrets", "ClusterTrustBundles"];
    assert_eq!(texts, expected);
}

/// A pod has room for more references than can be looked at for each of them.
#[tokio::test]
async fn more_references_than_others_can_do_without_are_refused() {
    let (tasks, _failures) = Tasks::root();
    let references = References::new(client::fake::Fake::default().client(), tasks);
    let many = 40_000;
    let secrets: Vec<_> = (0..many).map(|number| json!({"name": format!("s{number}")})).collect();
    let pod = json!({"metadata": {"namespace": "n"}, "spec": {"imagePullSecrets": secrets, "containers": []}});
    let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
    let begin = std::time::Instant::now();
    let held = references.of_pod(&model, &Arc::new(Notify::new()));
    let refused = held.known().await.unwrap_err().to_string();
    let expected =
        "cannot read ConfigMaps and Secrets: the pod refers to 40000 of them, and a node reads at most 250 for one pod";
    assert_eq!((refused.as_str(), references.secrets.lock().len()), (expected, 0));
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "each was compared with each: {:?}", begin.elapsed());
}

/// A pod that runs keeps what it has whatever somebody debugs it with.
#[tokio::test]
async fn ephemeral_containers_are_refused_alone() {
    let (tasks, _failures) = Tasks::root();
    let references = References::new(client::fake::Fake::default().client(), tasks);
    let from = |range: std::ops::Range<usize>| -> Vec<_> {
        range.map(|number| json!({"secretRef": {"name": format!("s{number}")}})).collect()
    };
    let pod = |debugger: std::ops::Range<usize>| {
        let pod = json!({"metadata": {"namespace": "n"}, "spec": {
            "containers": [{"name": "app", "envFrom": from(0..200)}],
            "ephemeralContainers": [{"name": "few", "envFrom": from(0..2)}, {"name": "many", "envFrom": from(debugger)}]}});
        Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
    };
    let check = |debugger: std::ops::Range<usize>, expected: usize, refused: &[&str]| {
        let model = pod(debugger);
        let held = references.of_pod(&model, &Arc::new(Notify::new()));
        assert_eq!((held.lasting.secrets.len(), held.late.secrets.len()), (200, expected));
        // What the pod has for all its life has been read, and nothing else.
        held.lasting.secrets.values().for_each(|entry| entry.set(View::Absent));
        for member in &*model.members {
            let known = futures::FutureExt::now_or_never(tokio::task::unconstrained(held.known_to(member)));
            let name = member.spec.name.as_str();
            match &known {
                Some(Ok(())) => assert_ne!(name, "many"),
                Some(Err(unread)) => assert!(unread.to_string().contains("at most 250"), "{unread}"),
                None => assert_eq!(name, "many"),
            }
            assert_eq!(matches!(known, Some(Err(_))), refused.contains(&name), "{name}: {known:?}");
        }
    };
    check(150..250, 50, &[]);
    check(150..251, 0, &["many"]);
}
