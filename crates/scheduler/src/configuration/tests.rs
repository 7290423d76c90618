#![allow(clippy::unwrap_used)]
use super::*;

fn parse(rest: &str) -> Result<Configuration> {
    Configuration::parse(&format!("{{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, {rest}}}"))
}

/// The only profile of a file.
fn profile(rest: &str) -> Profile {
    parse(&format!("profiles: [{{schedulerName: s, {rest}}}]")).unwrap().profiles.remove(0)
}

fn place(name: &str) -> usize {
    PLUGINS.iter().position(|plugin| plugin.name() == name).unwrap()
}

#[test]
fn without_more_it_is_the_default() {
    assert_eq!(parse("").unwrap(), Configuration::default());
    assert_eq!(profile(""), Profile::new("s"));
    let file = parse(
        "percentageOfNodesToScore: 30, podInitialBackoffSeconds: 2, podMaxBackoffSeconds: 7, leaderElection: {leaderElect: true},
        profiles: [{schedulerName: a}, {schedulerName: b, percentageOfNodesToScore: 80}]",
    );
    let file = file.unwrap();
    let shown: Vec<_> = file.profiles.iter().map(|profile| (profile.name.as_str(), profile.percentage)).collect();
    assert_eq!(shown, [("a", 30), ("b", 80)]);
    assert_eq!(file.backoff, (Duration::from_secs(2), Duration::from_secs(7)));
}

#[test]
fn plugins_are_chosen_by_point() {
    let check = |rest: &str, plugin: &str, filters: bool, weight: i64| {
        let profile = profile(&format!("plugins: {{{rest}}}"));
        let index = place(plugin);
        assert_eq!((profile.filters(index), profile.weights[index]), (filters, weight), "{plugin} with {rest}");
    };
    check("", "TaintToleration", true, 3);
    check("score: {disabled: [{name: TaintToleration}]}", "TaintToleration", true, 0);
    check("filter: {disabled: [{name: TaintToleration}]}", "TaintToleration", false, 3);
    check("multiPoint: {disabled: [{name: TaintToleration}]}", "TaintToleration", false, 0);
    check("filter: {disabled: [{name: VolumeZone}]}", "VolumeZone", false, 1);
    check("multiPoint: {enabled: [{name: TaintToleration, weight: 9}]}", "TaintToleration", true, 9);
    check("multiPoint: {enabled: [{name: TaintToleration, weight: 9}]}", "NodeAffinity", true, 2);
    let only = "score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality, weight: 5}]}";
    check(only, "ImageLocality", true, 5);
    check(only, "NodeAffinity", true, 0);
    assert!(profile("plugins: {}").preempts);
    assert!(!profile("plugins: {postFilter: {disabled: [{name: DefaultPreemption}]}}").preempts);
}

#[test]
fn plugins_are_told_things() {
    let told = |name: &str, args: &str| profile(&format!("pluginConfig: [{{name: {name}, args: {{{args}}}}}]"));
    let packed = told(
        "NodeResourcesFit",
        "scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}, {name: example.com/gpu}]}",
    );
    let resources = vec![("cpu".to_owned(), 3), ("example.com/gpu".to_owned(), 1)];
    assert_eq!(packed.fit, Fit { strategy: Strategy::MostAllocated, resources });
    let shape = "scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 80, score: 10}]}}";
    assert_eq!(told("NodeResourcesFit", shape).fit.strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (80, 100)]));
    assert!(told("PodTopologySpread", "defaultingType: List").spread.is_empty());
    let list = "defaultingType: List, defaultConstraints: [{maxSkew: 2, topologyKey: rack, whenUnsatisfiable: ScheduleAnyway}]";
    assert_eq!(told("PodTopologySpread", list).spread, [("rack".to_owned(), 2)]);
    assert_eq!(told("InterPodAffinity", "hardPodAffinityWeight: 1"), Profile::new("s"));
}

