//! `/debug/api_priority_and_fairness/`: levels, queues and requests as text, in upstream's columns.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::queues::{Queue, Request};
use super::seat::{Guest, Level};
use super::{Fairness, Seconds, now};
use crate::route::{self, Route};

const LEVELS: &[&str] = &[
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: &[&str] = &[
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: &[&str] = &[
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: &[&str] = &["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

/// The start of what waits still, as Go writes the time that is none.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The page of that name. With `details` it says of each request what is asked.
pub(crate) fn page(fairness: &Fairness, name: &str, details: bool) -> Option<String> {
    let snapshot = fairness.snapshot();
    let levels = snapshot.levels.values();
    let (head, rows): (Vec<&str>, Vec<Vec<String>>) = match name {
        "dump_priority_levels" => {
            let dispatched = |level: &Level| {
                let flows = snapshot.flows.iter().filter(|flow| flow.level.name == level.name);
                flows.map(|flow| flow.stats.lock().dispatched).sum()
            };
            (LEVELS.to_vec(), levels.map(|level| level_row(level, dispatched(level))).collect())
        }
        "dump_queues" => (QUEUES.to_vec(), levels.flat_map(|level| queue_rows(level)).collect()),
        "dump_requests" => {
            let head = REQUESTS.iter().chain(if details { DETAILS } else { &[] }).copied().collect();
            (head, levels.flat_map(|level| request_rows(level, details)).collect())
        }
        _ => return None,
    };
    Some(columns(&head, &rows))
}

fn level_row(level: &Level, dispatched: u64) -> Vec<String> {
    let state = level.state.lock();
    let counts = state.queues.counts();
    let busy = state.queues.queues().iter().filter(|queue| !queue.waiting.is_empty()).count();
    drop(state);
    let (executing, dispatched) = match &level.exempt {
        Some(exempt) => (exempt.executing.load(Ordering::Relaxed) as usize, dispatched),
        None => (counts.executing, counts.dispatched),
    };
    let quiescing = level.quiescing.load(Ordering::Relaxed);
    let mut row =
        vec![level.name.clone(), busy.to_string(), (counts.waiting + executing == 0).to_string(), quiescing.to_string()];
    row.extend([counts.waiting, executing].map(|count| count.to_string()));
    row.extend([dispatched, counts.rejected, 0, counts.gave_up].map(|count| count.to_string()));
    row
}

fn queue_rows(level: &Level) -> Vec<Vec<String>> {
    let state = level.state.lock();
    let seats = |queue: &Queue| -> u32 {
        queue.waiting.iter().filter_map(|key| state.queues.request(*key)).map(|request| request.work.seats).sum()
    };
    let row = |(index, queue): (usize, &Queue)| {
        let seats = seats(queue).to_string();
        let (waiting, next) = (queue.waiting.len().to_string(), seat_seconds(queue.next_dispatch));
        let own = [index.to_string(), waiting, queue.executing.to_string(), queue.seats.to_string(), next];
        let sums = [seats.clone(), seats, seat_seconds(queue.work)];
        std::iter::once(level.name.clone()).chain(own).chain(sums).collect()
    };
    state.queues.queues().iter().enumerate().map(row).collect()
}

/// As upstream writes a fixed-point number of seat-seconds.
fn seat_seconds(value: f64) -> String {
    format!("{value:.8}ss")
}

fn request_rows(level: &Level, details: bool) -> Vec<Vec<String>> {
    let state = level.state.lock();
    let place = |key: usize, request: &Request<Guest>| match request.queue {
        // What is executed has no place in its queue any more.
        Some(at) if request.started.is_none() => {
            let queue = state.queues.queues().get(at).map(|queue| &queue.waiting);
            let index = queue.and_then(|waiting| waiting.iter().position(|other| *other == key));
            [at.to_string(), index.map_or("-1".into(), |index| index.to_string())]
        }
        Some(at) => [at.to_string(), "-1".into()],
        None => ["-1".into(), "-1".into()],
    };
    let row = |(key, request): (usize, &Request<Guest>)| {
        let guest = &request.guest;
        let path = route::decode(guest.uri.path(), false);
        let route = route::parse(&path);
        let (namespace, target) = match &route {
            Route::Resource(target) => (target.scope(), Some(target)),
            Route::Other => ("", None),
        };
        let distinguisher = guest.flow.distinguisher.value(&guest.user.name, namespace);
        let mut row = vec![level.name.clone(), guest.flow.name.clone()];
        row.extend(place(key, request));
        row.extend([distinguisher.to_owned(), time(request.arrived), request.work.seats.to_string(), "0".into(), "0s".into()]);
        row.push(request.started.map_or_else(|| NEVER.to_owned(), time));
        if details {
            row.extend([guest.user.name.clone(), guest.verb.to_owned(), path.to_string()]);
            let (name, group, version, plural, sub) =
                target.map_or(("", "", "", "", ""), |t| (t.name, t.group, t.version, t.plural, t.sub));
            let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            row.extend([namespace, name, &version, plural, sub].map(str::to_owned));
        }
        row
    };
    state.queues.requests().map(row).collect()
}

fn time(at: Seconds) -> String {
    let ago = Duration::from_secs_f64((now() - at).max(0.0));
    let then = SystemTime::now().checked_sub(ago).and_then(|then| Timestamp::try_from(then).ok());
    then.map_or_else(|| NEVER.to_owned(), |then| then.to_string())
}

/// Cells that end with a comma, in columns of at least eight characters, as Go's tabwriter aligns them.
fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count());
    let widths: Vec<usize> =
        head.iter().enumerate().map(|(at, name)| cells(at).chain([name.len()]).max().unwrap_or_default() + 2).collect();
    let mut text = String::new();
    let mut line = |row: &mut dyn Iterator<Item = &str>| {
        for (at, cell) in row.enumerate() {
            // Writing to a String cannot fail.
            let _ = match at + 1 == head.len() {
                true => write!(text, "{cell}"),
                false => {
                    write!(text, "{:width$}", format!("{cell},"), width = widths.get(at).copied().unwrap_or_default().max(8))
                }
            };
        }
        text.push('\n');
    };
    line(&mut head.iter().copied());
    rows.iter().for_each(|row| line(&mut row.iter().map(String::as_str)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_in_columns() {
        let rows = [vec!["a".to_owned(), "1".into(), "x".into()], vec!["long-name".into(), "23".into(), "y".into()]];
        let expected = "Name,      No,     Last\na,         1,      x\nlong-name, 23,     y\n";
        assert_eq!(columns(&["Name", "No", "Last"], &rows), expected);
    }
}
