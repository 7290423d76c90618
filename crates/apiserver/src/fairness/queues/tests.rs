#![allow(clippy::unwrap_used)]
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::*;

/// Writes down when it is seated.
struct Named(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Guest for Named {
    fn seated(&mut self, _: Seconds) {
        self.1.borrow_mut().push(self.0);
    }

    fn unaccommodated(&mut self) {}
}

/// A level with a story.
struct Level {
    queues: Queues<Named>,
    seated: Rc<RefCell<Vec<&'static str>>>,
    keys: HashMap<&'static str, usize>,
}

const QUEUING: Queuing = Queuing { queues: 8, hand: 1, length: 4 };

impl Level {
    fn new(response: Response, limit: u32) -> Self {
        let mut queues = Queues::new(0.0);
        queues.configure(0.0, response, limit);
        Self { queues, seated: Rc::default(), keys: HashMap::new() }
    }

    /// `name` comes. Its first letter is its flow.
    fn enter(&mut self, now: Seconds, name: &'static str, seats: u32) -> Entered {
        let work = Work { seats, after: 0.0 };
        let entered = self.queues.enter(now, u64::from(name.as_bytes()[0]), work, Named(name, self.seated.clone()));
        if let Entered::Seated { key, .. } | Entered::Waits { key, .. } = entered {
            self.keys.insert(name, key);
        }
        entered
    }

    fn leave(&mut self, now: Seconds, name: &'static str) -> Left {
        let key = self.keys.remove(name).unwrap();
        self.queues.leave(now, key).unwrap().1
    }

    /// Who was seated since this was asked last.
    fn seated(&self) -> Vec<&'static str> {
        self.seated.take()
    }
}

#[test]
fn who_finds_a_seat_does_not_wait() {
    let mut level = Level::new(Response::Queue(QUEUING), 2);
    assert!(matches!(level.enter(0.0, "a1", 1), Entered::Seated { length: 1, .. }));
    assert!(matches!(level.enter(0.0, "a2", 1), Entered::Seated { length: 1, .. }));
    assert!(matches!(level.enter(0.0, "a3", 1), Entered::Waits { length: 1, .. }));
    assert!(matches!(level.enter(0.0, "a4", 1), Entered::Waits { length: 2, .. }));
    assert_eq!(level.seated(), ["a1", "a2"]);
    assert_eq!(level.leave(1.0, "a1"), Left::Executed(1.0));
    assert_eq!(level.seated(), ["a3"]);
    assert_eq!(level.leave(2.0, "a4"), Left::GaveUp(2.0));
    level.leave(2.0, "a2");
    level.leave(3.0, "a3");
    assert!(level.queues.is_idle() && level.queues.active == 0);
    let counts = Counts { dispatched: 3, rejected: 1, gave_up: 1, ..Counts::default() };
    assert_eq!(level.queues.counts(), counts);
}

#[test]
fn full_queues_and_levels_without_queues_refuse() {
    let mut level = Level::new(Response::Queue(QUEUING), 1);
    let entered: Vec<_> = ["a1", "a2", "a3", "a4", "a5", "a6"].map(|name| level.enter(0.0, name, 1)).into();
    assert!(matches!(entered[4], Entered::Waits { length: 4, .. }));
    assert_eq!(entered[5], Entered::Refused(Reason::QueueFull));
    // Another flow has a queue of its own.
    assert!(matches!(level.enter(0.0, "b1", 1), Entered::Waits { .. }));
    let mut level = Level::new(Response::Reject, 2);
    assert!(matches!(level.enter(0.0, "a1", 1), Entered::Seated { length: 0, .. }));
    assert_eq!(level.enter(0.0, "a2", 2), Entered::Refused(Reason::ConcurrencyLimit));
    level.leave(0.0, "a1");
    assert!(matches!(level.enter(0.0, "a2", 2), Entered::Seated { .. }));
}

/// KEP-1040: a flow that sends much does not hold up one that sends little.
#[test]
fn flows_take_turns() {
    let mut level = Level::new(Response::Queue(QUEUING), 1);
    ["a1", "a2", "a3", "a4"].iter().for_each(|name| {
        level.enter(0.0, name, 1);
    });
    level.enter(0.5, "b1", 1);
    level.enter(0.5, "c1", 1);
    level.leave(1.0, "a1");
    level.leave(2.0, level_next(&level));
    let two = level.seated();
    assert_eq!(two[0], "a1");
    assert!(two[1..].contains(&"b1") && two[1..].contains(&"c1"), "{two:?}");
}

/// Who was seated last.
fn level_next(level: &Level) -> &'static str {
    level.seated.borrow().last().copied().unwrap()
}

#[test]
fn what_takes_long_counts_for_as_much_as_it_took() {
    // Both flows always have something waiting; a's requests take nine times as long.
    let mut level = Level::new(Response::Queue(Queuing { length: 100, ..QUEUING }), 1);
    let mut now = 0.0;
    let names = |flow: char| (0..40).map(move |n| &*Box::leak(format!("{flow}{n}").into_boxed_str()));
    for name in names('a').chain(names('b')) {
        level.enter(0.0, name, 1);
    }
    let mut served = HashMap::from([('a', 0.0), ('b', 0.0)]);
    for _ in 0..30 {
        let name = level_next(&level);
        let flow = name.chars().next().unwrap();
        let took = if flow == 'a' { 0.9 } else { 0.1 };
        now += took;
        *served.get_mut(&flow).unwrap() += took;
        level.leave(now, name);
    }
    assert!((served[&'a'] - served[&'b']).abs() <= 0.9, "{served:?}");
}

