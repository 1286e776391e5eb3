//! Values of attributes, free of any wire format.

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;

/// A value as devices and departments send it. Maps keep the order of their keys.
///
/// In self-describing formats it is written as what it is; in others it carries its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Integer(i64),
    /// A finite number.
    Real(f64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The number this is, if one; integers beyond 2^53 lose their last digits.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Real(number) => Some(*number),
            _ => None,
        }
    }

    /// The number this is, if a 64-bit float holds it exactly: what a numeric history keeps.
    pub fn as_exact_number(&self) -> Option<f64> {
        match self {
            Value::Integer(number) if number.unsigned_abs() <= 1 << 53 => Some(*number as f64),
            Value::Real(number) => Some(*number),
            _ => None,
        }
    }

    /// The value a numeric history row stands for: whole numbers come back as integers.
    pub fn from_number(number: f64) -> Value {
        if number.fract() == 0.0 && number.abs() <= (1_u64 << 53) as f64 {
            Value::Integer(number as i64)
        } else {
            Value::Real(number)
        }
    }

    /// Longitude and latitude, if this is a GeoJSON point.
    pub fn as_point(&self) -> Option<(f64, f64)> {
        match (self.get("type")?.as_text()?, self.get("coordinates")?) {
            ("Point", Value::List(axes)) => {
                Some((axes.first()?.as_number()?, axes.get(1)?.as_number()?))
            }
            _ => None,
        }
    }

    /// The text this is, if one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value under `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The entries of a map; empty for anything else.
    pub fn entries(&self) -> &[(String, Value)] {
        match self {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list, or the value itself as the only item.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::List(items) => items,
            other => std::slice::from_ref(other),
        }
    }

    /// A total order over all values: numbers, then texts, then booleans, then all others, which
    /// are not told apart.
    pub fn total_order(&self, other: &Value) -> Ordering {
        let rank = |value: &Value| match value {
            Value::Integer(_) | Value::Real(_) => 0,
            Value::Text(_) => 1,
            Value::Bool(_) => 2,
            Value::Null | Value::List(_) | Value::Map(_) => 3,
        };
        let number = |value: &Value| value.as_number().unwrap_or_default();
        // Beyond 2^53 whole numbers share a float.
        let whole = |value: &Value| match value {
            Value::Integer(number) => *number,
            other => number(other) as i64,
        };
        rank(self).cmp(&rank(other)).then_with(|| match (self, other) {
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => number(a)
                .partial_cmp(&number(b))
                .unwrap_or(Ordering::Equal)
                .then(whole(a).cmp(&whole(b))),
        })
    }

    /// Order within a kind (numbers, texts, booleans); none across kinds.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
            (a, b) => a.as_number()?.partial_cmp(&b.as_number()?),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return match self {
                Value::Null => to.serialize_unit(),
                Value::Bool(truth) => to.serialize_bool(*truth),
                Value::Integer(number) => to.serialize_i64(*number),
                Value::Real(number) => to.serialize_f64(*number),
                Value::Text(text) => to.serialize_str(text),
                Value::List(items) => to.collect_seq(items),
                Value::Map(entries) => to.collect_map(entries.iter().map(|(k, v)| (k, v))),
            };
        }
        match self {
            Value::Null => to.serialize_unit_variant("Value", 0, "Null"),
            Value::Bool(v) => to.serialize_newtype_variant("Value", 1, "Bool", v),
            Value::Integer(v) => to.serialize_newtype_variant("Value", 2, "Integer", v),
            Value::Real(v) => to.serialize_newtype_variant("Value", 3, "Real", v),
            Value::Text(v) => to.serialize_newtype_variant("Value", 4, "Text", v),
            Value::List(v) => to.serialize_newtype_variant("Value", 5, "List", v),
            Value::Map(v) => to.serialize_newtype_variant("Value", 6, "Map", v),
        }
    }
}

/// The variants in their order on disk.
#[derive(Deserialize)]
#[serde(rename = "Value")]
enum Tagged {
    Null,
    Bool(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
        if from.is_human_readable() {
            return from.deserialize_any(Plain);
        }
        Ok(match Tagged::deserialize(from)? {
            Tagged::Null => Value::Null,
            Tagged::Bool(truth) => Value::Bool(truth),
            Tagged::Integer(number) => Value::Integer(number),
            Tagged::Real(number) => Value::Real(number),
            Tagged::Text(text) => Value::Text(text),
            Tagged::List(items) => Value::List(items),
            Tagged::Map(entries) => Value::Map(entries),
        })
    }
}

struct Plain;

impl<'de> Visitor<'de> for Plain {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Real(number as f64), Value::Integer))
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        if number.is_finite() {
            Ok(Value::Real(number))
        } else {
            Err(E::custom("no finite number"))
        }
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        // Few are compared with each other, many are looked up.
        const FEW: usize = 32;
        let mut map: Vec<(String, Value)> = Vec::new();
        let mut many: HashSet<String> = HashSet::new();
        while let Some((key, value)) = entries.next_entry::<String, Value>()? {
            if map.len() == FEW {
                many.extend(map.iter().map(|(key, _)| key.clone()));
            }
            let twice = if map.len() < FEW {
                map.iter().any(|(seen, _)| *seen == key)
            } else {
                !many.insert(key.clone())
            };
            if twice {
                return Err(de::Error::custom(format!("the key `{key}` occurs twice")));
            }
            map.push((key, value));
        }
        Ok(Value::Map(map))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::from_number(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_order_over_all_values() {
        let big = 1_i64 << 53;
        let all = [
            Value::Real(-1.5),
            Value::Integer(0),
            Value::Real(0.5),
            Value::Integer(big),
            Value::Integer(big + 1),
            Value::Real(1e300),
            Value::from(""),
            Value::from("a"),
            Value::Bool(false),
            Value::Bool(true),
            Value::Null,
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a.total_order(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
        assert_eq!(Value::Real(big as f64).total_order(&Value::Integer(big)), Ordering::Equal);
        assert_eq!(Value::List(vec![]).total_order(&Value::Map(vec![])), Ordering::Equal);
    }
}
