//! One MQTT connection: authenticate, read what has come, write it together, acknowledge.

use super::codec::{self, Connect, Malformed, Packet, Publish, Version, reason};
use crate::app::App;
use crate::call::{Peer, source_of};
use bytes::BytesMut;
use hub::{HubError, ItemResult, Source, WriteReport};
use model::{
    Attribute, Change, Content, Credential, Entity, Instance, Name, Refusal, Session, Time, Value,
};
use ngsild::{
    Context, Form, attribute_name, check_uri, parse_attribute, parse_fragment, parse_json,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

/// Seconds until the CONNECT must have come.
const CONNECT_TIMEOUT_S: u64 = 10;
/// Keep-alive in seconds for clients that ask for none.
const LONGEST_SILENCE_S: u64 = 3_600;

/// Between two looks at whether the token of a silent client still holds.
const LOOK: Duration = Duration::from_secs(10);

/// How long a client may leave an answer unread, and take for a packet once it has begun it.
const READS_WITHIN: Duration = Duration::from_secs(10);
const SENDS_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of a CONNECT: until it is known who that is, no more is kept.
const MAX_CONNECT_BYTES: usize = 16 << 10;

type Stream = TlsStream<tokio::net::TcpStream>;

struct Connection {
    app: Arc<App>,
    stream: Stream,
    source: Source,
    buffer: BytesMut,
    out: Vec<u8>,
    version: Version,
    refusals: u32,
    /// Packets that came whole.
    packets: u64,
    /// As it was when it was last asked for.
    session: Option<Session>,
}

/// Serves one connection until it ends.
pub async fn serve(stream: Stream, peer: Peer, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    let mut connection = Connection {
        app,
        stream,
        source: source_of(peer.address.ip()),
        buffer: BytesMut::with_capacity(4_096),
        out: Vec::new(),
        version: Version::V5,
        refusals: 0,
        packets: 0,
        session: None,
    };
    let connect =
        tokio::time::timeout(Duration::from_secs(CONNECT_TIMEOUT_S), connection.connect());
    let Ok(Some((connect, token))) = connect.await else { return };
    if let Some(session) = &connection.session {
        peer.place.make_known(session.principal.number);
    }
    let silence = Duration::from_secs(match connect.keep_alive_s {
        0 => LONGEST_SILENCE_S,
        // Clause 3.1.2.10: one and a half times the keep-alive.
        seconds => u64::from(seconds) * 3 / 2,
    });
    let (mut begun, mut packets) = (None, 0);
    loop {
        // What came with the CONNECT is there before anything more is read (clause 3.1.4).
        match connection.work(&token).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(Malformed(code, what)) => {
                tracing::debug!(what, "an MQTT connection is closed");
                return connection.end(code).await;
            }
        }
        let since = Instant::now();
        // Since when a packet is half there.
        if std::mem::replace(&mut packets, connection.packets) != packets
            || connection.buffer.is_empty()
        {
            begun = None;
        }
        if !connection.buffer.is_empty() {
            begun.get_or_insert(since);
        }
        loop {
            let left = silence.saturating_sub(since.elapsed());
            let half = |begun: Instant| SENDS_WITHIN.saturating_sub(begun.elapsed());
            let left = begun.map_or(left, |begun| left.min(half(begun)));
            let more = tokio::select! {
                more = tokio::time::timeout(left.min(LOOK), connection.read()) => more,
                _ = stopped.changed() => {
                    return connection.end(reason::SERVER_SHUTTING_DOWN).await;
                }
            };
            match more {
                Err(_) if left <= LOOK => return connection.end(reason::KEEP_ALIVE_TIMEOUT).await,
                // Whoever was revoked holds no place by saying nothing.
                Err(_) if !connection.is_live() => {
                    return connection.end(reason::NOT_AUTHORIZED).await;
                }
                Err(_) => {}
                Ok(false) => return,
                Ok(true) => break,
            }
        }
    }
}

