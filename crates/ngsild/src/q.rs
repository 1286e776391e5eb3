//! The query language (clause 4.9): `level>=80;(status=="open"|owner==urn:x:1)`.

use crate::{Context, Invalid};
use model::{Entity, Instance, Name, Time, Value};
use std::cmp::Ordering;

/// Longest query, in bytes.
pub const MAX_Q_BYTES: usize = 4_096;
/// Parentheses lie at most this deep.
pub const MAX_Q_DEPTH: usize = 16;
/// Largest compiled pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1 << 18;
/// Patterns in one query.
pub const MAX_PATTERNS: usize = 8;

/// A parsed query.
#[derive(Clone, Debug)]
pub enum Q {
    All(Vec<Q>),
    Any(Vec<Q>),
    Exists(Path),
    Compare(Path, Operator, Vec<Operand>),
    Pattern(Path, regex::Regex, bool),
}

/// What is looked at: an attribute, then its parts, then members inside its value.
#[derive(Clone, Debug)]
pub struct Path {
    attribute: Name,
    parts: Vec<Name>,
    members: Vec<String>,
    /// The last part as written, for members such as `observedAt`.
    meta: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    Unequal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

/// A value or a range to compare with.
#[derive(Clone, Debug)]
pub enum Operand {
    One(Value),
    Range(Value, Value),
}

/// Reads a query.
///
/// # Errors
/// What does not fit, with the column.
pub fn parse_q(text: &str, context: &Context) -> Result<Q, Invalid> {
    if text.len() > MAX_Q_BYTES {
        return Err(Invalid::data("?q", format!("is longer than {MAX_Q_BYTES} bytes")));
    }
    let mut parser = Parser { text, at: 0, context, patterns: 0 };
    let q = parser.any(0)?;
    if parser.at < text.len() {
        return Err(parser.wrong("`;`, `|` or the end"));
    }
    Ok(q)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    context: &'a Context,
    patterns: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, wanted: &str) -> Invalid {
        let found: String = self.rest().chars().take(12).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        Invalid::data("?q", format!("at column {}: {found}, where {wanted} belongs", self.at + 1))
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn any(&mut self, depth: usize) -> Result<Q, Invalid> {
        let mut terms = vec![self.all(depth)?];
        while self.eat("|") {
            terms.push(self.all(depth)?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Q::Any(terms) })
    }

    fn all(&mut self, depth: usize) -> Result<Q, Invalid> {
        let mut terms = vec![self.term(depth)?];
        while self.eat(";") {
            terms.push(self.term(depth)?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Q::All(terms) })
    }

    fn term(&mut self, depth: usize) -> Result<Q, Invalid> {
        if depth > MAX_Q_DEPTH {
            return Err(Invalid::data(
                "?q",
                format!("parentheses lie more than {MAX_Q_DEPTH} deep"),
            ));
        }
        if self.eat("(") {
            let inner = self.any(depth + 1)?;
            return if self.eat(")") { Ok(inner) } else { Err(self.wrong("`)`")) };
        }
        let path = self.path()?;
        for (token, negated) in [("!~=", true), ("~=", false)] {
            if self.eat(token) {
                return self.pattern(path, negated);
            }
        }
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::Unequal),
            (">=", Operator::GreaterEqual),
            ("<=", Operator::LessEqual),
            (">", Operator::Greater),
            ("<", Operator::Less),
        ];
        for (token, operator) in operators {
            if self.eat(token) {
                let operands = self.operands(operator)?;
                return Ok(Q::Compare(path, operator, operands));
            }
        }
        match self.rest().chars().next() {
            None | Some(';' | '|' | ')') => Ok(Q::Exists(path)),
            _ => Err(self.wrong("an operator (== != > >= < <= ~= !~=)")),
        }
    }

    fn word(&mut self, stop: &str) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| stop.contains(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn path(&mut self) -> Result<Path, Invalid> {
        let start = self.at;
        let whole = self.word("=!<>~;|()[");
        if whole.is_empty() {
            return Err(self.wrong("an attribute"));
        }
        // An IRI holds dots of its own; a short path is cut at them.
        let names: Vec<&str> =
            if whole.contains("://") { vec![whole] } else { whole.split('.').collect() };
        if names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
            self.at = start;
            return Err(self.wrong("an attribute"));
        }
        let mut members = Vec::new();
        if self.eat("[") {
            members = self.word("]").split('.').map(str::to_owned).collect();
            if !self.eat("]") {
                return Err(self.wrong("`]`"));
            }
        }
        Ok(Path {
            attribute: self.context.expand(names[0]),
            parts: names[1..].iter().map(|name| self.context.expand(name)).collect(),
            members,
            meta: names.last().filter(|_| names.len() > 1).map(|name| (*name).to_owned()),
        })
    }

    fn pattern(&mut self, path: Path, negated: bool) -> Result<Q, Invalid> {
        let pattern = match self.value()? {
            Value::Text(pattern) => pattern,
            _ => return Err(self.wrong("a pattern")),
        };
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            return Err(Invalid::data("?q", format!("has more than {MAX_PATTERNS} patterns")));
        }
        let regex = regex::RegexBuilder::new(&pattern)
            .size_limit(MAX_PATTERN_BYTES)
            .build()
            .map_err(|error| Invalid::data("?q", format!("`{pattern}` is no pattern: {error}")))?;
        Ok(Q::Pattern(path, regex, negated))
    }

    fn operands(&mut self, operator: Operator) -> Result<Vec<Operand>, Invalid> {
        let mut operands = Vec::new();
        loop {
            let first = self.value()?;
            operands.push(if self.eat("..") {
                Operand::Range(first, self.value()?)
            } else {
                Operand::One(first)
            });
            if !self.eat(",") {
                break;
            }
        }
        let single = matches!(operands.as_slice(), [Operand::One(_)]);
        if !single && !matches!(operator, Operator::Equal | Operator::Unequal) {
            return Err(Invalid::data("?q", "lists and ranges go with `==` and `!=` only"));
        }
        Ok(operands)
    }

    fn value(&mut self) -> Result<Value, Invalid> {
        if self.rest().starts_with('"') {
            let mut text = String::new();
            let mut chars = self.rest().char_indices().skip(1);
            while let Some((index, c)) = chars.next() {
                match c {
                    '"' => {
                        self.at += index + 1;
                        return Ok(Value::Text(text));
                    }
                    '\\' => match chars.next() {
                        Some((_, c @ ('"' | '\\'))) => text.push(c),
                        Some((_, c)) => text.extend(['\\', c]),
                        None => break,
                    },
                    c => text.push(c),
                }
            }
            return Err(self.wrong("a closing `\"`"));
        }
        let start = self.at;
        let rest = self.rest();
        let mut end = rest.find([';', '|', ')', ',']).unwrap_or(rest.len());
        if let Some(dots) = rest[..end].find("..") {
            end = dots;
        }
        let text = rest[..end].trim();
        self.at += end;
        match text {
            "" => {
                self.at = start;
                Err(self.wrong("a value"))
            }
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            text => Ok(match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => Value::Integer(number),
                (_, Ok(number)) if number.is_finite() => Value::Real(number),
                _ => Value::from(text),
            }),
        }
    }
}

