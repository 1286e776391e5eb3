//! The shape most messages have: entities whose attributes are plain numbers. It is read without
//! making anything of it; whatever is not of this shape is left to the full parser, which also says
//! what is wrong.

use model::Time;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// One attribute's number with its time and unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured<'a> {
    /// A short term.
    pub name: &'a str,
    pub value: f64,
    pub observed_at: Option<Time>,
    pub unit: Option<&'a str>,
}

/// Numbers of one entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading<'a> {
    pub id: &'a str,
    /// A short term, when given.
    pub of_type: Option<&'a str>,
    pub measured: Vec<Measured<'a>>,
}

/// Reads a message that holds one entity or a list of them, if every one is plain numbers in the
/// core context; none when there is anything else in it, or anything wrong.
pub fn parse_readings(bytes: &[u8]) -> Option<Vec<Reading<'_>>> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let readings = match bytes.iter().find(|byte| !byte.is_ascii_whitespace())? {
        b'[' => List.deserialize(&mut from).ok()?,
        b'{' => vec![One { id: None }.deserialize(&mut from).ok()?],
        _ => return None,
    };
    from.end().ok()?;
    (!readings.is_empty()).then_some(readings)
}

/// Reads attributes of the entity called `id`, under the same conditions.
pub fn parse_reading_of<'a>(id: &'a str, bytes: &'a [u8]) -> Option<Reading<'a>> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let reading = One { id: Some(id) }.deserialize(&mut from).ok()?;
    from.end().ok()?;
    Some(reading)
}

struct List;

impl<'de> DeserializeSeed<'de> for List {
    type Value = Vec<Reading<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Vec<Reading<'de>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entities")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut readings = Vec::new();
        while let Some(reading) = items.next_element_seed(One { id: None })? {
            readings.push(reading);
        }
        Ok(readings)
    }
}

/// An entity; its id may come from outside.
struct One<'a> {
    id: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for One<'de> {
    type Value = Reading<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

/// Whether a term is its own canonical name in the core context.
fn is_short(term: &str) -> bool {
    !term.is_empty() && term.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl<'de> Visitor<'de> for One<'de> {
    type Value = Reading<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entity of plain numbers")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let other = || de::Error::custom("not of this shape");
        let mut reading = Reading { id: self.id.unwrap_or_default(), ..Reading::default() };
        while let Some(key) = entries.next_key::<&'de str>()? {
            match key {
                "id" if reading.id.is_empty() => reading.id = entries.next_value()?,
                "type" if reading.of_type.is_none() && self.id.is_none() => {
                    reading.of_type = Some(entries.next_value()?);
                }
                // More are refused by the way that says why, and each is compared with all before it.
                _ if reading.measured.len() >= crate::parse::MAX_ATTRIBUTES => return Err(other()),
                name if is_short(name) => {
                    if reading.measured.iter().any(|measured| measured.name == name) {
                        return Err(other());
                    }
                    reading.measured.push(entries.next_value_seed(Attribute { name })?);
                }
                _ => return Err(other()),
            }
        }
        let typed = reading.of_type.is_none_or(is_short);
        if reading.id.is_empty() || reading.measured.is_empty() || !typed {
            return Err(other());
        }
        Ok(reading)
    }
}

struct Attribute<'a> {
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for Attribute<'de> {
    type Value = Measured<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'a> Attribute<'a> {
    fn of(self, value: f64) -> Measured<'a> {
        Measured { name: self.name, value, observed_at: None, unit: None }
    }
}

/// Whole numbers that a 64-bit float holds exactly.
fn exact(number: u64) -> bool {
    number <= 1 << 53
}