impl Connection {
    /// Reads what has come; false when the client is gone.
    async fn read(&mut self) -> bool {
        self.buffer.reserve(4_096);
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(count) if count > 0)
    }

    /// Sends what is to be sent; false when the client is gone, or reads nothing.
    async fn flush(&mut self) -> bool {
        let sent = async {
            self.stream.write_all(&self.out).await.is_ok() && self.stream.flush().await.is_ok()
        };
        let sent = tokio::time::timeout(READS_WITHIN, sent).await.unwrap_or(false);
        self.out.clear();
        sent
    }

    async fn end(&mut self, code: u8) {
        codec::disconnect(&mut self.out, self.version, code);
        self.flush().await;
        drop(tokio::time::timeout(READS_WITHIN, self.stream.shutdown()).await);
    }

    /// Waits for the CONNECT and answers it; none when the client does not get in.
    async fn connect(&mut self) -> Option<(Connect, String)> {
        let packet = loop {
            let most = self.app.limits.mqtt_packet.min(MAX_CONNECT_BYTES);
            match codec::take(&mut self.buffer, self.version, most) {
                Ok(Some(packet)) => break packet,
                Ok(None) if self.read().await => {}
                Ok(None) => return None,
                Err(Malformed(code, _)) => {
                    codec::connack(&mut self.out, self.version, code, 0, 0);
                    self.flush().await;
                    return None;
                }
            }
        };
        let Packet::Connect(connect) = packet else { return None };
        self.version = connect.version;
        let token = connect
            .password
            .as_deref()
            .and_then(|p| std::str::from_utf8(p).ok())
            .unwrap_or_default();
        let code = match self.session(token) {
            Ok(session) if session.principal.kind == model::Kind::Public => reason::NOT_AUTHORIZED,
            Ok(session)
                if connect
                    .username
                    .as_deref()
                    .is_none_or(|name| name == session.principal.login) =>
            {
                self.session = Some(session);
                reason::SUCCESS
            }
            Ok(_) | Err(HubError::Unauthenticated(_)) => reason::NOT_AUTHORIZED,
            Err(_) => reason::SERVER_UNAVAILABLE,
        };
        let token = token.to_owned();
        let most = u32::try_from(self.app.limits.mqtt_packet).unwrap_or(u32::MAX);
        let in_flight = u16::try_from(self.app.limits.mqtt_in_flight).unwrap_or(u16::MAX);
        codec::connack(&mut self.out, self.version, code, most, in_flight);
        let sent = self.flush().await;
        (code == reason::SUCCESS && sent).then_some((connect, token))
    }

    /// Whether its session still stands; nothing was heard of its client.
    fn is_live(&self) -> bool {
        self.session.as_ref().is_some_and(|session| self.app.hub.is_live(session))
    }

    /// The session of the token now: a revoked one ends here.
    fn session(&self, token: &str) -> Result<Session, HubError> {
        if token.is_empty() {
            return Err(HubError::Unauthenticated("send the token as password".into()));
        }
        self.app.hub.open(&Credential::Bearer(token.to_owned()), &self.source, None)
    }

    /// Takes every packet that has come and answers; false when the client is done.
    async fn work(&mut self, token: &str) -> Result<bool, Malformed> {
        let mut publishes = Vec::new();
        let mut done = false;
        loop {
            let packet = codec::take(&mut self.buffer, self.version, self.app.limits.mqtt_packet);
            self.packets += u64::from(matches!(packet, Ok(Some(_))));
            match packet {
                Ok(Some(Packet::Publish(publish))) => publishes.push(publish),
                Ok(Some(Packet::PingRequest)) => {
                    self.session(token).map_err(ended)?;
                    codec::ping_response(&mut self.out);
                }
                Ok(Some(Packet::Subscribe { packet_id, filters })) => {
                    codec::refuse_filters(&mut self.out, self.version, packet_id, filters, true);
                }
                Ok(Some(Packet::Unsubscribe { packet_id, filters })) => {
                    codec::refuse_filters(&mut self.out, self.version, packet_id, filters, false);
                }
                Ok(Some(Packet::Disconnect)) => done = true,
                Ok(Some(Packet::Connect(_))) => {
                    return Err(Malformed(reason::PROTOCOL_ERROR, "a second CONNECT"));
                }
                Ok(None) => break,
                Err(malformed) => {
                    // What came before it is written and acknowledged all the same.
                    self.publish(token, std::mem::take(&mut publishes)).await?;
                    self.flush().await;
                    return Err(malformed);
                }
            }
            if publishes.len() >= self.app.limits.mqtt_in_flight {
                self.publish(token, std::mem::take(&mut publishes)).await?;
            }
        }
        self.publish(token, publishes).await?;
        Ok(self.flush().await && !done)
    }

    /// Writes messages together, in order, and acknowledges each once it is durable.
    async fn publish(&mut self, token: &str, publishes: Vec<Publish>) -> Result<(), Malformed> {
        if publishes.is_empty() {
            return Ok(());
        }
        let session = self.session(token).map_err(ended)?;
        let mut rest = publishes.into_iter().peekable();
        while let Some(first) = rest.next() {
            // Messages to the same dataset go into one commit.
            let dataset = dataset_of(&first.topic).to_owned();
            let mut group = vec![first];
            while let Some(next) = rest.next_if(|next| dataset_of(&next.topic) == dataset) {
                group.push(next);
            }
            self.publish_group(&session, &dataset, group).await?;
        }
        Ok(())
    }

    /// Writes messages the short way, if all are plain numbers for series that are there: what became
    /// of the readings, and where those of each message lie.
    async fn readings(
        &self,
        session: &Session,
        dataset: &str,
        group: &[Publish],
    ) -> Result<Option<(WriteReport, Vec<Parsed>)>, HubError> {
        let (mut readings, mut messages) = (Vec::new(), Vec::with_capacity(group.len()));
        for publish in group {
            let start = readings.len();
            let bare = publish.topic.split('/').count() > 2;
            match ngsild::parse_readings(&publish.payload).filter(|_| !bare) {
                Some(of_message) => readings.extend(of_message),
                None => return Ok(None),
            }
            messages.push(Ok(start..readings.len()));
        }
        let report = self.app.hub.write_readings(session, Some(dataset), &readings).await?;
        Ok(report.map(|report| (report, messages)))
    }

    async fn changes(
        &self,
        session: &Session,
        dataset: &str,
        group: &[Publish],
    ) -> Result<(WriteReport, Vec<Parsed>), HubError> {
        let (mut changes, mut messages) = (Vec::new(), Vec::with_capacity(group.len()));
        for publish in group {
            let start = changes.len();
            messages.push(changes_of(publish).map(|parsed| {
                changes.extend(parsed);
                start..changes.len()
            }));
        }
        Ok((self.app.hub.write_into(session, Some(dataset), changes).await?, messages))
    }

    async fn publish_group(
        &mut self,
        session: &Session,
        dataset: &str,
        group: Vec<Publish>,
    ) -> Result<(), Malformed> {
        let written = match self.readings(session, dataset, &group).await {
            Ok(None) => self.changes(session, dataset, &group).await,
            Ok(Some(written)) => Ok(written),
            Err(error) => Err(error),
        };
        let (report, messages) = match written {
            Ok(written) => written,
            // Of one that is too much the others know nothing.
            Err(HubError::Limit { .. }) if group.len() > 1 => {
                for publish in group {
                    Box::pin(self.publish_group(session, dataset, vec![publish])).await?;
                }
                return Ok(());
            }
            Err(error @ HubError::Limit { .. }) => {
                let refused = vec![ItemResult::Refused(error)];
                (WriteReport { results: refused, receipt: None }, vec![Ok(0..1)])
            }
            Err(_) => {
                return Err(Malformed(reason::SERVER_UNAVAILABLE, "the hub cannot keep it now"));
            }
        };
        for (publish, parsed) in group.iter().zip(messages) {
            let (code, why) = match parsed {
                Err(why) => {
                    tracing::debug!(why, "a message cannot be read");
                    (reason::PAYLOAD_FORMAT_INVALID, why)
                }
                Ok(range) => worst(&report.results[range], self.version)?,
            };
            if code >= 0x80 {
                self.refusals += 1;
                // Version 3.1.1 has no way to say so to the device; the log says it to the steward.
                self.app.hub.note_refused_message(session, dataset).await;
                if self.version == Version::V311
                    && self.refusals as usize > self.app.limits.mqtt_refusals
                {
                    return Err(Malformed(reason::QUOTA_EXCEEDED, "too many refused messages"));
                }
            }
            if publish.qos > 0 {
                codec::puback(&mut self.out, self.version, publish.packet_id, code, &why);
            }
        }
        Ok(())
    }
}