impl Q {
    /// Whether the entity, as it is seen, matches.
    pub fn matches(&self, entity: &Entity) -> bool {
        match self {
            Q::All(terms) => terms.iter().all(|term| term.matches(entity)),
            Q::Any(terms) => terms.iter().any(|term| term.matches(entity)),
            Q::Exists(path) => path.any(entity, &|_| true),
            Q::Compare(path, operator, operands) => {
                path.any(entity, &|value| compare(value, *operator, operands))
            }
            Q::Pattern(path, regex, negated) => path.any(entity, &|value| {
                value.items().iter().any(|v| v.as_text().is_some_and(|t| regex.is_match(t)))
                    != *negated
            }),
        }
    }

    /// The attributes the query looks at.
    pub fn attributes(&self) -> Vec<&Name> {
        match self {
            Q::All(terms) | Q::Any(terms) => terms.iter().flat_map(Q::attributes).collect(),
            Q::Exists(path) | Q::Compare(path, ..) | Q::Pattern(path, ..) => vec![&path.attribute],
        }
    }
}

impl Path {
    /// The attribute, if its value is all that is looked at.
    pub fn attribute(&self) -> Option<&Name> {
        let whole = self.parts.is_empty() && self.members.is_empty();
        let own = !matches!(self.attribute.as_str(), "createdAt" | "modifiedAt");
        (whole && own).then_some(&self.attribute)
    }

    fn any(&self, entity: &Entity, test: &dyn Fn(&Value) -> bool) -> bool {
        if self.parts.is_empty() && self.members.is_empty() {
            match self.attribute.as_str() {
                "createdAt" => return test(&Value::from(entity.created.to_string())),
                "modifiedAt" => return test(&Value::from(entity.modified.to_string())),
                _ => {}
            }
        }
        let Some(attribute) = entity.attribute(self.attribute.as_str()) else { return false };
        attribute.instances.iter().any(|instance| self.within(instance, &self.parts, test))
    }