#[test]
fn wide_requests_wait_for_all_their_seats() {
    let mut level = Level::new(Response::Queue(QUEUING), 4);
    level.enter(0.0, "a1", 2);
    level.enter(0.0, "b1", 3);
    // It would fit, but then the wide one would never be executed.
    assert!(matches!(level.enter(0.1, "c1", 1), Entered::Waits { .. }));
    level.leave(1.0, "a1");
    assert_eq!(level.seated(), ["a1", "b1", "c1"]);
    level.leave(2.0, "b1");
    level.leave(2.0, "c1");
    assert!(matches!(level.enter(3.0, "a2", 9), Entered::Seated { .. }), "alone it may be wider than the level");
    assert!(matches!(level.enter(3.0, "b2", 1), Entered::Waits { .. }));
}

#[test]
fn a_level_without_seats_lets_nobody_in() {
    let mut level = Level::new(Response::Queue(QUEUING), 0);
    assert!(matches!(level.enter(0.0, "a1", 1), Entered::Waits { .. }));
    level.queues.configure(1.0, Response::Queue(QUEUING), 1);
    assert_eq!(level.seated(), ["a1"]);
}

#[test]
fn queues_that_are_too_many_go_when_they_are_empty() {
    let mut level = Level::new(Response::Queue(QUEUING), 1);
    ["a1", "a2", "b1"].iter().for_each(|name| {
        level.enter(0.0, name, 1);
    });
    let fewer = Response::Queue(Queuing { queues: 1, ..QUEUING });
    level.queues.configure(0.0, fewer, 1);
    assert!(level.queues.queues().len() > 1);
    level.leave(1.0, "a1");
    let second = level_next(&level);
    level.leave(2.0, second);
    let third = level_next(&level);
    level.leave(3.0, third);
    assert_eq!((level.queues.queues().len(), level.queues.is_idle()), (1, true));
    // What waits when queues are given up is still served.
    let mut level = Level::new(Response::Queue(QUEUING), 1);
    ["a1", "a2"].iter().for_each(|name| {
        level.enter(0.0, name, 1);
    });
    level.queues.configure(0.0, Response::Reject, 1);
    assert_eq!(level.enter(0.0, "a3", 1), Entered::Refused(Reason::ConcurrencyLimit));
    level.leave(1.0, "a1");
    assert_eq!(level.seated(), ["a1", "a2"]);
    level.leave(2.0, "a2");
    assert!(level.queues.queues().is_empty() && level.queues.is_idle());
}

#[test]
fn demand_is_what_is_used_and_wanted() {
    let mut level = Level::new(Response::Queue(QUEUING), 2);
    ["a1", "a2", "a3"].iter().for_each(|name| {
        level.enter(0.0, name, 1);
    });
    level.leave(1.0, "a1");
    let found = level.queues.demand().take(2.0);
    assert_eq!((found.average, found.most), (2.5, 3.0));
}

/// However flows come and go, all seats are used while somebody waits, none twice, and everybody leaves.
#[test]
fn seats_add_up() {
    let mut level: Queues<Named> = Queues::new(0.0);
    level.configure(0.0, Response::Queue(Queuing { queues: 16, hand: 3, length: 10 }), 7);
    let seated = Rc::default();
    let (mut state, mut keys) = (1_u64, Vec::new());
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for step in 0..20_000 {
        let now = f64::from(step) * 0.001;
        if random(2) == 0 {
            let work = Work { seats: 1 + random(3) as u32, after: 0.0 };
            let flow = random(20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            match level.enter(now, flow, work, Named("", Rc::clone(&seated))) {
                Entered::Seated { key, .. } | Entered::Waits { key, .. } => keys.push(key),
                Entered::Refused(_) => {}
            }
        } else if !keys.is_empty() {
            let key = keys.swap_remove(random(keys.len() as u64) as usize);
            assert!(level.leave(now, key).is_some());
        }
        let counts = level.counts();
        let seats: u32 = level
            .requests()
            .filter(|(_, request)| request.started.is_some() && !request.released)
            .map(|(_, request)| request.work.seats)
            .sum();
        assert!(counts.seats == seats && seats <= 7, "{counts:?}");
        assert!(counts.waiting == 0 || seats > 4, "a seat is free for the widest that may wait: {counts:?}");
        assert_eq!(counts.waiting + counts.executing, keys.len());
    }
    for key in keys {
        level.leave(30.0, key);
    }
    assert_eq!((level.is_idle(), level.active, level.counts().seats_waiting), (true, 0, 0));
}

/// Who reads slowly, or not at all, does not keep others from their seats.
#[test]
fn what_is_sent_holds_its_seats_for_a_while() {
    let mut level = Level::new(Response::Queue(QUEUING), 1);
    level.enter(0.0, "a1", 1);
    level.enter(0.0, "b1", 1);
    let first = level.keys["a1"];
    level.queues.sends(0.5, first);
    level.queues.tick(5.4);
    assert_eq!(level.seated(), ["a1"]);
    level.queues.tick(5.5);
    assert_eq!(level.seated(), ["b1"]);
    // It has nothing to give back any more.
    assert_eq!(level.leave(9.0, "a1"), Left::Executed(9.0));
    assert_eq!(level.queues.counts().seats, 1);
    // What is over in time leaves nothing that another one with its key could suffer from.
    let second = level.keys["b1"];
    level.queues.sends(9.0, second);
    level.leave(9.1, "b1");
    level.enter(9.2, "c1", 1);
    level.enter(9.2, "c2", 1);
    level.queues.tick(99.0);
    assert_eq!(level.seated(), ["c1"]);
    level.leave(99.0, "c1");
    level.leave(99.0, "c2");
    assert!(level.queues.is_idle() && level.queues.active == 0);
}