fn ended(_: HubError) -> Malformed {
    Malformed(reason::NOT_AUTHORIZED, "the token ended")
}

/// Where the results of one message lie, or what is wrong with it.
type Parsed = Result<std::ops::Range<usize>, String>;

/// `in/<dataset>/...`: the dataset.
fn dataset_of(topic: &str) -> &str {
    topic.strip_prefix("in/").map_or("", |rest| rest.split('/').next().unwrap_or_default())
}

/// The code for a message: that of its worst change.
fn worst(results: &[ItemResult], version: Version) -> Result<(u8, String), Malformed> {
    let mut answer = (reason::SUCCESS, String::new());
    for result in results {
        let one = match result {
            ItemResult::Done(_) => continue,
            ItemResult::Sealed => (reason::SUCCESS, hub::SEALED.to_owned()),
            ItemResult::Quarantined(why) => (reason::SUCCESS, format!("quarantined: {why}")),
            ItemResult::Refused(error) => {
                let full = matches!(error, HubError::Limit { name: "inbox", .. });
                let code = match error {
                    HubError::Unauthenticated(_) | HubError::Forbidden(_) => reason::NOT_AUTHORIZED,
                    // Version 3.1.1 knows no other way to say that it was not kept.
                    HubError::Limit { .. } if !full || version == Version::V5 => {
                        reason::QUOTA_EXCEEDED
                    }
                    HubError::Conflict(_) => reason::TOPIC_NAME_INVALID,
                    HubError::Storage(_)
                    | HubError::Stopping
                    | HubError::Limit { .. }
                    | HubError::Refusal(Refusal::Leaving(_)) => {
                        // Never acknowledged, so that the device keeps it.
                        return Err(Malformed(
                            reason::SERVER_UNAVAILABLE,
                            "the hub cannot keep it now",
                        ));
                    }
                    _ => reason::PAYLOAD_FORMAT_INVALID,
                };
                (code, error.to_string())
            }
        };
        if one.0 >= answer.0 {
            answer = one;
        }
    }
    Ok(answer)
}

