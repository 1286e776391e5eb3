//! MQTT 3.1.1 and 5.0 packets (OASIS), as far as a door for publishing needs them. Sans I/O, no
//! panic on any input, sizes checked before anything is kept.
//!
//! Written here because the door must hold a PUBACK until the commit, must refuse hostile packets
//! before they cost anything, and needs nine packet types only.

use bytes::{Buf, Bytes, BytesMut};

/// Protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

/// Reason codes of version 5 (clause 2.4).
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    pub const SERVER_SHUTTING_DOWN: u8 = 0x8B;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    pub const QOS_NOT_SUPPORTED: u8 = 0x9B;
}

/// A CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    pub client_id: String,
    pub keep_alive_s: u16,
    pub username: Option<String>,
    pub password: Option<Bytes>,
}

/// A PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub qos: u8,
    /// 0 for quality of service 0.
    pub packet_id: u16,
    pub payload: Bytes,
}

/// What a client may send.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    Connect(Connect),
    Publish(Publish),
    Subscribe { packet_id: u16, filters: usize },
    Unsubscribe { packet_id: u16, filters: usize },
    PingRequest,
    Disconnect,
}

/// What is wrong with a packet, as a reason code and in words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{1}")]
pub struct Malformed(pub u8, pub &'static str);

const CUT: Malformed = Malformed(reason::MALFORMED, "a packet ends too early");

/// Takes one packet from the buffer; none when it is not whole yet.
///
/// # Errors
/// When it is larger than `most` or malformed; the connection has to be closed then.
pub fn take(
    buffer: &mut BytesMut,
    version: Version,
    most: usize,
) -> Result<Option<Packet>, Malformed> {
    let Some(first) = buffer.first().copied() else { return Ok(None) };
    let (mut length, mut shift, mut at) = (0usize, 0, 1);
    loop {
        let Some(byte) = buffer.get(at).copied() else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << shift;
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 21 {
            return Err(Malformed(
                reason::MALFORMED,
                "the remaining length has more than four bytes",
            ));
        }
    }
    if length + at > most {
        return Err(Malformed(reason::PACKET_TOO_LARGE, "the packet is too large"));
    }
    if buffer.len() < at + length {
        return Ok(None);
    }
    buffer.advance(at);
    let mut body = buffer.split_to(length).freeze();
    let flags = first & 0x0f;
    let wanted = |flags_wanted: u8| {
        let bad = Malformed(reason::MALFORMED, "reserved flags are set");
        if flags == flags_wanted { Ok(()) } else { Err(bad) }
    };
    let packet = match first >> 4 {
        1 => {
            wanted(0)?;
            Packet::Connect(connect(&mut body)?)
        }
        3 => Packet::Publish(publish(&mut body, flags, version)?),
        8 => {
            wanted(2)?;
            let (packet_id, filters) = filters(&mut body, version, true)?;
            Packet::Subscribe { packet_id, filters }
        }
        10 => {
            wanted(2)?;
            let (packet_id, filters) = filters(&mut body, version, false)?;
            Packet::Unsubscribe { packet_id, filters }
        }
        12 => {
            wanted(0)?;
            Packet::PingRequest
        }
        14 => Packet::Disconnect,
        _ => {
            return Err(Malformed(
                reason::PROTOCOL_ERROR,
                "a packet that a client does not send here",
            ));
        }
    };
    Ok(Some(packet))
}

fn number(body: &mut Bytes) -> Result<u16, Malformed> {
    if body.len() < 2 { Err(CUT) } else { Ok(body.get_u16()) }
}

fn byte(body: &mut Bytes) -> Result<u8, Malformed> {
    if body.is_empty() { Err(CUT) } else { Ok(body.get_u8()) }
}

fn binary(body: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = usize::from(number(body)?);
    if body.len() < length { Err(CUT) } else { Ok(body.split_to(length)) }
}

fn text(body: &mut Bytes) -> Result<String, Malformed> {
    let bytes = binary(body)?;
    let text = String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.contains('\0'));
    text.ok_or(Malformed(reason::MALFORMED, "a text is no UTF-8, or holds a null"))
}

