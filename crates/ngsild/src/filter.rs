//! What a query asks for: ids, types, scopes, values, places (clauses 4.9, 4.10, 4.17, 4.19).

use crate::{GeoQuery, Invalid, Q, context::Context};
use model::{Entity, Name, Value};

/// Most selectors of one query.
pub const MAX_SELECTORS: usize = 100;
/// Most ids that one query names.
pub const MAX_IDS: usize = 1_000;
/// Most keys that an answer is ordered by.
pub const MAX_ORDER_KEYS: usize = 8;

/// Longest id pattern, in bytes.
pub const MAX_ID_PATTERN_BYTES: usize = 1_024;
/// Longest type or scope selection, in bytes.
pub const MAX_SELECTION_BYTES: usize = 4_096;

/// Which entities are asked for. Everything given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Any of these; empty: all.
    pub ids: Vec<String>,
    pub id_pattern: Option<regex::Regex>,
    pub types: Option<TypeSelection>,
    pub scopes: Option<ScopeSelection>,
    pub q: Option<Q>,
    pub geo: Option<GeoQuery>,
    /// Any of these attributes must be there; empty: no matter.
    pub attributes: Vec<Name>,
    /// Alternatives, of which one must hold as well; empty: no matter.
    pub any_of: Vec<Filter>,
}

/// What the answer is ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderKey {
    pub attribute: Name,
    /// From the attribute down to a part of it.
    pub parts: Vec<Name>,
    /// The last part as written, for members such as `createdAt`.
    pub meta: Option<String>,
    pub descending: bool,
}

impl OrderKey {
    /// Reads one term of `orderBy`: a name or a path, with `;desc` behind or `!` before it to turn
    /// the order round (clause 4.23).
    ///
    /// # Errors
    /// When it is no name.
    pub fn parse(text: &str, context: &Context) -> Result<OrderKey, Invalid> {
        let wrong = |what: String| Invalid::data("?orderBy", what);
        let (path, direction) = text.split_once(';').unwrap_or((text, "asc"));
        let bare = path.trim_start_matches('!');
        let descending = match direction {
            "asc" => bare != path,
            "desc" => true,
            other => return Err(wrong(format!("`{other}` is neither asc nor desc"))),
        };
        let names: Vec<&str> =
            if bare.contains("://") { vec![bare] } else { bare.split('.').collect() };
        for name in &names {
            crate::parse::check_name(name).map_err(|invalid| wrong(invalid.to_string()))?;
        }
        Ok(OrderKey {
            attribute: context.expand(names[0]),
            parts: names[1..].iter().map(|name| context.expand(name)).collect(),
            meta: names.last().filter(|_| names.len() > 1).map(|name| (*name).to_owned()),
            descending,
        })
    }

    /// Whether it is about the entity, or a part of an attribute, rather than an attribute's value.
    pub fn is_of_entity(&self) -> bool {
        let own = matches!(self.attribute.as_str(), "id" | "type" | "createdAt" | "modifiedAt");
        own || !self.parts.is_empty()
    }

    /// What an entity is ordered by; none when it has nothing of the kind.
    pub fn value(&self, entity: &Entity) -> Option<Value> {
        match self.attribute.as_str() {
            "id" => return Some(Value::from(entity.id.as_str())),
            "type" => return entity.types.first().map(|name| Value::from(name.as_str())),
            "createdAt" => return Some(Value::from(entity.created.to_string())),
            "modifiedAt" => return Some(Value::from(entity.modified.to_string())),
            _ => {}
        }
        let mut instance = entity.attribute(self.attribute.as_str())?.default_instance()?;
        for (index, part) in self.parts.iter().enumerate() {
            if let Some((_, found)) = instance.parts.iter().find(|(name, _)| name == part) {
                instance = found;
                continue;
            }
            let time = match self.meta.as_deref().filter(|_| index + 1 == self.parts.len())? {
                "createdAt" => Some(instance.created),
                "modifiedAt" => Some(instance.modified),
                "observedAt" => instance.observed_at,
                _ => None,
            };
            return time.map(|time| Value::from(time.to_string()));
        }
        Some(instance.value())
    }
}

impl Filter {
    /// Whether an entity's id and types, which no lens hides, leave it a chance to match.
    pub fn concerns(&self, entity: &Entity) -> bool {
        (self.ids.is_empty() || self.ids.contains(&entity.id))
            && self.types.as_ref().is_none_or(|types| types.matches(&entity.types))
    }

    /// Whether the entity, as it is seen through the lens, matches.
    pub fn matches(&self, entity: &Entity) -> bool {
        self.concerns(entity)
            && self.id_pattern.as_ref().is_none_or(|pattern| pattern.is_match(&entity.id))
            && self.scopes.as_ref().is_none_or(|scopes| scopes.matches(&entity.scopes))
            && (self.attributes.is_empty()
                || self.attributes.iter().any(|name| entity.attribute(name.as_str()).is_some()))
            && self.q.as_ref().is_none_or(|q| q.matches(entity))
            && self.geo.as_ref().is_none_or(|geo| geo.matches(entity))
            && (self.any_of.is_empty() || self.any_of.iter().any(|one| one.matches(entity)))
    }

    /// This filter with alternatives, narrowed to the ids and types that any of them could match.
    pub fn with_any_of(mut self, alternatives: Vec<Filter>) -> Filter {
        if alternatives.iter().all(|one| !one.ids.is_empty()) {
            self.ids = alternatives.iter().flat_map(|one| one.ids.clone()).collect();
        }
        let types: Option<Vec<&TypeSelection>> =
            alternatives.iter().map(|one| one.types.as_ref()).collect();
        self.types =
            types.map(|types| TypeSelection(types.iter().flat_map(|one| one.0.clone()).collect()));
        self.any_of = alternatives;
        self
    }