    fn within(&self, instance: &Instance, parts: &[Name], test: &dyn Fn(&Value) -> bool) -> bool {
        if let Some((first, rest)) = parts.split_first() {
            if let Some((_, part)) = instance.parts.iter().find(|(name, _)| name == first) {
                return self.within(part, rest, test);
            }
            let text = |text: Option<String>| text.is_some_and(|text| test(&Value::from(text)));
            return rest.is_empty()
                && match self.meta.as_deref() {
                    Some("observedAt") => text(instance.observed_at.map(|t| t.to_string())),
                    Some("createdAt") => text(Some(instance.created.to_string())),
                    Some("modifiedAt") => text(Some(instance.modified.to_string())),
                    Some("unitCode") => text(instance.unit.clone()),
                    Some("datasetId") => text(instance.instance_id.clone()),
                    _ => false,
                };
        }
        let value = instance.value();
        let found = self.members.iter().try_fold(&value, |value, member| value.get(member));
        found.is_some_and(test)
    }
}

fn order(found: &Value, wanted: &Value) -> Option<Ordering> {
    let found = found.get("@value").unwrap_or(found);
    if let (Some(a), Some(b)) = (found.as_text(), wanted.as_text())
        && let (Ok(a), Ok(b)) = (Time::parse(a), Time::parse(b))
    {
        return Some(a.cmp(&b));
    }
    found.compare(wanted)
}

fn compare(found: &Value, operator: Operator, operands: &[Operand]) -> bool {
    let one = |found: &Value, operand: &Operand| match operand {
        Operand::One(wanted) => order(found, wanted) == Some(Ordering::Equal),
        Operand::Range(low, high) => {
            matches!(order(found, low), Some(Ordering::Greater | Ordering::Equal))
                && matches!(order(found, high), Some(Ordering::Less | Ordering::Equal))
        }
    };
    let equal = || found.items().iter().any(|f| operands.iter().any(|operand| one(f, operand)));
    let ordered = |good: &[Ordering]| match operands {
        [Operand::One(wanted)] => order(found, wanted).is_some_and(|order| good.contains(&order)),
        _ => false,
    };
    match operator {
        Operator::Equal => equal(),
        Operator::Unequal => !equal(),
        Operator::Greater => ordered(&[Ordering::Greater]),
        Operator::GreaterEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
        Operator::Less => ordered(&[Ordering::Less]),
        Operator::LessEqual => ordered(&[Ordering::Less, Ordering::Equal]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, parse_entity, parse_json};

    #[test]
    fn matches_what_it_says() {
        let json = br#"{"id":"urn:x:1","type":"T","level":{"value":81.5,"unitCode":"CMT",
            "observedAt":"2026-01-01T00:00:00Z","accuracy":{"value":2}},
            "name":{"value":"Kali \"Besar\""},"tags":{"value":["a","b"]},
            "address":{"value":{"city":"Bandung","geo":{"x":1}}},"open":{"value":true},
            "since":{"value":{"@type":"DateTime","@value":"2025-06-01T00:00:00Z"}},
            "owner":{"object":"urn:x:2"}}"#;
        let entity =
            parse_entity(&parse_json(json).unwrap(), &Context::core(), Form::Full).unwrap();
        let check = |q: &str| parse_q(q, &Context::core()).unwrap().matches(&entity);
        for yes in [
            "level",
            "level==81.5",
            "level>81;level<82",
            "level!=80",
            "level==1,81.5",
            "level==80..82",
            "level.accuracy==2",
            "level.unitCode==\"CMT\"",
            "level.observedAt>2025-12-31T23:59:59Z",
            "name~=\"^Kali\"",
            "name==\"Kali \\\"Besar\\\"\"",
            "name!~=\"^Sungai\"",
            "tags==\"b\"",
            "address[city]==\"Bandung\"",
            "address[geo.x]==1",
            "open==true",
            "owner==urn:x:2",
            "(level>100|open==true);name",
            "since<2025-07-01T00:00:00Z",
            "level>80;(tags==\"z\"|tags==\"a\")",
        ] {
            assert!(check(yes), "{yes}");
        }
        for no in [
            "missing",
            "missing!=1",
            "level==80",
            "level>\"81\"",
            "level==82..90",
            "level.accuracy==3",
            "address[city]==\"Jakarta\"",
            "open==false",
            "name~=\"^Sungai\"",
            "level>100|open==false",
        ] {
            assert!(!check(no), "{no}");
        }
    }

    #[test]
    fn refuses_with_the_column() {
        let check = |q: &str| parse_q(q, &Context::core()).unwrap_err().to_string();
        assert!(check("level>").contains("column 7"), "{}", check("level>"));
        assert!(check("(level>1").contains("`)`"));
        assert!(check("level=1").contains("an operator"));
        assert!(check("==1").contains("an attribute"));
        assert!(check("name==\"x").contains("closing"));
        assert!(check("name~=\"(\"").contains("no pattern"));
        assert!(check("name~=\"(a{1000}){1000}\"").contains("no pattern"));
        assert!(check("level>1,2").contains("lists and ranges"));
        assert!(check(&"(".repeat(50)).contains("deep"));
        assert!(check(&"a".repeat(5000)).contains("longer"));
    }
}