/// Properties are skipped, except that a topic alias is refused: this door grants none.
fn properties(body: &mut Bytes) -> Result<(), Malformed> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let next = byte(body)?;
        length |= usize::from(next & 0x7f) << shift;
        shift += 7;
        if next & 0x80 == 0 {
            break;
        }
        if shift > 21 {
            return Err(Malformed(reason::MALFORMED, "a property length has more than four bytes"));
        }
    }
    if body.len() < length {
        return Err(CUT);
    }
    drop(body.split_to(length));
    Ok(())
}

fn connect(body: &mut Bytes) -> Result<Connect, Malformed> {
    let protocol = text(body)?;
    let version = match (protocol.as_str(), byte(body)?) {
        ("MQTT", 4) => Version::V311,
        ("MQTT", 5) => Version::V5,
        _ => {
            return Err(Malformed(reason::UNSUPPORTED_VERSION, "only MQTT 3.1.1 and 5 are spoken"));
        }
    };
    let flags = byte(body)?;
    if flags & 1 != 0 {
        return Err(Malformed(reason::MALFORMED, "the reserved connect flag is set"));
    }
    let keep_alive_s = number(body)?;
    if version == Version::V5 {
        properties(body)?;
    }
    let client_id = text(body)?;
    if flags & 0x04 != 0 {
        if version == Version::V5 {
            properties(body)?;
        }
        drop((text(body)?, binary(body)?));
    }
    let username = if flags & 0x80 != 0 { Some(text(body)?) } else { None };
    let password = if flags & 0x40 != 0 { Some(binary(body)?) } else { None };
    Ok(Connect { version, client_id, keep_alive_s, username, password })
}

fn publish(body: &mut Bytes, flags: u8, version: Version) -> Result<Publish, Malformed> {
    let qos = flags >> 1 & 3;
    if qos > 1 {
        return Err(Malformed(reason::QOS_NOT_SUPPORTED, "quality of service 2 is not offered"));
    }
    let topic = text(body)?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(Malformed(
            reason::TOPIC_NAME_INVALID,
            "a topic is not empty and has no wildcards",
        ));
    }
    let packet_id = if qos > 0 { number(body)? } else { 0 };
    if qos > 0 && packet_id == 0 {
        return Err(Malformed(reason::PROTOCOL_ERROR, "the packet identifier is 0"));
    }
    if version == Version::V5 {
        properties(body)?;
    }
    let payload = std::mem::take(body);
    Ok(Publish { topic, qos, packet_id, payload })
}

fn filters(body: &mut Bytes, version: Version, options: bool) -> Result<(u16, usize), Malformed> {
    let packet_id = number(body)?;
    if packet_id == 0 {
        return Err(Malformed(reason::PROTOCOL_ERROR, "the packet identifier is 0"));
    }
    if version == Version::V5 {
        properties(body)?;
    }
    let mut filters = 0;
    while !body.is_empty() {
        drop(text(body)?);
        if options {
            byte(body)?;
        }
        filters += 1;
    }
    if filters == 0 {
        Err(Malformed(reason::PROTOCOL_ERROR, "no topic filter"))
    } else {
        Ok((packet_id, filters))
    }
}

fn frame(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}

/// CONNACK; version 3.1.1 knows only a few return codes.
pub fn connack(out: &mut Vec<u8>, version: Version, code: u8, most: u32, in_flight: u16) {
    match version {
        Version::V311 => {
            let code = match code {
                reason::SUCCESS => 0,
                reason::UNSUPPORTED_VERSION => 1,
                reason::NOT_AUTHORIZED => 5,
                _ => 3,
            };
            frame(out, 0x20, &[0, code]);
        }
        Version::V5 if code != reason::SUCCESS => frame(out, 0x20, &[0, code, 0]),
        Version::V5 => {
            let mut properties = vec![0x21];
            properties.extend(in_flight.to_be_bytes());
            // Maximum QoS 1, no retained messages, no shared or wildcard subscriptions.
            properties.extend([0x24, 1, 0x25, 0, 0x27]);
            properties.extend(most.to_be_bytes());
            properties.extend([0x28, 0, 0x2A, 0]);
            let length = u8::try_from(properties.len()).unwrap_or(0);
            let body = [&[0, code, length], properties.as_slice()].concat();
            frame(out, 0x20, &body);
        }
    }
}