    /// Reads `idPattern`.
    ///
    /// # Errors
    /// When it is too long or no pattern.
    pub fn parse_id_pattern(text: &str) -> Result<regex::Regex, Invalid> {
        if text.len() > MAX_ID_PATTERN_BYTES {
            return Err(Invalid::data(
                "?idPattern",
                format!("is longer than {MAX_ID_PATTERN_BYTES} bytes"),
            ));
        }
        regex::RegexBuilder::new(text)
            .size_limit(crate::q::MAX_PATTERN_BYTES)
            .build()
            .map_err(|error| Invalid::data("?idPattern", format!("is no pattern: {error}")))
    }
}

/// A selection of types: alternatives (`,` or `|`) of types that must all be there (`;`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeSelection(pub Vec<Vec<Name>>);

impl TypeSelection {
    /// Reads `A,B`, `A|B`, `A;B` and `(A;B)|C`.
    ///
    /// # Errors
    /// When a name is missing or parentheses lie in one another.
    pub fn parse(text: &str, context: &Context) -> Result<TypeSelection, Invalid> {
        if text.len() > MAX_SELECTION_BYTES {
            return Err(Invalid::data(
                "?type",
                format!("is longer than {MAX_SELECTION_BYTES} bytes"),
            ));
        }
        let wrong = || {
            Invalid::data("?type", format!("`{text}` is no selection such as `A,B` or `(A;B)|C`"))
        };
        let group = |group: &str| {
            let inner = group.strip_prefix('(').and_then(|g| g.strip_suffix(')')).unwrap_or(group);
            let name = |name: &str| {
                let good = !name.is_empty() && !name.contains(['(', ')', ' ', '"', '<', '>']);
                good.then(|| context.expand(name)).ok_or_else(wrong)
            };
            inner.split(';').map(name).collect::<Result<Vec<_>, _>>()
        };
        // Parentheses around the whole say nothing.
        let inner = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let text = inner.filter(|inner| !inner.contains(['(', ')'])).unwrap_or(text);
        text.split([',', '|']).map(group).collect::<Result<_, _>>().map(TypeSelection)
    }

    /// Whether an entity with these types is selected.
    pub fn matches(&self, types: &[Name]) -> bool {
        self.0.iter().any(|group| group.iter().all(|wanted| types.contains(wanted)))
    }
}

/// A selection of scopes: alternatives (`,` or `|`) of patterns that must all hold (`;`); `+` stands
/// for one level, `#` at the end for any below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeSelection(Vec<Vec<Vec<String>>>);

impl ScopeSelection {
    /// Reads `scopeQ`.
    ///
    /// # Errors
    /// When a pattern is no scope.
    pub fn parse(text: &str) -> Result<ScopeSelection, Invalid> {
        if text.len() > MAX_SELECTION_BYTES {
            return Err(Invalid::data(
                "?scopeQ",
                format!("is longer than {MAX_SELECTION_BYTES} bytes"),
            ));
        }
        let pattern = |pattern: &str| {
            let levels: Vec<String> =
                pattern.trim_start_matches('/').split('/').map(str::to_owned).collect();
            let hash_inside = levels.iter().rev().skip(1).any(|level| level == "#");
            if levels.iter().any(String::is_empty) || hash_inside {
                let what =
                    format!("`{pattern}` is no scope such as `/bandung/#` or `/bandung/+/river`");
                return Err(Invalid::data("?scopeQ", what));
            }
            Ok(levels)
        };
        let group = |group: &str| {
            let inner = group.strip_prefix('(').and_then(|g| g.strip_suffix(')')).unwrap_or(group);
            inner.split(';').map(pattern).collect::<Result<Vec<_>, _>>()
        };
        text.split([',', '|']).map(group).collect::<Result<_, _>>().map(ScopeSelection)
    }

    /// Whether an entity with these scopes is selected.
    pub fn matches(&self, scopes: &[String]) -> bool {
        let holds =
            |pattern: &Vec<String>| scopes.iter().any(|scope| scope_matches(pattern, scope));
        self.0.iter().any(|group| group.iter().all(holds))
    }
}

fn scope_matches(pattern: &[String], scope: &str) -> bool {
    let mut levels = scope.trim_start_matches('/').split('/');
    for wanted in pattern {
        match (wanted.as_str(), levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let check = |selection: &str, types: &[&str]| {
            let types: Vec<_> = types.iter().map(|t| Name::new(t)).collect();
            TypeSelection::parse(selection, &Context::core()).unwrap().matches(&types)
        };
        assert!(check("A,B", &["B"]));
        assert!(check("A|B", &["A"]));
        assert!(check("(A;B)|C", &["A", "B"]));
        assert!(!check("(A;B)|C", &["A"]));
        assert!(check("(A;B)|C", &["C"]));
        assert!(check("(A|B)", &["B"]));
        assert!(!check("(A;B)", &["B"]));
        for bad in ["", "A,,B", "((A)", "A B"] {
            assert!(TypeSelection::parse(bad, &Context::core()).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes() {
        let check = |selection: &str, scope: &str| {
            ScopeSelection::parse(selection).unwrap().matches(&[scope.to_owned()])
        };
        assert!(check("/a/b", "/a/b"));
        assert!(!check("/a", "/a/b"));
        assert!(check("/a/#", "/a/b/c"));
        assert!(check("/a/#", "/a"));
        assert!(check("/+/b", "/a/b"));
        assert!(check("/x,/a/b", "/a/b"));
        assert!(!check("/a/b;/x", "/a/b"));
        assert!(ScopeSelection::parse("/a//b").is_err());
        assert!(ScopeSelection::parse("/#/b").is_err());
    }
}
