//! Answers of other servers, kept for as long as they hold but no longer than [`MAX_TTL`]. Pure; the caller brings the time.
//!
//! Messages are kept as they came: the identifier and the letters' case of the question are the asker's, and every
//! time to live has shrunk by the time that passed. Two questions are the same when all but these are: so a client
//! without EDNS never gets what another was told with it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::wire::{self, OPT, SOA, question_end};

/// As kubeadm configures CoreDNS, seconds.
const MAX_TTL: u32 = 30;
/// How long it is remembered that no server answered: the least that RFC 9520, 3.2 asks for, since a name resolves again no sooner after
/// its servers have come back.
const FAILURE: Duration = Duration::from_secs(1);
const MAX_ENTRIES: usize = 5000;
/// Longer answers, which are rare, are asked for again. Bytes.
const MAX_LENGTH: usize = 2048;

type Key = Box<[u8]>;

#[derive(Debug)]
struct Entry {
    /// None: no server answered.
    reply: Option<Box<[u8]>>,
    /// Where the times to live are.
    ttls: Vec<usize>,
    stored: Instant,
    expires: (Instant, u64),
}

/// Replies by question.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    expiries: BTreeMap<(Instant, u64), Key>,
    count: u64,
}

impl Cache {
    /// The reply to `query`: none when it is not known, None inside when no server had one.
    pub(crate) fn get(&self, query: &[u8], tcp: bool, now: Instant) -> Option<Option<Vec<u8>>> {
        let entry = self.entries.get(&key(query, tcp)?).filter(|entry| entry.expires.0 > now)?;
        let Some(reply) = &entry.reply else { return Some(None) };
        let mut reply = reply.to_vec();
        let end = question_end(query)?;
        reply.get_mut(..2)?.copy_from_slice(&query[..2]);
        reply.get_mut(12..end)?.copy_from_slice(&query[12..end]);
        let age = u32::try_from(now.saturating_duration_since(entry.stored).as_secs()).unwrap_or(u32::MAX);
        for at in &entry.ttls {
            let ttl = reply.get_mut(*at..)?.first_chunk_mut::<4>()?;
            *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
        }
        Some(Some(reply))
    }

    /// Keeps the reply to `query`, None when no server gave one, if it may be kept.
    pub(crate) fn put(&mut self, query: &[u8], tcp: bool, reply: Option<&[u8]>, now: Instant) {
        let Some(key) = key(query, tcp) else { return };
        let (ttls, holds) = match reply.map(|reply| lifetime(reply, query)) {
            None => (Vec::new(), FAILURE),
            Some(Some((ttls, seconds))) => (ttls, Duration::from_secs(seconds.into())),
            Some(None) => return,
        };
        self.count += 1;
        let expires = (now + holds, self.count);
        let entry = Entry { reply: reply.map(Box::from), ttls, stored: now, expires };
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.expiries.remove(&old.expires);
        }
        self.expiries.insert(expires, key);
        while self.entries.len() > MAX_ENTRIES || self.expiries.first_key_value().is_some_and(|((due, _), _)| *due <= now) {
            let Some((_, key)) = self.expiries.pop_first() else { break };
            self.entries.remove(&key);
        }
    }
}

/// What makes two queries the same. None when the answer may depend on more: options of EDNS, signatures.
fn key(query: &[u8], tcp: bool) -> Option<Key> {
    let end = question_end(query)?;
    let plain = match query.get(end..)? {
        [] => true,
        // The root's name, type, size and flags, no options.
        [0, high, low, _, _, _, _, _, _, 0, 0] => u16::from_be_bytes([*high, *low]) == OPT,
        _ => false,
    };
    if !plain || query[4..6] != [0, 1] {
        return None;
    }
    let mut key = Vec::with_capacity(query.len());
    key.push(u8::from(tcp));
    key.extend_from_slice(&query[2..]);
    // Lengths of labels are below the letters; the type after the name stays as it is.
    key[11..end - 5].make_ascii_lowercase();
    Some(key.into())
}