impl<'de> Visitor<'de> for Attribute<'de> {
    type Value = Measured<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a property whose value is one")
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        Number.visit_f64(number).map(|number| self.of(number))
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Number.visit_i64(number).map(|number| self.of(number))
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Number.visit_u64(number).map(|number| self.of(number))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let other = || de::Error::custom("not of this shape");
        let (mut value, mut observed_at, mut unit, mut typed) = (None, None, None, false);
        while let Some(key) = entries.next_key::<&'de str>()? {
            match key {
                "type" if !typed && entries.next_value::<&'de str>()? == "Property" => typed = true,
                "value" if value.is_none() => {
                    value = Some(entries.next_value_seed(Number)?);
                }
                "observedAt" if observed_at.is_none() => {
                    let text = entries.next_value::<&'de str>()?;
                    observed_at = Some(Time::parse(text).map_err(|_| other())?);
                }
                "unitCode" if unit.is_none() => {
                    let text = entries.next_value::<&'de str>()?;
                    if text.len() > 20 {
                        return Err(other());
                    }
                    unit = Some(text);
                }
                _ => {
                    let _ = entries.next_value::<IgnoredAny>();
                    return Err(other());
                }
            }
        }
        Ok(Measured { name: self.name, value: value.ok_or_else(other)?, observed_at, unit })
    }
}

struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = f64;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<f64, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Number {
    type Value = f64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<f64, E> {
        if number.is_finite() { Ok(number) } else { Err(E::custom("not finite")) }
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<f64, E> {
        let fits = exact(number.unsigned_abs());
        if fits { Ok(number as f64) } else { Err(E::custom("not exact")) }
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<f64, E> {
        if exact(number) { Ok(number as f64) } else { Err(E::custom("not exact")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Form, parse_entity, parse_json};

    #[test]
    fn reads_what_the_full_parser_reads() {
        let text = r#"[{"id":"urn:x:1","type":"T","a":{"type":"Property","value":5,"observedAt":"2026-01-01T00:00:00Z"},
            "b":{"value":-1.5e3,"unitCode":"MTR"},"c":7},{"type":"T","id":"urn:x:2","a":{"value":0.1}}]"#;
        let readings = parse_readings(text.as_bytes()).unwrap();
        let full = parse_json(text.as_bytes()).unwrap();
        for (reading, value) in readings.iter().zip(full.items()) {
            let entity = parse_entity(value, &Context::core(), Form::Full).unwrap();
            assert_eq!((reading.id, reading.of_type), (entity.id.as_str(), Some("T")));
            assert_eq!(reading.measured.len(), entity.attributes.len());
            for (measured, attribute) in reading.measured.iter().zip(&entity.attributes) {
                let instance = &attribute.instances[0];
                assert_eq!(measured.name, attribute.name.as_str());
                assert_eq!(Some(measured.value), instance.value().as_number());
                assert_eq!(measured.observed_at, instance.observed_at);
                assert_eq!(measured.unit, instance.unit.as_deref());
            }
        }
    }

    #[test]
    fn leaves_everything_else_to_the_full_parser() {
        for text in [
            "",
            "5",
            "[]",
            "{}",
            "[{}]",
            r#"{"id":"urn:x:1"}"#,
            r#"{"id":"urn:x:1","a":"text"}"#,
            r#"{"id":"urn:x:1","a":[1,2]}"#,
            r#"{"id":"urn:x:1","a":{"value":{"value":5}}}"#,
            r#"{"id":"urn:x:1","a":1,"a":2}"#,
            r#"{"id":"urn:x:1","id":"urn:x:2","a":2}"#,
            r#"{"id":"urn:x:1","a":{"value":1,"datasetId":"urn:d:1"}}"#,
            r#"{"id":"urn:x:1","a":{"value":1,"accuracy":{"value":2}}}"#,
            r#"{"id":"urn:x:1","a":{"type":"GeoProperty","value":1}}"#,
            r#"{"id":"urn:x:1","a":{"value":1,"observedAt":"today"}}"#,
            r#"{"id":"urn:x:1","a":9007199254740993}"#,
            r#"{"id":"urn:x:1","a":1} x"#,
            r#"{"id":"urn:x:1","@context":{},"a":1}"#,
            r#"{"id":"urn:x:1","https://x/a":1}"#,
            r#"{"id":"urn:x:\u0031","a":1}"#,
            r#"{"id":"urn:x:1","a":1e999}"#,
            r#"{"id":"urn:x:1","type":["A","B"],"a":1}"#,
            r#"{"id":"urn:x:1","a":null}"#,
        ] {
            assert_eq!(parse_readings(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_reading_of("urn:x:1", br#"{"id":"urn:x:2","a":1}"#), None);
        assert!(parse_reading_of("urn:x:1", br#"{"a":1}"#).is_some());
    }
}