/// PUBACK, with a reason string in version 5 where there is something to say.
pub fn puback(out: &mut Vec<u8>, version: Version, packet_id: u16, code: u8, why: &str) {
    let id = packet_id.to_be_bytes();
    if version == Version::V311 || (code == reason::SUCCESS && why.is_empty()) {
        return frame(out, 0x40, &id);
    }
    let mut why: String = why.chars().take(100).collect();
    why.retain(|c| !c.is_control());
    let text = why.as_bytes();
    let length = u16::try_from(text.len()).unwrap_or(0);
    let mut properties = vec![0x1F];
    properties.extend(length.to_be_bytes());
    properties.extend_from_slice(text);
    let mut body = id.to_vec();
    body.push(code);
    let mut size = properties.len();
    while size >= 0x80 {
        body.push(u8::try_from(size & 0x7f).unwrap_or(0) | 0x80);
        size >>= 7;
    }
    body.push(u8::try_from(size).unwrap_or(0));
    body.extend(properties);
    frame(out, 0x40, &body);
}

/// SUBACK or UNSUBACK that refuses every filter.
pub fn refuse_filters(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    filters: usize,
    subscribe: bool,
) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    if subscribe || version == Version::V5 {
        let code = if version == Version::V5 { reason::NOT_AUTHORIZED } else { 0x80 };
        body.extend(std::iter::repeat_n(code, filters));
    }
    frame(out, if subscribe { 0x90 } else { 0xB0 }, &body);
}

pub fn ping_response(out: &mut Vec<u8>) {
    frame(out, 0xD0, &[]);
}

/// DISCONNECT from the server; version 3.1.1 has none and is just closed.
pub fn disconnect(out: &mut Vec<u8>, version: Version, code: u8) {
    if version == Version::V5 {
        frame(out, 0xE0, &[code, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], version: Version) -> Result<Option<Packet>, Malformed> {
        take(&mut BytesMut::from(bytes), version, 1_000)
    }

    fn connect_bytes() -> Vec<u8> {
        let mut body = b"\0\x04MQTT\x05\xC2\0\x3C\0\0\x01c\0\x01u\0\x02pw".to_vec();
        let mut packet = Vec::new();
        frame(&mut packet, 0x10, &std::mem::take(&mut body));
        packet
    }

    #[test]
    fn reads_what_clients_send() {
        let packet = all(&connect_bytes(), Version::V311).unwrap().unwrap();
        let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
        assert_eq!((connect.version, connect.keep_alive_s), (Version::V5, 60));
        assert_eq!(connect.username.as_deref(), Some("u"));
        assert_eq!(connect.password.as_deref(), Some(b"pw".as_slice()));
        let publish = all(b"\x32\x08\0\x03a/b\0\x07x", Version::V311).unwrap().unwrap();
        let expected = Publish {
            topic: "a/b".into(),
            qos: 1,
            packet_id: 7,
            payload: Bytes::from_static(b"x"),
        };
        assert_eq!(publish, Packet::Publish(expected));
        assert_eq!(all(b"\xC0\0", Version::V5), Ok(Some(Packet::PingRequest)));
    }

    #[test]
    fn waits_for_the_rest_and_never_panics() {
        let whole = connect_bytes();
        for cut in 0..whole.len() {
            assert_eq!(all(&whole[..cut], Version::V5), Ok(None), "cut at {cut}");
        }
        // Every single-byte change of a CONNECT is either read, waited for or refused.
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                drop(all(&changed, Version::V5));
            }
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        let code = |bytes: &[u8]| all(bytes, Version::V5).unwrap_err().0;
        assert_eq!(code(b"\x30\xff\xff\xff\xff\x7f"), reason::MALFORMED);
        assert_eq!(code(b"\x30\xff\x7f"), reason::PACKET_TOO_LARGE);
        assert_eq!(code(b"\x34\x05\0\x01a\0\x01"), reason::QOS_NOT_SUPPORTED);
        assert_eq!(code(b"\x32\x06\0\x01a\0\0\0"), reason::PROTOCOL_ERROR);
        assert_eq!(code(b"\x30\x04\0\x01#\0"), reason::TOPIC_NAME_INVALID);
        assert_eq!(code(b"\x30\x03\0\0\0"), reason::TOPIC_NAME_INVALID);
        assert_eq!(code(b"\x10\x07\0\x04MQTT\x03"), reason::UNSUPPORTED_VERSION);
        assert_eq!(code(b"\x80\x05\0\x01\0\0\0"), reason::MALFORMED);
        assert_eq!(code(b"\xf0\0"), reason::PROTOCOL_ERROR);
        assert_eq!(code(b"\x11\0"), reason::MALFORMED);
    }
}
