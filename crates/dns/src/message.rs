//! Queries in, responses out: checks and EDNS. Pure.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};

use crate::core::Answer;

/// The largest UDP response we send, whatever the client takes: what passes every link unfragmented (DNS flag day 2020).
pub(crate) const MAX_UDP: u16 = 1232;

/// What a message asks.
#[derive(Debug)]
pub(crate) enum Request {
    /// A question to answer.
    Question { message: Box<Message>, query: Query },
    /// Not answerable: reply this.
    Refused(Message),
    /// Not a query at all.
    Ignored,
}

/// Reads a message from a client.
pub(crate) fn parse(bytes: &[u8]) -> Request {
    let message = match Message::from_vec(bytes) {
        Ok(message) => message,
        Err(_) if bytes.len() >= 12 && bytes[2] & 0x80 == 0 => {
            let id = u16::from_be_bytes([bytes[0], bytes[1]]);
            return Request::Refused(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr));
        }
        Err(_) => return Request::Ignored,
    };
    if message.metadata.message_type == MessageType::Response {
        return Request::Ignored;
    }
    let code = match (message.metadata.op_code, message.queries.as_slice(), &message.edns) {
        (OpCode::Query, _, Some(edns)) if edns.version() > 0 => ResponseCode::BADVERS,
        (OpCode::Query, [query], _) if query.query_class() != DNSClass::IN => ResponseCode::Refused,
        // Nobody gets whole zones, neither ours nor by us those of others.
        (OpCode::Query, [query], _) if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) => ResponseCode::Refused,
        (OpCode::Query, [query], _) => {
            let query = query.clone();
            return Request::Question { message: Box::new(message), query };
        }
        (OpCode::Query, ..) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    Request::Refused(respond(&message, code))
}

/// An empty response to `request`.
pub(crate) fn respond(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.response_code = code;
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        edns.set_rcode_high((u16::from(code) >> 4) as u8);
        response.set_edns(edns);
    }
    response
}

/// The response that carries `answer`. Several addresses come in another order each time.
pub(crate) fn answered(request: &Message, mut answer: Answer) -> Message {
    let mut response = respond(request, answer.code);
    response.metadata.authoritative = true;
    if !answer.answers.is_empty() && answer.answers.iter().all(|record| matches!(record.data, RData::A(_) | RData::AAAA(_))) {
        let first = usize::from(request.metadata.id) % answer.answers.len();
        answer.answers.rotate_left(first);
    }
    response.add_answers(answer.answers);
    response.add_authorities(answer.authorities);
    response.add_additionals(answer.additionals);
    response
}

/// Bytes that a client takes over UDP: 512 unless it says otherwise (RFC 6891, 6.2.3).
pub(crate) fn udp_room(request: &Message) -> usize {
    usize::from(request.edns.as_ref().map_or(512, |edns| edns.max_payload().max(512)))
}

/// Bytes of our own answers over UDP.
pub(crate) fn udp_limit(request: &Message) -> usize {
    udp_room(request).min(usize::from(MAX_UDP))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::encode::encode;
    use hickory_proto::rr::{Name, Record, RecordType};

    fn request(edns: Option<u16>) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("db.prod.svc.cluster.local.").unwrap(), RecordType::A));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message
    }

    #[test]
    fn noise_is_ignored_or_answered_in_the_limit() {
        // A question with some bytes changed, the same every time.
        let good = request(Some(4096)).to_vec().unwrap();
        let mut seed = 3_u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=next() % 6 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(next() % (good.len() + 1));
            match parse(&bytes) {
                Request::Ignored => {}
                Request::Refused(response) => assert!(encode(response, 512).is_none_or(|bytes| bytes.len() <= 512)),
                Request::Question { message, .. } => {
                    let limit = udp_limit(&message);
                    assert!((512..=usize::from(MAX_UDP)).contains(&limit));
                    assert!(encode(answered(&message, Answer::default()), limit).is_none_or(|bytes| bytes.len() <= limit));
                }
            }
        }
    }

    /// Answers a request with `count` addresses and returns how many arrive, and whether it says so.
    fn check(edns: Option<u16>, count: u8, expected: (std::ops::Range<usize>, bool)) {
        let request = request(edns);
        let name = request.queries[0].name().clone();
        let address = |i| Record::from_rdata(name.clone(), 5, RData::A(std::net::Ipv4Addr::new(10, 42, 0, i).into()));
        let answer = Answer { answers: (0..count).map(address).collect(), ..Answer::default() };
        let limit = udp_limit(&request);
        let bytes = encode(answered(&request, answer), limit).unwrap();
        assert!(bytes.len() <= limit);
        let reply = Message::from_vec(&bytes).unwrap();
        assert!(expected.0.contains(&reply.answers.len()), "{} answers", reply.answers.len());
        assert_eq!((reply.metadata.truncation, reply.edns.is_some()), (expected.1, edns.is_some()));
    }

    #[test]
    fn large_answers_are_truncated() {
        check(None, 3, (3..4, false));
        check(None, 60, (20..30, true));
        check(Some(4096), 60, (60..61, false));
        check(Some(4096), 200, (60..76, true));
        check(Some(100), 60, (20..30, true));
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let code = |bytes: &[u8]| match parse(bytes) {
            Request::Refused(message) => Some(message.metadata.response_code),
            Request::Ignored => None,
            Request::Question { .. } => Some(ResponseCode::NoError),
        };
        let good = request(None);
        assert_eq!(code(&good.to_vec().unwrap()), Some(ResponseCode::NoError));
        let mut none = good.clone();
        none.queries.clear();
        assert_eq!(code(&none.to_vec().unwrap()), Some(ResponseCode::FormErr));
        let mut update = good.clone();
        update.metadata.op_code = OpCode::Update;
        assert_eq!(code(&update.to_vec().unwrap()), Some(ResponseCode::NotImp));
        let mut chaos = good.clone();
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(&chaos.to_vec().unwrap()), Some(ResponseCode::Refused));
        let mut transfer = good.clone();
        transfer.queries[0].set_query_type(RecordType::AXFR);
        assert_eq!(code(&transfer.to_vec().unwrap()), Some(ResponseCode::Refused));
        assert_eq!(code(&good.into_response().to_vec().unwrap()), None);
        assert_eq!(code(b"short"), None);
        assert_eq!(code(&[&[0, 7, 1, 0, 0, 1][..], &[0; 6], b"\x3fa"].concat()), Some(ResponseCode::FormErr));
    }
}
