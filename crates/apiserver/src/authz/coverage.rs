//! Whether rules give no more than other rules do, without multiplying verbs, groups, resources and names out.
//!
//! One thing that may be done (a verb on a resource of a group with a name, or on a path) is held when one of the held rules allows
//! it. So all that counts of a verb is which held rules name it, and the same is true of groups, resources, names and paths: verbs that
//! the same rules name are one class. Classes are multiplied, and there are no more of them than the held rules tell apart, however
//! long the lists of the wanted rules are.

use std::collections::{HashMap, HashSet};

use super::Rule;

/// What is lacking is shown as so many rules at most.
const MAX_SHOWN: usize = 100;
/// Combinations of classes that are looked at, times the words of a [`Mask`].
const MAX_WORK: usize = 1 << 24;

/// Which of the held rules: a bit for each.
type Mask = Box<[u64]>;

/// There are too many rules, each with too much in it, to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rules tell too many verbs, groups, resources and names apart to be compared with those of the user")]
pub(super) struct TooMany;

/// Which held rules name a text.
struct Named<'r> {
    each: HashMap<&'r str, Mask>,
    /// Those that name all.
    all: Mask,
}

impl<'r> Named<'r> {
    fn new(words: usize) -> Self {
        Self { each: HashMap::new(), all: vec![0; words].into() }
    }

    fn add(&mut self, text: &'r str, rule: usize) {
        let none = || vec![0; self.all.len()].into();
        set(self.each.entry(text).or_insert_with(none), rule);
    }

    fn mask(&self, text: &str) -> Mask {
        let mut mask = self.all.clone();
        if let Some(own) = self.each.get(text) {
            join(&mut mask, own);
        }
        mask
    }
}

fn set(mask: &mut Mask, rule: usize) {
    mask[rule / 64] |= 1 << (rule % 64);
}

fn join(mask: &mut Mask, other: &Mask) {
    mask.iter_mut().zip(other.iter()).for_each(|(word, other)| *word |= other);
}

/// Rules that somebody holds, in the form in which others are compared with them.
pub(super) struct Held<'r> {
    words: usize,
    verbs: Named<'r>,
    groups: Named<'r>,
    resources: Named<'r>,
    /// By sub-resource, of rules that name it of all resources.
    subresources: Named<'r>,
    names: Named<'r>,
    paths: Named<'r>,
    /// Beginnings of paths.
    prefixes: Vec<(&'r str, usize)>,
}

impl<'r> Held<'r> {
    pub(super) fn new(rules: impl IntoIterator<Item = &'r Rule>) -> Self {
        let rules: Vec<&Rule> = rules.into_iter().collect();
        let words = rules.len().div_ceil(64).max(1);
        let named = || Named::new(words);
        let mut held = Self {
            words,
            verbs: named(),
            groups: named(),
            resources: named(),
            subresources: named(),
            names: named(),
            paths: named(),
            prefixes: Vec::new(),
        };
        rules.into_iter().enumerate().for_each(|(at, rule)| held.add(at, rule));
        held
    }

    fn add(&mut self, at: usize, rule: &'r Rule) {
        let add = |named: &mut Named<'r>, text: &'r str| if text == "*" { set(&mut named.all, at) } else { named.add(text, at) };
        rule.verbs.iter().for_each(|verb| add(&mut self.verbs, verb));
        rule.groups.iter().for_each(|group| add(&mut self.groups, group));
        for resource in &rule.resources {
            match resource.strip_prefix("*/") {
                Some(sub) => self.subresources.add(sub, at),
                None => add(&mut self.resources, resource),
            }
        }
        rule.names.iter().for_each(|name| self.names.add(name, at));
        if rule.names.is_empty() {
            set(&mut self.names.all, at);
        }
        for path in &rule.paths {
            self.paths.add(path, at);
            self.prefixes.extend(path.strip_suffix('*').map(|prefix| (prefix, at)));
        }
    }

    fn resource(&self, text: &str) -> Mask {
        let mut mask = self.resources.mask(text);
        if let Some((_, sub)) = text.split_once('/') {
            join(&mut mask, &self.subresources.mask(sub));
        }
        mask
    }

    fn path(&self, text: &str) -> Mask {
        let (mut mask, start) = (self.paths.mask(text), text.trim_end_matches('*'));
        self.prefixes.iter().filter(|(prefix, _)| start.starts_with(prefix)).for_each(|(_, at)| set(&mut mask, *at));
        mask
    }