/// Where the times to live of a reply are, and for how many seconds it may be kept. None: not at all.
fn lifetime(reply: &[u8], query: &[u8]) -> Option<(Vec<usize>, u32)> {
    let end = question_end(query)?;
    let (truncated, code) = (reply.get(2)? & 2 != 0, reply.get(3)? & 15);
    // NOERROR and NXDOMAIN.
    if truncated
        || !matches!(code, 0 | 3)
        || reply.get(4..6)? != [0, 1]
        || reply.len() > MAX_LENGTH
        || question_end(reply)? != end
    {
        return None;
    }
    let records = wire::records(reply)?;
    let mut seconds = MAX_TTL;
    let mut denial = None;
    let mut ttls = Vec::new();
    for record in records.iter().filter(|record| record.kind != OPT) {
        let ttl = u32::from_be_bytes(*reply.get(record.ttl..)?.first_chunk()?);
        seconds = seconds.min(ttl);
        ttls.push(record.ttl);
        if record.kind == SOA {
            denial = Some(ttl.min(u32::from_be_bytes(*reply.get(..record.bytes.end)?.last_chunk()?)));
        }
    }
    // That there is nothing holds as long as the zone says (RFC 2308).
    let has_answers = records.iter().any(|record| record.section == wire::Section::Answer);
    let seconds = if code == 3 || !has_answers { seconds.min(denial?) } else { seconds };
    (seconds > 0).then_some((ttls, seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hickory_proto::op::{Edns, Message, Query, ResponseCode};
    use hickory_proto::rr::rdata::SOA as Soa;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    fn query(name: &str, edns: bool) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        if edns {
            message.set_edns(Edns::new());
        }
        message
    }

    /// The reply with an address that lives for `ttl`, or a denial by a zone whose minimum it is.
    fn reply(query: &Message, code: ResponseCode, ttl: u32) -> Vec<u8> {
        let mut reply = query.clone().into_response();
        reply.metadata.response_code = code;
        let name = query.queries[0].name().clone();
        if code == ResponseCode::NXDomain {
            let soa = Soa::new(name.clone(), name.clone(), 1, 2, 3, 4, ttl);
            reply.authorities.push(Record::from_rdata(name, 3600, RData::SOA(soa)));
        } else {
            reply.add_answer(Record::from_rdata(name, ttl, RData::A(std::net::Ipv4Addr::new(192, 0, 2, 1).into())));
        }
        reply.to_vec().unwrap()
    }

    /// The time to live that a question gets `after` seconds after the answer came; none when it has to be asked again.
    #[track_caller]
    fn check(code: ResponseCode, ttl: u32, after: u64, expected: Option<u32>) {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let first = query("www.example.com.", false);
        cache.put(&first.to_vec().unwrap(), false, Some(&reply(&first, code, ttl)), now);
        let again = query("WWW.Example.com.", false);
        let found = cache.get(&again.to_vec().unwrap(), false, now + Duration::from_secs(after));
        let found = found.map(|reply| Message::from_vec(&reply.unwrap()).unwrap());
        if let Some(found) = &found {
            assert_eq!((found.metadata.id, found.metadata.response_code), (again.metadata.id, code));
            assert_eq!(found.queries[0].name().to_string(), "WWW.Example.com.");
        }
        let record = found.map(|found| found.answers.first().or(found.authorities.first()).unwrap().ttl);
        assert_eq!(record, expected);
    }

    #[test]
    fn answers_hold_as_long_as_they_say() {
        check(ResponseCode::NoError, 10, 0, Some(10));
        check(ResponseCode::NoError, 10, 9, Some(1));
        check(ResponseCode::NoError, 10, 10, None);
        check(ResponseCode::NoError, 3600, 29, Some(3571));
        check(ResponseCode::NoError, 3600, 30, None);
        check(ResponseCode::NoError, 0, 0, None);
        check(ResponseCode::NXDomain, 5, 4, Some(3596));
        check(ResponseCode::NXDomain, 5, 5, None);
        check(ResponseCode::ServFail, 60, 0, None);
    }

    #[test]
    fn only_equal_questions_share_an_answer() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let known = |cache: &Cache, message: &Message, tcp| cache.get(&message.to_vec().unwrap(), tcp, now).is_some();
        let plain = query("a.example.", false);
        cache.put(&plain.to_vec().unwrap(), false, Some(&reply(&plain, ResponseCode::NoError, 60)), now);
        assert!(known(&cache, &query("A.EXAMPLE.", false), false));
        assert!(!known(&cache, &query("a.example.", true), false), "EDNS");
        assert!(!known(&cache, &plain, true), "another transport");
        assert!(!known(&cache, &query("b.example.", false), false));
        let mut truncated = Message::from_vec(&reply(&query("b.example.", false), ResponseCode::NoError, 60)).unwrap();
        truncated.metadata.truncation = true;
        cache.put(&query("b.example.", false).to_vec().unwrap(), false, Some(&truncated.to_vec().unwrap()), now);
        assert!(!known(&cache, &query("b.example.", false), false), "a part of an answer");
        cache.put(b"\x12\x34nonsense", false, None, now);
        assert_eq!(cache.entries.len(), 1);
    }

    #[test]
    fn failures_are_remembered_and_the_cache_is_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let dead = query("dead.example.", false).to_vec().unwrap();
        cache.put(&dead, false, None, now);
        assert_eq!(cache.get(&dead, false, now), Some(None));
        assert_eq!(cache.get(&dead, false, now + FAILURE), None);
        for index in 0..MAX_ENTRIES + 10 {
            let query = query(&format!("n{index}.example."), false);
            cache.put(&query.to_vec().unwrap(), false, Some(&reply(&query, ResponseCode::NoError, 60)), now);
        }
        assert_eq!((cache.entries.len(), cache.expiries.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert_eq!(cache.get(&dead, false, now), None, "what ends first goes first");
        cache.put(&dead, false, None, now + Duration::from_secs(60));
        assert_eq!((cache.entries.len(), cache.expiries.len()), (1, 1));
    }
}