/// The changes a message stands for: entities in `in/<dataset>`, or a bare value in
/// `in/<dataset>/<entity id>/<attribute>`.
fn changes_of(publish: &Publish) -> Result<Vec<Change>, String> {
    let parts: Vec<&str> = publish.topic.split('/').collect();
    match parts.as_slice() {
        ["in", dataset] if !dataset.is_empty() => entities(&publish.payload),
        ["in", dataset, id, attribute] if !dataset.is_empty() => {
            bare(id, attribute, &publish.payload).map(|c| vec![c])
        }
        _ => Err("the topic is not `in/DATASET` or `in/DATASET/ENTITY/ATTRIBUTE`".into()),
    }
}

fn entities(payload: &[u8]) -> Result<Vec<Change>, String> {
    let value = parse_json(payload).map_err(|invalid| invalid.to_string())?;
    let context = Context::core();
    let one = |value: &Value| {
        let entity =
            parse_fragment(value, &context, Form::Any).map_err(|invalid| invalid.to_string())?;
        if entity.id.is_empty() {
            Err("the entity has no `id`".to_owned())
        } else {
            Ok(Change::Upsert(entity))
        }
    };
    match &value {
        Value::List(items) if items.is_empty() => Err("the list is empty".into()),
        other => other.items().iter().map(one).collect(),
    }
}

