//! What a PriorityLevelConfiguration says.

use apimachinery::meta;
use serde_json::Value;

/// Where requests wait that find no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queuing {
    pub(crate) queues: usize,
    /// The queues among which a flow has its place.
    pub(crate) hand: usize,
    /// The most that wait in one of them.
    pub(crate) length: usize,
}

/// What becomes of requests that find no seat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Response {
    #[default]
    Reject,
    Queue(Queuing),
}

/// A priority level, as it is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LevelConfig {
    /// Whether nothing limits it.
    pub(crate) exempt: bool,
    pub(crate) shares: u32,
    /// Percent of the level's seats that others may borrow.
    pub(crate) lendable: u32,
    /// Percent of its seats that it may borrow of others, any number if None.
    pub(crate) borrowing: Option<u32>,
    pub(crate) response: Response,
}

impl LevelConfig {
    /// Reads an object. None for one that contradicts itself, which counts as if it did not exist.
    pub(crate) fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let is_exempt = spec["type"] == "Exempt";
        // A level does not become exempt, or limited, while it has requests.
        if is_exempt != (meta::name(object) == "exempt") {
            return None;
        }
        let part = spec.get(if is_exempt { "exempt" } else { "limited" }).filter(|part| part.is_object())?;
        let response = match part.pointer("/limitResponse/type").and_then(Value::as_str) {
            Some("Queue") => Response::Queue(queuing(&part["limitResponse"]["queuing"])?),
            _ => Response::Reject,
        };
        Some(Self {
            exempt: is_exempt,
            shares: number(part, "nominalConcurrencyShares").unwrap_or_default(),
            lendable: number(part, "lendablePercent").unwrap_or_default(),
            borrowing: number(part, "borrowingLimitPercent"),
            response,
        })
    }
}

fn queuing(object: &Value) -> Option<Queuing> {
    let size = |field: &str| number(object, field).filter(|size| *size > 0).map(|size| size as usize);
    Some(Queuing { queues: size("queues")?, hand: size("handSize")?, length: size("queueLengthLimit")? })
}

fn number(object: &Value, field: &str) -> Option<u32> {
    object.get(field).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels() {
        let check = |name: &str, spec: Value, expected: Option<LevelConfig>| {
            assert_eq!(LevelConfig::read(&json!({"metadata": {"name": name}, "spec": spec})), expected, "{name} {spec}");
        };
        let queuing = json!({"queues": 64, "handSize": 6, "queueLengthLimit": 50});
        let limited = json!({"nominalConcurrencyShares": 30, "lendablePercent": 33, "limitResponse": {"type": "Queue", "queuing": queuing}});
        let queue = Response::Queue(Queuing { queues: 64, hand: 6, length: 50 });
        let level = LevelConfig { shares: 30, lendable: 33, response: queue, ..LevelConfig::default() };
        check("system", json!({"type": "Limited", "limited": limited}), Some(level));
        let mut borrowing = limited.clone();
        borrowing["borrowingLimitPercent"] = json!(0);
        check("system", json!({"type": "Limited", "limited": borrowing}), Some(LevelConfig { borrowing: Some(0), ..level }));
        let reject = json!({"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}});
        check("x", json!({"type": "Limited", "limited": reject}), Some(LevelConfig { shares: 5, ..LevelConfig::default() }));
        check("exempt", json!({"type": "Exempt", "exempt": {}}), Some(LevelConfig { exempt: true, ..LevelConfig::default() }));
        check("exempt", json!({"type": "Limited", "limited": limited}), None);
        check("x", json!({"type": "Exempt", "exempt": {}}), None);
        check("x", json!({"type": "Limited"}), None);
        check("x", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}}), None);
    }

    #[test]
    fn every_cluster_has_levels_that_can_be_read() {
        let levels = kinds::bootstrap().into_iter().filter(|one| one.plural == "prioritylevelconfigurations");
        let read: Vec<_> = levels.map(|one| LevelConfig::read(&one.object)).collect();
        assert_eq!((read.len(), read.iter().flatten().map(|level| level.shares).sum::<u32>()), (8, 245));
    }
}