#[test]
fn resources_of_extenders_may_be_ignored() {
    let managed = "managedResources: [{name: a.b/c}, {name: a.b/d, ignoredByScheduler: true}]";
    let file = parse(&format!("extenders: [{{urlPrefix: 'http://e', filterVerb: f, {managed}}}]")).unwrap();
    assert_eq!(file.extenders.len(), 1);
    let check = |ignored: &Ignored, name: &str, expected: bool| assert_eq!(ignored.has(name), expected, "{name}");
    check(&file.profiles[0].ignored, "a.b/c", false);
    check(&file.profiles[0].ignored, "a.b/d", true);
    let told = "ignoredResources: [x.y/z, cpu], ignoredResourceGroups: [example.com]";
    let profile = profile(&format!("pluginConfig: [{{name: NodeResourcesFit, args: {{{told}}}}}]"));
    for (name, expected) in
        [("x.y/z", true), ("x.y/other", false), ("example.com/gpu", true), ("cpu", false), ("hugepages-2Mi", false)]
    {
        check(&profile.ignored, name, expected);
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let check = |rest: &str, expected: &str| {
        let error = parse(rest).expect_err(rest).to_string();
        assert!(error.contains(expected), "{rest}: {error}");
    };
    check("extenders: [{urlPrefix: 'http://e', verb: x}]", "extenders[0]: unknown field `verb`");
    check("extenders: [{urlPrefix: e}]", "extenders[0].urlPrefix: must be the beginning of a URL");
    check(
        "extenders: [{urlPrefix: 'https://e', tlsConfig: {caFile: /nowhere}}]",
        "extenders[0].tlsConfig: /nowhere: No such file",
    );
    check("profiles: [{}]", "profiles[0].schedulerName: Required value");
    check("profiles: [{schedulerName: a}, {schedulerName: a}]", "profiles: two have the same schedulerName");
    check("percentageOfNodesToScore: 101", "percentageOfNodesToScore: not in valid range [0-100]");
    check("podInitialBackoffSeconds: 20", "podMaxBackoffSeconds: must be greater");
    let profile = |rest: &str, expected: &str| check(&format!("profiles: [{{schedulerName: a, {rest}}}]"), expected);
    profile("plugins: {score: {enabled: [{name: Mine}]}}", "profiles[0].plugins.score.enabled: there is no plugin \"Mine\"");
    profile(
        "plugins: {bind: {disabled: [{name: '*'}]}}",
        "profiles[0].plugins.bind: the scheduler has no other plugin than DefaultBinder",
    );
    profile("pluginConfig: [{name: Mine}]", "profiles[0].pluginConfig[0].args: plugin \"Mine\" takes no arguments");
    let told = |name: &str, args: &str, expected: &str| {
        profile(&format!("pluginConfig: [{{name: {name}, args: {{{args}}}}}]"), expected)
    };
    told("InterPodAffinity", "hardPodAffinityWeight: 5", "hardPodAffinityWeight: 5 is not supported, only 1");
    told("NodeResourcesFit", "ignoredResourceGroups: [a/b]", "ignoredResourceGroups: resource group name can't contain '/'");
    told("NodeResourcesFit", "scoringStrategy: {type: Best}", "scoringStrategy.type: Unsupported value: \"Best\"");
    told(
        "PodTopologySpread",
        "defaultConstraints: [{maxSkew: 1}]",
        "defaultingType: when .defaultConstraints are specified, must be List",
    );
    // Upstream reads the file strictly (apis/config/scheme: NewCodecFactory with EnableStrict).
    check("percentageOfNodeToScore: 5", "percentageOfNodeToScore: unknown field");
    check("leaderElection: {leaderElected: true}", "leaderElection.leaderElected: unknown field");
    check("profiles: {schedulerName: a}", "profiles: must be a list");
    check("profiles: [a]", "profiles[0]: must be an object");
    check("podMaxBackoffSeconds: 20, podMaxBackoffSeconds: 30", "\"podMaxBackoffSeconds\" already set in map");
    profile("plugin: {}", "profiles[0].plugin: unknown field");
    profile("plugins: {scores: {}}", "profiles[0].plugins.scores: unknown field");
    profile("plugins: {score: {enable: []}}", "profiles[0].plugins.score.enable: unknown field");
    profile("plugins: {score: {enabled: [{name: ImageLocality, wait: 5}]}}", "score.enabled[0].wait: unknown field");
    told("InterPodAffinity", "hardPodAffinityWeights: 1", "pluginConfig[0].args.hardPodAffinityWeights: unknown field");
    told("NodeResourcesFit", "scoringStrategy: {resources: [{names: cpu}]}", "scoringStrategy.resources[0].names: unknown field");
    assert!(Configuration::parse("kind: Other").unwrap_err().to_string().contains("it is not a KubeSchedulerConfiguration"));
}