fn bare(id: &str, attribute: &str, payload: &[u8]) -> Result<Change, String> {
    check_uri(id, "topic").map_err(|invalid| invalid.to_string())?;
    let text =
        std::str::from_utf8(payload).map_err(|_| "the payload is no UTF-8".to_owned())?.trim();
    let name =
        attribute_name(attribute, &Context::core()).map_err(|invalid| invalid.to_string())?;
    let attribute = match serde_json::from_str::<Value>(text) {
        Ok(value @ Value::Map(_)) => {
            let parsed = parse_attribute(name, &value, &Context::core(), Form::Full);
            parsed.map_err(|invalid| invalid.to_string())?
        }
        Ok(Value::List(_) | Value::Null) => {
            return Err("a value is a number, a text, true or false, or an attribute".into());
        }
        Ok(value) => plain(name, value),
        Err(_) if !text.is_empty() && text.len() <= 1_000 && !text.starts_with(['{', '[']) => {
            plain(name, Value::from(text))
        }
        Err(_) => return Err("the payload is empty, too long, or no JSON".into()),
    };
    Ok(Change::Upsert(Entity {
        id: id.to_owned(),
        types: Vec::new(),
        scopes: Vec::new(),
        created: Time::default(),
        modified: Time::default(),
        attributes: vec![attribute],
    }))
}

fn plain(name: Name, value: Value) -> Attribute {
    Attribute { name, instances: vec![Instance::of(Content::Property(value))] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(topic: &str, payload: &'static [u8]) -> Result<Vec<Change>, String> {
        let payload = Bytes::from_static(payload);
        changes_of(&Publish { topic: topic.into(), qos: 1, packet_id: 1, payload })
    }

    #[test]
    fn messages() {
        assert_eq!(
            message("in/rivers", br#"{"id":"urn:x:1","type":"T","level":5}"#).unwrap().len(),
            1
        );
        assert_eq!(
            message("in/rivers", br#"[{"id":"urn:x:1","level":5},{"id":"urn:x:2"}]"#)
                .unwrap()
                .len(),
            2
        );
        for (payload, value) in [
            (b"5".as_slice(), Value::Integer(5)),
            (b"5.5", Value::Real(5.5)),
            (b"true", Value::Bool(true)),
            (b"\"on\"", Value::from("on")),
            (b"on", Value::from("on")),
        ] {
            let changes = message("in/rivers/urn:x:1/level", payload).unwrap();
            let entity = changes[0].entity().unwrap();
            assert_eq!(entity.attributes[0].instances[0].value(), value);
        }
    }

    #[test]
    fn refusals() {
        for (topic, payload) in [
            ("out/rivers", b"{}".as_slice()),
            ("in", b"{}"),
            ("in/rivers", b"{"),
            ("in/rivers", b"[]"),
            ("in/rivers", br#"{"type":"T"}"#),
            ("in/rivers/not-a-uri/level", b"5"),
            ("in/rivers/urn:x:1/level", b"{}"),
            ("in/rivers/urn:x:1/level", b""),
            ("in/rivers/urn:x:1/level/more", b"5"),
            ("in/rivers/urn:x:1/level", b"\xff"),
            ("in/rivers/urn:x:1/", b"5"),
            ("in/rivers/urn:x:1/id", b"5"),
            ("in/rivers/urn:x:1/type", br#"{"value":5}"#),
            ("in/rivers/urn:x:1/a\"b", b"5"),
        ] {
            assert!(message(topic, payload).is_err(), "{topic}");
        }
    }
}