    /// What the wanted rules give beyond those that are held: rules of one group, resource and name, or of one path, each with its
    /// verbs; only the first of many.
    pub(super) fn lacking(&self, wanted: &[Rule]) -> Result<Vec<Rule>, TooMany> {
        let mut lacking = Lacking { held: self, work: 0, rules: Vec::new(), known: HashMap::new() };
        for rule in wanted {
            lacking.add(rule)?;
        }
        Ok(lacking.rules)
    }
}

/// Texts that are alike to the held rules.
struct Class<'w> {
    mask: Mask,
    /// None where the rule names none, for all.
    texts: Vec<Option<&'w str>>,
}

fn classes<'w>(texts: &'w [String], mask: impl Fn(&str) -> Mask) -> Vec<Class<'w>> {
    let mut all: Vec<Class<'w>> = Vec::new();
    let (mut known, mut seen): (HashMap<Mask, usize>, _) = (HashMap::new(), HashSet::new());
    for text in texts.iter().filter(|text| seen.insert(text.as_str())) {
        let at = *known.entry(mask(text)).or_insert_with_key(|mask| {
            all.push(Class { mask: mask.clone(), texts: Vec::new() });
            all.len() - 1
        });
        all[at].texts.push(Some(text.as_str()));
    }
    all
}

/// Group, resource, name and path of a rule that is lacking.
type Place<'w> = [Option<&'w str>; 4];

struct Lacking<'h, 'r, 'w> {
    held: &'h Held<'r>,
    work: usize,
    rules: Vec<Rule>,
    known: HashMap<Place<'w>, usize>,
}

impl<'w> Lacking<'_, '_, 'w> {
    fn add(&mut self, rule: &'w Rule) -> Result<(), TooMany> {
        let held = self.held;
        let verbs = classes(&rule.verbs, |verb| held.verbs.mask(verb));
        let groups = classes(&rule.groups, |group| held.groups.mask(group));
        let resources = classes(&rule.resources, |resource| held.resource(resource));
        let mut names = classes(&rule.names, |name| held.names.mask(name));
        if names.is_empty() {
            names.push(Class { mask: held.names.all.clone(), texts: vec![None] });
        }
        let nothing = Class { mask: vec![u64::MAX; held.words].into(), texts: vec![None] };
        let nothing = std::slice::from_ref(&nothing);
        self.compare(&rule.verbs, &verbs, [&groups, &resources, &names, nothing])?;
        let paths = classes(&rule.paths, |path| held.path(path));
        self.compare(&rule.verbs, &verbs, [nothing, nothing, nothing, &paths])
    }

