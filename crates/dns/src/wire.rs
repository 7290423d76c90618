//! Messages of other servers as bytes, so that records pass whatever their types are: where their records are, and what is left of them where there is less room.
//! Pure.

use std::ops::Range;

pub(crate) const SOA: u16 = 6;
/// EDNS.
pub(crate) const OPT: u16 = 41;
/// Types whose data have names in which there may be pointers (RFC 1035, 3.3; RFC 3597, 4 for SRV): the bytes before those, and how many there are.
const NAMES: [(u16, usize, usize); 7] = [(2, 0, 1), (5, 0, 1), (SOA, 0, 2), (12, 0, 1), (15, 2, 1), (33, 6, 1), (39, 0, 1)];
const HEAD: usize = 12;
/// The longest name: "255 octets or less" (RFC 1035, 2.3.4), the last of which is that of the root.
const NAME: usize = 254;
/// Most pointers of a name: it has no more labels. Records without an end of them would take a moment each.
const POINTERS: usize = 127;

/// A part of a message with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Where a record is in its message.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) section: Section,
    pub(crate) kind: u16,
    /// Where its time to live is.
    pub(crate) ttl: usize,
    pub(crate) bytes: Range<usize>,
}

/// Where the first question ends: its name, type and class begin at 12.
pub(crate) fn question_end(message: &[u8]) -> Option<usize> {
    let mut end = HEAD;
    while *message.get(end)? != 0 {
        end += usize::from(message[end]) + 1;
    }
    (message.len() >= end + 5).then_some(end + 5)
}

/// The records of a message, as many as its head says. None when it is malformed: one is missing or broken, or a name does not end.
pub(crate) fn records(message: &[u8]) -> Option<Vec<Record>> {
    let mut at = HEAD;
    for _ in 0..number(message, 4)? {
        at = name_end(message, at)? + 4;
    }
    let mut records = Vec::new();
    for (section, counted) in [(Section::Answer, 6), (Section::Authority, 8), (Section::Additional, 10)] {
        for _ in 0..number(message, counted)? {
            let head = name_end(message, at)?;
            let (kind, data) = (number(message, head)?, head + 10);
            let end = data + usize::from(number(message, head + 8)?);
            if end > message.len() || !has_its_names(message, kind, data..end) {
                return None;
            }
            records.push(Record { section, kind, ttl: head + 4, bytes: at..end });
            at = end;
        }
    }
    (at <= message.len()).then_some(records)
}

/// Whether the names in a record's data end, and within it.
fn has_its_names(message: &[u8], kind: u16, data: Range<usize>) -> bool {
    let Some((_, before, count)) = NAMES.iter().find(|(named, ..)| *named == kind) else { return true };
    let end = (0..*count).try_fold(data.start + before, |at, _| name_end(message, at));
    end.is_some_and(|end| end <= data.end)
}

