//! What functions and operators take and give: cel-spec, cel-go's extensions and Kubernetes' libraries. Capital letters stand for any
//! type, the same one where the letter is the same. Where a function can be called in several ways, they stand in upstream's order: what is not known
//! yet becomes what the first one takes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::types::Type;

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Signature {
    /// The first argument is the target.
    pub(crate) method: bool,
    pub(crate) arguments: Vec<Type>,
    pub(crate) result: Type,
    /// How many letters there are.
    pub(crate) variables: u32,
}

const TABLE: &str = "
_+_(bytes, bytes) -> bytes
_+_(double, double) -> double
_+_(duration, duration) -> duration
_+_(duration, timestamp) -> timestamp
_+_(timestamp, duration) -> timestamp
_+_(int, int) -> int
_+_(list(A), list(A)) -> list(A)
_+_(string, string) -> string
_+_(uint, uint) -> uint
_-_(double, double) -> double
_-_(duration, duration) -> duration
_-_(int, int) -> int
_-_(timestamp, duration) -> timestamp
_-_(timestamp, timestamp) -> duration
_-_(uint, uint) -> uint
_*_(double, double) -> double
_*_(int, int) -> int
_*_(uint, uint) -> uint
_/_(double, double) -> double
_/_(int, int) -> int
_/_(uint, uint) -> uint
_%_(int, int) -> int
_%_(uint, uint) -> uint
-_(double) -> double
-_(int) -> int
!_(bool) -> bool
_==_(A, A) -> bool
_!=_(A, A) -> bool
@in(A, list(A)) -> bool
@in(A, map(A, B)) -> bool
_&&_(bool, bool) -> bool
_||_(bool, bool) -> bool
_?_:_(bool, A, A) -> A
_[_](list(A), int) -> A
_[_](map(A, B), A) -> B
_[_](optional(list(A)), int) -> optional(A)
_[_](optional(map(A, B)), A) -> optional(B)
_[?_](list(A), int) -> optional(A)
_[?_](map(A, B), A) -> optional(B)
_[?_](optional(list(A)), int) -> optional(A)
_[?_](optional(map(A, B)), A) -> optional(B)
size(bytes) -> int
size(list(A)) -> int
size(map(A, B)) -> int
size(string) -> int
bytes::size() -> int
list(A)::size() -> int
map(A, B)::size() -> int
string::size() -> int
type(A) -> type(A)
dyn(A) -> dyn
bool(bool) -> bool
bool(string) -> bool
bytes(bytes) -> bytes
bytes(string) -> bytes
double(double) -> double
double(int) -> double
double(string) -> double
double(uint) -> double
duration(duration) -> duration
duration(string) -> duration
int(int) -> int
int(double) -> int
int(duration) -> int
int(string) -> int
int(timestamp) -> int
int(uint) -> int
string(string) -> string
string(bool) -> string
string(bytes) -> string
string(double) -> string
string(duration) -> string
string(int) -> string
string(timestamp) -> string
string(uint) -> string
string(net.IP) -> string
string(net.CIDR) -> string
timestamp(timestamp) -> timestamp
timestamp(int) -> timestamp
timestamp(string) -> timestamp
uint(uint) -> uint
uint(double) -> uint
uint(int) -> uint
uint(string) -> uint
optional.of(A) -> optional(A)
optional.ofNonZeroValue(A) -> optional(A)
optional.none() -> optional(A)
optional(A)::hasValue() -> bool
optional(A)::value() -> A
optional(A)::or(optional(A)) -> optional(A)
optional(A)::orValue(A) -> A
string::contains(string) -> bool
string::startsWith(string) -> bool
string::endsWith(string) -> bool
string::matches(string) -> bool
matches(string, string) -> bool
string::charAt(int) -> string
list(A)::indexOf(A) -> int
string::indexOf(string) -> int
string::indexOf(string, int) -> int
list(A)::lastIndexOf(A) -> int
string::lastIndexOf(string) -> int
string::lastIndexOf(string, int) -> int
string::lowerAscii() -> string
string::upperAscii() -> string
string::trim() -> string
string::replace(string, string) -> string
string::replace(string, string, int) -> string
string::split(string) -> list(string)
string::split(string, int) -> list(string)
string::substring(int) -> string
string::substring(int, int) -> string
string::format(list(dyn)) -> string
strings.quote(string) -> string
list(string)::join() -> string
list(string)::join(string) -> string
string::find(string) -> string
string::findAll(string) -> list(string)
string::findAll(string, int) -> list(string)
jsonpatch.escapeKey(string) -> string
list(ordered)::isSorted() -> bool
list(summable)::sum() -> summable
list(ordered)::min() -> ordered
list(ordered)::max() -> ordered
list(ordered)::sort() -> list(ordered)
list(A)::@sortByAssociatedKeys(list(ordered)) -> list(A)
list(A)::distinct() -> list(A)
list(A)::reverse() -> list(A)
list(A)::slice(int, int) -> list(A)
list(list(A))::flatten() -> list(A)
list(dyn)::flatten(int) -> list(dyn)
list(A)::first() -> optional(A)
list(A)::last() -> optional(A)
lists.range(int) -> list(int)
sets.contains(list(A), list(A)) -> bool
sets.equivalent(list(A), list(A)) -> bool
sets.intersects(list(A), list(A)) -> bool
timestamp::getFullYear() -> int
timestamp::getFullYear(string) -> int
timestamp::getMonth() -> int
timestamp::getMonth(string) -> int
timestamp::getDayOfYear() -> int
timestamp::getDayOfYear(string) -> int
timestamp::getDayOfMonth() -> int
timestamp::getDayOfMonth(string) -> int
timestamp::getDate() -> int
timestamp::getDate(string) -> int
timestamp::getDayOfWeek() -> int
timestamp::getDayOfWeek(string) -> int
timestamp::getHours() -> int
timestamp::getHours(string) -> int
duration::getHours() -> int
timestamp::getMinutes() -> int
timestamp::getMinutes(string) -> int
duration::getMinutes() -> int
timestamp::getSeconds() -> int
timestamp::getSeconds(string) -> int
duration::getSeconds() -> int
timestamp::getMilliseconds() -> int
timestamp::getMilliseconds(string) -> int
duration::getMilliseconds() -> int
cel.@mapInsert(map(A, B), A, B) -> map(A, B)
cel.@mapInsert(map(A, B), map(A, B)) -> map(A, B)
optional.unwrap(list(optional(A))) -> list(A)
list(optional(A))::unwrapOpt() -> list(A)
quantity(string) -> kubernetes.Quantity
isQuantity(string) -> bool
sign(kubernetes.Quantity) -> int
kubernetes.Quantity::isInteger() -> bool
kubernetes.Quantity::asInteger() -> int
kubernetes.Quantity::asApproximateFloat() -> double
kubernetes.Quantity::isGreaterThan(kubernetes.Quantity) -> bool
kubernetes.Quantity::isLessThan(kubernetes.Quantity) -> bool
kubernetes.Quantity::compareTo(kubernetes.Quantity) -> int
kubernetes.Quantity::add(kubernetes.Quantity) -> kubernetes.Quantity
kubernetes.Quantity::add(int) -> kubernetes.Quantity
kubernetes.Quantity::sub(kubernetes.Quantity) -> kubernetes.Quantity
kubernetes.Quantity::sub(int) -> kubernetes.Quantity
semver(string) -> kubernetes.Semver
semver(string, bool) -> kubernetes.Semver
isSemver(string) -> bool
isSemver(string, bool) -> bool
kubernetes.Semver::isGreaterThan(kubernetes.Semver) -> bool
kubernetes.Semver::isLessThan(kubernetes.Semver) -> bool
kubernetes.Semver::compareTo(kubernetes.Semver) -> int
kubernetes.Semver::major() -> int
kubernetes.Semver::minor() -> int
kubernetes.Semver::patch() -> int
url(string) -> kubernetes.URL
isURL(string) -> bool
kubernetes.URL::getScheme() -> string
kubernetes.URL::getHost() -> string
kubernetes.URL::getHostname() -> string
kubernetes.URL::getPort() -> string
kubernetes.URL::getEscapedPath() -> string
kubernetes.URL::getQuery() -> map(string, list(string))
ip(string) -> net.IP
isIP(string) -> bool
ip.isCanonical(string) -> bool
net.IP::family() -> int
net.IP::isUnspecified() -> bool
net.IP::isLoopback() -> bool
net.IP::isLinkLocalMulticast() -> bool
net.IP::isLinkLocalUnicast() -> bool
net.IP::isGlobalUnicast() -> bool
cidr(string) -> net.CIDR
isCIDR(string) -> bool
net.CIDR::ip() -> net.IP
net.CIDR::masked() -> net.CIDR
net.CIDR::prefixLength() -> int
net.CIDR::containsIP(string) -> bool
net.CIDR::containsIP(net.IP) -> bool
net.CIDR::containsCIDR(string) -> bool
net.CIDR::containsCIDR(net.CIDR) -> bool
format.named(string) -> optional(kubernetes.NamedFormat)
format.dns1123Label() -> kubernetes.NamedFormat
format.dns1123Subdomain() -> kubernetes.NamedFormat
format.dns1035Label() -> kubernetes.NamedFormat
format.dns1123LabelPrefix() -> kubernetes.NamedFormat
format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat
format.dns1035LabelPrefix() -> kubernetes.NamedFormat
format.qualifiedName() -> kubernetes.NamedFormat
format.labelValue() -> kubernetes.NamedFormat
format.uri() -> kubernetes.NamedFormat
format.uuid() -> kubernetes.NamedFormat
format.byte() -> kubernetes.NamedFormat
format.date() -> kubernetes.NamedFormat
format.datetime() -> kubernetes.NamedFormat
kubernetes.NamedFormat::validate(string) -> optional(list(string))
kubernetes.authorization.Authorizer::path(string) -> kubernetes.authorization.PathCheck
kubernetes.authorization.Authorizer::group(string) -> kubernetes.authorization.GroupCheck
kubernetes.authorization.Authorizer::serviceAccount(string, string) -> kubernetes.authorization.Authorizer
kubernetes.authorization.PathCheck::check(string) -> kubernetes.authorization.Decision
kubernetes.authorization.GroupCheck::resource(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck::subresource(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck::namespace(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck::name(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck::fieldSelector(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck::labelSelector(string) -> kubernetes.authorization.ResourceCheck
kubernetes.authorization.ResourceCheck::check(string) -> kubernetes.authorization.Decision
kubernetes.authorization.Decision::allowed() -> bool
kubernetes.authorization.Decision::reason() -> string
kubernetes.authorization.Decision::errored() -> bool
kubernetes.authorization.Decision::error() -> string
";

/// What lists of Kubernetes can be put in order and added up, in upstream's order: an empty list is of the first one.
const COMPARABLE: [Type; 8] =
    [Type::Int, Type::Uint, Type::Double, Type::Bool, Type::Duration, Type::Timestamp, Type::String, Type::Bytes];
const SUMMABLE: [Type; 4] = [Type::Int, Type::Uint, Type::Double, Type::Duration];

/// What can be compared with `<`, in upstream's order; numbers of different types can be.
const ORDERED: [(&str, &str); 14] = [
    ("bool", "bool"),
    ("int", "int"),
    ("int", "double"),
    ("int", "uint"),
    ("uint", "uint"),
    ("uint", "double"),
    ("uint", "int"),
    ("double", "double"),
    ("double", "int"),
    ("double", "uint"),
    ("string", "string"),
    ("bytes", "bytes"),
    ("timestamp", "timestamp"),
    ("duration", "duration"),
];

/// The ways to call a function; none of what the table does not have.
pub(crate) fn of(name: &str) -> &'static [Signature] {
    static ALL: OnceLock<HashMap<String, Vec<Signature>>> = OnceLock::new();
    ALL.get_or_init(all).get(name).map(Vec::as_slice).unwrap_or_default()
}

fn all() -> HashMap<String, Vec<Signature>> {
    let mut all: HashMap<String, Vec<Signature>> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let (name, signature) = parse(line);
        all.entry(name).or_default().extend(each_of(signature));
    }
    for operator in ["_<_", "_<=_", "_>_", "_>=_"] {
        let signature =
            |(left, right)| Signature { method: false, arguments: vec![ty(left), ty(right)], result: Type::Bool, variables: 0 };
        all.insert(operator.to_owned(), ORDERED.into_iter().map(signature).collect());
    }
    all
}

fn parse(line: &'static str) -> (String, Signature) {
    let (call, result) = line.rsplit_once(" -> ").unwrap_or((line, "dyn"));
    let (target, call) = call.split_once("::").map_or((None, call), |(target, call)| (Some(target), call));
    let (name, arguments) = call.split_once('(').unwrap_or((call, ")"));
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    let all: Vec<Type> = target.into_iter().chain(parts(arguments)).map(ty).collect();
    let result = ty(result);
    let variables = all.iter().chain([&result]).map(letters).max().unwrap_or_default();
    (name.to_owned(), Signature { method: target.is_some(), arguments: all, result, variables })
}

/// How many letters there are in a type: its last one tells.
fn letters(ty: &Type) -> u32 {
    match ty {
        Type::Variable(letter) => letter + 1,
        other => other.parameters().iter().map(letters).max().unwrap_or_default(),
    }
}

/// A signature of one type for each of those that a word in it stands for.
fn each_of(signature: Signature) -> Vec<Signature> {
    let word = |word: &'static str| signature.arguments.iter().any(|ty| mentions(ty, word));
    let (word, types) = match (word("ordered"), word("summable")) {
        (true, _) => ("ordered", &COMPARABLE[..]),
        (_, true) => ("summable", &SUMMABLE[..]),
        _ => return vec![signature],
    };
    let of = |one: &Type| Signature {
        arguments: signature.arguments.iter().map(|ty| replaced(ty, word, one)).collect(),
        result: replaced(&signature.result, word, one),
        ..signature
    };
    types.iter().map(of).collect()
}

fn mentions(ty: &Type, word: &str) -> bool {
    matches!(ty, Type::Opaque(name) if *name == word) || ty.parameters().iter().any(|inner| mentions(inner, word))
}

fn replaced(ty: &Type, word: &str, by: &Type) -> Type {
    match ty {
        Type::Opaque(name) if *name == word => by.clone(),
        other => other.with(|inner| replaced(inner, word, by)),
    }
}

/// Types between commas that are in no brackets.
fn parts(text: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(text[start..].trim());
    out.retain(|part| !part.is_empty());
    out
}

fn ty(text: &'static str) -> Type {
    let inner =
        |name: &str| text.strip_prefix(name).and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.strip_suffix(')'));
    if let Some(inner) = inner("list") {
        return Type::list(ty(inner));
    }
    if let Some(inner) = inner("optional") {
        return Type::optional(ty(inner));
    }
    if let Some(inner) = inner("type") {
        return Type::Type(Arc::new(ty(inner)));
    }
    if let Some([key, value]) = inner("map").map(parts).as_deref() {
        return Type::map(ty(key), ty(value));
    }
    match text {
        "A" => Type::Variable(0),
        "B" => Type::Variable(1),
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        opaque => Type::Opaque(opaque),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_functions_that_are_there_have_signatures() {
        for (name, most) in crate::functions::names() {
            let longest = of(name).iter().map(|one| one.arguments.len()).max();
            assert_eq!(longest, Some(most), "{name}");
        }
    }

    #[test]
    fn lines_are_read() {
        let get = of("getQuery");
        assert_eq!((get[0].method, get[0].result.to_string().as_str()), (true, "map(string, list(string))"));
        assert_eq!((of("_<_").len(), of("_[_]")[1].variables), (5 + 9, 2));
        assert_eq!(of("getQuery")[0].arguments, [Type::Opaque("kubernetes.URL")]);
    }
}