    fn compare(&mut self, order: &'w [String], verbs: &[Class<'w>], places: [&[Class<'w>]; 4]) -> Result<(), TooMany> {
        let combinations = places.iter().fold(verbs.len(), |all, classes| all.saturating_mul(classes.len()));
        self.work = self.work.saturating_add(combinations.saturating_mul(self.held.words));
        if self.work > MAX_WORK {
            return Err(TooMany);
        }
        let [groups, resources, names, paths] = places;
        for (group, resource) in groups.iter().flat_map(|group| resources.iter().map(move |resource| (group, resource))) {
            for (name, path) in names.iter().flat_map(|name| paths.iter().map(move |path| (name, path))) {
                let place = [group, resource, name, path];
                let lacks = |verb: &&Class<'w>| !meet(&verb.mask, place.map(|class| &class.mask));
                let lacking: Vec<&Class<'w>> = verbs.iter().filter(lacks).collect();
                if !lacking.is_empty() {
                    self.show(order, &lacking, place);
                }
            }
        }
        Ok(())
    }

    /// Notes rules for members of the classes, while few are noted.
    fn show(&mut self, order: &[String], verbs: &[&Class<'w>], [groups, resources, names, paths]: [&Class<'w>; 4]) {
        let mut lacking: HashSet<&str> = verbs.iter().flat_map(|class| class.texts.iter().flatten()).copied().collect();
        let first = order.iter().filter(|verb| lacking.remove(verb.as_str())).take(MAX_SHOWN);
        let verbs: Vec<String> = first.cloned().collect();
        let pairs = groups.texts.iter().flat_map(|group| resources.texts.iter().map(move |resource| (group, resource)));
        for (group, resource) in pairs {
            for (name, path) in names.texts.iter().flat_map(|name| paths.texts.iter().map(move |path| (name, path))) {
                let place = [*group, *resource, *name, *path];
                match self.known.get(&place) {
                    Some(at) => extend(&mut self.rules[*at].verbs, &verbs),
                    None if self.rules.len() >= MAX_SHOWN => return,
                    None => {
                        self.known.insert(place, self.rules.len());
                        self.rules.push(shown(verbs.clone(), place));
                    }
                }
            }
        }
    }
}

/// Adds verbs that another rule for the same place lacks, too.
fn extend(verbs: &mut Vec<String>, more: &[String]) {
    for verb in more {
        if verbs.len() < MAX_SHOWN && !verbs.contains(verb) {
            verbs.push(verb.clone());
        }
    }
}

fn shown(verbs: Vec<String>, place: Place<'_>) -> Rule {
    let [groups, resources, names, paths] = place.map(|text| text.map(str::to_owned).into_iter().collect());
    Rule { verbs, groups, resources, names, paths }
}

/// Whether one held rule names all of these.
fn meet(verb: &Mask, place: [&Mask; 4]) -> bool {
    verb.iter().enumerate().any(|(word, bits)| place.iter().fold(*bits, |bits, mask| bits & mask[word]) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(held: &[Rule], wanted: Rule, expected: &[Rule]) {
        assert_eq!(Held::new(held).lacking(std::slice::from_ref(&wanted)).as_deref(), Ok(expected), "{wanted}");
    }

    #[test]
    fn coverage() {
        check(&[Rule::of("*", "*", "*")], Rule::of("get list", "core apps", "pods deployments"), &[]);
        check(&[Rule::of("get", "core", "pods")], Rule::of("get list", "core", "pods"), &[Rule::of("list", "core", "pods")]);
        let named =
            |names: &str| Rule { names: names.split(' ').map(str::to_owned).collect(), ..Rule::of("get", "core", "pods") };
        check(&[Rule::of("get", "core", "pods")], named("a"), &[]);
        check(&[named("a")], Rule::of("get", "core", "pods"), &[Rule::of("get", "core", "pods")]);
        check(&[named("a c")], named("a b"), &[named("b")]);
        check(&[Rule::of("get", "*", "*/scale")], Rule::of("get", "apps", "pods/scale"), &[]);
        let scale = Rule::of("get", "apps", "pods scale");
        check(&[Rule::of("get", "*", "*/scale")], scale, &[Rule::of("get", "apps", "pods"), Rule::of("get", "apps", "scale")]);
        check(&[Rule::of("get", "core", "pods")], Rule::of("*", "core", "*"), &[Rule::of("*", "core", "*")]);
        check(&[], Rule::of("get", "core", "pods"), &[Rule::of("get", "core", "pods")]);
        check(&[], Rule::of("get", "", ""), &[]);
    }

    #[test]
    fn paths() {
        check(&[Rule::paths("get", "/api/*")], Rule::paths("get", "/api/v1/*"), &[]);
        check(&[Rule::paths("get", "/api/v1")], Rule::paths("get", "/api/*"), &[Rule::paths("get", "/api/*")]);
        check(
            &[Rule::paths("get", "*")],
            Rule::paths("get post", "/a /b"),
            &[Rule::paths("post", "/a"), Rule::paths("post", "/b")],
        );
    }

    /// No one rule allows all of it, but each thing is allowed by one.
    #[test]
    fn several_rules_together() {
        let held =
            [Rule::of("get", "core", "pods secrets"), Rule::of("list", "core", "pods"), Rule::of("list", "core", "secrets")];
        check(&held, Rule::of("get list", "core", "pods secrets"), &[]);
        check(&held[..2], Rule::of("get list", "core", "pods secrets"), &[Rule::of("list", "core", "secrets")]);
    }

    fn long(prefix: &str, count: usize) -> String {
        (0..count).map(|n| format!("{prefix}{n} ")).collect()
    }

    /// A thousand verbs on a thousand resources of a thousand groups are a thousand million things to do.
    #[test]
    fn long_lists_are_not_multiplied() {
        let many = Rule::of(&long("v", 1000), &long("g", 1000), &long("r", 1000));
        check(&[Rule::of("*", "*", "*")], many.clone(), &[]);
        check(std::slice::from_ref(&many), many.clone(), &[]);
        let lacking = Held::new(&[Rule::of("get", "core", "pods")]).lacking(std::slice::from_ref(&many)).unwrap_or_default();
        assert_eq!(lacking.len(), MAX_SHOWN);
        assert!(lacking.iter().all(|rule| rule.verbs.len() == MAX_SHOWN));
    }

    /// Where every verb, group and resource differs to the held rules, there is nothing but to multiply: up to a limit.
    #[test]
    fn what_has_to_be_multiplied_is_bounded() {
        let held: Vec<Rule> = (0..1000).map(|n| Rule::of(&format!("v{n}"), &format!("g{n}"), &format!("r{n}"))).collect();
        let wanted = Rule::of(&long("v", 1000), &long("g", 1000), &long("r", 1000));
        assert_eq!(Held::new(&held).lacking(&[wanted]), Err(TooMany));
        assert_eq!(Held::new(&held).lacking(&held), Ok(Vec::new()));
    }
}