/// Where the name at `at` ends. Pointers lead to "a prior occurrence of the same name" (RFC 1035, 4.1.4): one that leads elsewhere may have no end.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    let (mut begin, mut length, mut pointers, mut end) = (at, 0, 0, None);
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(end.unwrap_or(at + 1)),
            label @ 1..64 => {
                length += label + 1;
                at += label + 1;
                if length > NAME {
                    return None;
                }
            }
            pointer @ 0xc0.. => {
                let target = (pointer & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                pointers += 1;
                if target >= begin || pointers > POINTERS {
                    return None;
                }
                end.get_or_insert(at + 2);
                (at, begin) = (target, target);
            }
            _ => return None,
        }
    }
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// A message in at most `limit` bytes: without what is only additional, and, where that is not enough, with the flag that it is cut (TC), after which clients ask
/// again by TCP (RFC 2181, 9). None when it is malformed.
pub(crate) fn cut(message: &[u8], limit: usize) -> Option<Vec<u8>> {
    let records = records(message)?;
    let begin = records.first().map_or(message.len(), |record| record.bytes.start);
    let edns = records.iter().find(|record| record.kind == OPT).map_or(&[][..], |record| &message[record.bytes.clone()]);
    let mut counts = [0_u16; 2];
    let (mut end, mut is_cut) = (begin, false);
    for record in records.iter().filter(|record| record.section != Section::Additional) {
        is_cut |= record.bytes.end + edns.len() > limit;
        if !is_cut {
            end = record.bytes.end;
            counts[usize::from(record.section == Section::Authority)] += 1;
        }
    }
    if end + edns.len() > limit {
        return None;
    }
    // What is kept is where it was, so that pointers lead where they led; EDNS has none.
    let mut cut = [&message[..end], edns].concat();
    let counts = [counts[0], counts[1], u16::from(!edns.is_empty())];
    for (place, count) in counts.into_iter().enumerate() {
        cut.get_mut(6 + 2 * place..)?.first_chunk_mut().map(|bytes| *bytes = count.to_be_bytes())?;
    }
    if is_cut {
        *cut.get_mut(2)? |= 2;
    }
    Some(cut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hickory_proto::op::{Edns, Message, Query};
    use hickory_proto::rr::rdata::{CNAME, SOA as Soa};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn reply(answers: u8) -> Message {
        let mut reply = Message::query().into_response();
        let name = Name::from_ascii("www.example.com.").unwrap();
        reply.add_query(Query::query(name.clone(), RecordType::A));
        let address = |last: u8| RData::A(std::net::Ipv4Addr::new(192, 0, 2, last).into());
        reply.add_answer(Record::from_rdata(Name::from_ascii("a.example.com.").unwrap(), 60, RData::CNAME(CNAME(name.clone()))));
        for last in 1..answers {
            reply.add_answer(Record::from_rdata(name.clone(), 60, address(last)));
        }
        let zone = Name::from_ascii("example.com.").unwrap();
        let soa = Soa::new(zone.clone(), Name::from_ascii("admin.example.com.").unwrap(), 1, 2, 3, 4, 5);
        reply.authorities.push(Record::from_rdata(zone, 60, RData::SOA(soa)));
        reply.additionals.push(Record::from_rdata(Name::from_ascii("ns.example.com.").unwrap(), 60, address(250)));
        reply.set_edns(Edns::new());
        reply
    }

    /// How many records of each section are left, and whether the message says that it is cut.
    fn check(answers: u8, limit: usize, expected: (usize, usize, usize, bool)) {
        let sent = reply(answers);
        let bytes = cut(&sent.to_vec().unwrap(), limit).unwrap();
        assert!(bytes.len() <= limit, "{} bytes", bytes.len());
        let found = Message::from_vec(&bytes).unwrap();
        let counts = (found.answers.len(), found.authorities.len(), found.additionals.len(), found.metadata.truncation);
        assert_eq!(counts, expected);
        assert_eq!((found.edns.is_some(), &found.queries), (true, &sent.queries));
        assert_eq!(found.answers, sent.answers[..expected.0]);
    }

    #[test]
    fn messages_are_cut() {
        let length = reply(10).to_vec().unwrap().len();
        check(10, length, (10, 1, 0, false));
        check(10, length - 16, (10, 1, 0, false));
        check(10, length - 32, (10, 0, 0, true));
        check(60, 512, (29, 0, 0, true));
        check(60, 4096, (60, 1, 0, false));
        assert!(cut(&reply(2).to_vec().unwrap(), 20).is_none(), "no room for the question");
    }

    #[test]
    fn malformed_messages() {
        let good = reply(3).to_vec().unwrap();
        assert_eq!(records(&good).unwrap().len(), 6);
        let spoilt = |at: usize, bytes: &[u8]| {
            let mut message = good.clone();
            message[at..at + bytes.len()].copy_from_slice(bytes);
            records(&message).is_some()
        };
        let answer = question_end(&good).unwrap();
        assert!(spoilt(answer, &good[answer..answer + 2]), "as it was");
        assert!(!spoilt(6, &[0, 9]), "answers that are not there");
        assert!(!spoilt(answer, &[0xc0, answer as u8]), "a name that is its own end");
        assert!(!spoilt(answer, &[0xff, 0xff]), "a name behind the end");
        assert!(!spoilt(answer, &[0x40, 0]), "a label of no kind");
        assert!(!spoilt(good.len() - 2, &[0xff, 0xff]), "data behind the end");
        // A pointer to a pointer to a pointer, in the data of a record before the one that they are the name of.
        let chained = |count: usize| {
            let mut message = [&[0_u8; 7][..], &[2], &[0; 4]].concat();
            message.extend([0, 0, 10, 0, 1, 0, 0, 0, 0]);
            message.extend(u16::try_from(2 * count).unwrap().to_be_bytes());
            let mut target = HEAD;
            for _ in 0..count {
                let at = message.len();
                message.extend((0xc000 | u16::try_from(target).unwrap()).to_be_bytes());
                target = at;
            }
            message.extend((0xc000 | u16::try_from(target).unwrap()).to_be_bytes());
            message.extend([0, 10, 0, 1, 0, 0, 0, 0, 0, 0]);
            records(&message).is_some()
        };
        assert!(chained(1) && chained(126) && !chained(127) && !chained(5000));
        let target = records(&good).unwrap()[0].bytes.end - 2;
        assert!(!spoilt(target, &[0xc0, target as u8]), "a name in data that does not end");
        for length in 0..good.len() {
            assert!(records(&good[..length]).is_none(), "{length} bytes of it");
        }
    }
}
