//! Responses as bytes, in as many as there is room for. Pure.

use std::cell::Cell;

use hickory_proto::ProtoError;
use hickory_proto::op::{HeaderCounts, Message, emit_message_parts};
use hickory_proto::rr::{Name, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// Where the name of the first question is: behind the head.
const QUESTION: u16 = 12;
/// Places from here on no pointer reaches (RFC 1035, 4.1.4).
const REACH: u16 = 0x4000;
/// The bytes of EDNS without options.
const EDNS: usize = 11;

/// A record whose owner is a pointer when it is that of the question, or of the record before. The encoder of hickory looks for whole and partial names, but
/// for the first 120 only, as that takes long; nearly all records of an answer are the question's.
struct Compact<'a> {
    record: &'a Record,
    question: Option<&'a Name>,
    /// The last owner that was written, and where.
    last: &'a Cell<Option<(&'a Name, u16)>>,
}

impl BinEncodable for Compact<'_> {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        let name = &self.record.name;
        let of_question = self.question.filter(|question| *question == name).map(|_| QUESTION);
        let known = of_question.or_else(|| self.last.get().filter(|(last, _)| *last == name).map(|(_, place)| place));
        let place = u16::try_from(encoder.offset()).ok().filter(|place| *place < REACH);
        match known {
            Some(place) => encoder.emit_u16(0xC000 | place)?,
            None => name.emit(encoder)?,
        }
        self.record.record_type().emit(encoder)?;
        self.record.dns_class.emit(encoder)?;
        encoder.emit_u32(self.record.ttl)?;
        let length = encoder.place::<u16>()?;
        self.record.data.emit(encoder)?;
        let written = encoder.len_since_place(&length);
        length.replace(encoder, u16::try_from(written).unwrap_or(u16::MAX))?;
        if let (None, Some(place)) = (known, place) {
            self.last.set(Some((name, place)));
        }
        Ok(())
    }
}

/// The records that fit into `limit` bytes, of each section, and the message with them.
fn write(message: &Message, limit: u16) -> Result<(Vec<u8>, HeaderCounts), ProtoError> {
    let (last, mut bytes) = (Cell::new(None), Vec::new());
    let question = message.queries.first().map(|query| query.name()).filter(|name| !name.is_root());
    let all = [&message.answers, &message.authorities, &message.additionals];
    let [answers, authorities, additionals] =
        all.map(|section| section.iter().map(|record| Compact { record, question, last: &last }).collect::<Vec<_>>());
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    let header = emit_message_parts(
        &message.metadata,
        &mut message.queries.iter(),
        &mut answers.iter(),
        &mut authorities.iter(),
        &mut additionals.iter(),
        message.edns.as_ref(),
        message.signature.as_deref(),
        &mut encoder,
    )?;
    Ok((bytes, header.counts))
}

/// The whole message, when that takes no more than `limit` bytes.
fn whole(message: &Message, limit: usize) -> Result<Option<Vec<u8>>, ProtoError> {
    let (bytes, counts) = write(message, u16::MAX)?;
    let written = [counts.answers, counts.authorities, counts.additionals].map(usize::from);
    let additionals = message.additionals.len() + usize::from(message.edns.is_some());
    let is_whole = written == [message.answers.len(), message.authorities.len(), additionals];
    Ok((is_whole && bytes.len() <= limit).then_some(bytes))
}

/// Encodes a response into at most `limit` bytes: first without additional records, then with fewer answers and the
/// truncation flag, which makes clients ask again over TCP.
pub(crate) fn encode(response: Message, limit: usize) -> Option<Vec<u8>> {
    within(response, limit).ok()
}

fn within(mut response: Message, limit: usize) -> Result<Vec<u8>, ProtoError> {
    if let Some(bytes) = whole(&response, limit)? {
        return Ok(bytes);
    }
    if !response.additionals.is_empty() {
        response.additionals.clear();
        if let Some(bytes) = whole(&response, limit)? {
            return Ok(bytes);
        }
    }
    response.metadata.truncation = true;
    response.authorities.clear();
    let edns = response.edns.take();
    let room = limit - if edns.is_some() { EDNS } else { 0 };
    let (_, counts) = write(&response, u16::try_from(room).unwrap_or(u16::MAX))?;
    response.answers.truncate(usize::from(counts.answers));
    response.edns = edns;
    Ok(write(&response, u16::MAX)?.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hickory_proto::op::{Edns, Query};
    use hickory_proto::rr::rdata::{CNAME, SRV};
    use hickory_proto::rr::{RData, RecordType};

    use super::*;

    const LONGEST: usize = u16::MAX as usize;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn response(question: &str, kind: RecordType) -> Message {
        let mut response = Message::query().into_response();
        response.add_query(Query::query(name(question), kind));
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        response.set_edns(edns);
        response
    }

    /// So many pods of a StatefulSet, each with a port and an address.
    fn endpoints(count: usize) -> Message {
        let service = "web.a.svc.cluster.local.";
        let mut response = response(service, RecordType::SRV);
        for number in 0..count {
            let target = name(&format!("web-{number}.{service}"));
            let address = std::net::Ipv4Addr::new(10, 42, (number / 250) as u8, (number % 250) as u8);
            response.answers.push(Record::from_rdata(name(service), 5, RData::SRV(SRV::new(0, 100, 80, target.clone()))));
            response.additionals.push(Record::from_rdata(target, 5, RData::A(address.into())));
        }
        response
    }

    /// How many records of each section arrive, and whether the message says that it is cut. What arrives is the beginning of what was sent.
    fn check(sent: &Message, limit: usize, expected: (usize, usize, bool)) {
        let bytes = encode(sent.clone(), limit).unwrap();
        assert!(bytes.len() <= limit, "{} bytes", bytes.len());
        let found = Message::from_vec(&bytes).unwrap();
        assert_eq!((found.answers.len(), found.additionals.len(), found.metadata.truncation), expected);
        assert_eq!(found.answers, sent.answers[..expected.0]);
        assert_eq!((&found.queries, found.edns.is_some()), (&sent.queries, true));
    }

    /// "In order to reduce the size of messages, the domain system utilizes a compression scheme which eliminates the repetition of domain names in a message"
    /// (RFC 1035, 4.1.4): clients have nowhere else to ask for what does not fit into a message over TCP.
    #[test]
    fn many_records_fit() {
        check(&endpoints(3), 1232, (3, 3, false));
        check(&endpoints(1200), LONGEST, (1200, 0, false));
        let mut alias = response("alias.default.svc.cluster.local.", RecordType::A);
        let target = name("many.default.svc.cluster.local.");
        alias.add_answer(Record::from_rdata(alias.queries[0].name().clone(), 5, RData::CNAME(CNAME(target.clone()))));
        for number in 0..4000_u16 {
            let [high, low] = number.to_be_bytes();
            alias.add_answer(Record::from_rdata(target.clone(), 5, RData::A(std::net::Ipv4Addr::new(10, 42, high, low).into())));
        }
        check(&alias, LONGEST, (4001, 0, false));
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let most = |limit| Message::from_vec(&encode(endpoints(3000), limit).unwrap()).unwrap().answers.len();
        for limit in [512, 1232, LONGEST] {
            let fit = most(limit);
            assert!(fit * 48 < limit && limit < 80 + (fit + 1) * 54, "{fit} records in {limit} bytes");
            check(&endpoints(3000), limit, (fit, 0, true));
        }
    }
}
