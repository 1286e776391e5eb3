//! JSON-LD contexts, as far as NGSI-LD uses them (ETSI GS CIM 009 clause 5.5.7): terms, prefixes
//! and a vocabulary. The core context is built in; others are handed in by a lookup, so that
//! nothing is ever fetched from here.

use model::{Name, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The core context that answers name.
pub const CORE_CONTEXT: &str = "https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.8.jsonld";

/// Most terms one context may define.
pub const MAX_TERMS: usize = 10_000;
/// Most contexts inside one another.
pub const MAX_DEPTH: usize = 8;
/// Most contexts that one leads to, each as often as it is named.
pub const MAX_CONTEXTS: usize = 100;

/// Whether this URL is a version of the core context.
pub fn is_core_context(url: &str) -> bool {
    let path = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let version = path
        .and_then(|path| path.strip_prefix("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context"))
        .and_then(|rest| rest.strip_suffix(".jsonld"));
    version.is_some_and(|version| match version.strip_prefix("-v") {
        None => version.is_empty(),
        Some(numbers) => numbers
            .split('.')
            .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())),
    })
}

/// Why a context cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    #[error(
        "the context `{0}` is not known here and is never fetched; \
         ask the operator to add it to `[contexts]`, or send it inline"
    )]
    Unknown(String),
    #[error("`@context` holds {0}, where a URL, an object or a list of them belongs")]
    WrongKind(&'static str),
    #[error("the context defines more than {MAX_TERMS} terms")]
    TooManyTerms,
    #[error("contexts lie more than {MAX_DEPTH} deep in one another")]
    TooDeep,
    #[error("the context leads to more than {MAX_CONTEXTS} others")]
    TooMany,
}

/// Terms and what they stand for, both ways.
#[derive(Debug, Default)]
pub struct Context {
    /// As given, to be answered with; null for the core context alone.
    source: Value2,
    meaning: Arc<Meaning>,
}

#[derive(Debug, Default)]
struct Meaning {
    terms: HashMap<String, String>,
    back: HashMap<String, String>,
    /// Terms that stand for the beginning of a name.
    bases: HashMap<String, String>,
    vocabulary: Option<String>,
    /// Contexts that were taken in, and the terms they define, again and again too.
    taken: usize,
    defined: usize,
}

/// Whether it is written of an entity or attribute itself.
fn is_member(term: &str) -> bool {
    let members = crate::parse::OF_ENTITIES.iter().chain(&crate::parse::OF_INSTANCES);
    members.into_iter().any(|member| *member == term)
}

#[derive(Debug)]
struct Value2(Value);

impl Default for Value2 {
    fn default() -> Self {
        Value2(Value::Null)
    }
}

impl Context {
    /// The core context alone.
    pub fn core() -> Arc<Context> {
        static CORE: std::sync::OnceLock<Arc<Context>> = std::sync::OnceLock::new();
        CORE.get_or_init(|| Arc::new(Context::default())).clone()
    }

    /// The core context alone, answered with under this address of it.
    pub fn named(url: &str) -> Arc<Context> {
        Arc::new(Context { source: Value2(Value::from(url)), ..Context::default() })
    }

    /// Reads the value of `@context`; `lookup` gives the documents behind URLs.
    ///
    /// # Errors
    /// When a URL is unknown or the value has another form.
    pub fn parse(
        source: &Value,
        lookup: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<Arc<Context>, ContextError> {
        let mut meaning = Meaning::default();
        meaning.add(source, lookup, 0)?;
        if meaning.terms.is_empty() && meaning.vocabulary.is_none() {
            return Ok(Context::core());
        }
        meaning.resolve();
        let source = Value2(source.clone());
        Ok(Arc::new(Context { source, meaning: Arc::new(meaning) }))
    }

    /// The same context under another of its addresses.
    pub fn at(&self, url: &str) -> Arc<Context> {
        Arc::new(Context { source: Value2(Value::from(url)), meaning: self.meaning.clone() })
    }
}

impl Meaning {
    fn add(
        &mut self,
        source: &Value,
        lookup: &dyn Fn(&str) -> Option<Value>,
        depth: usize,
    ) -> Result<(), ContextError> {
        if depth > MAX_DEPTH {
            return Err(ContextError::TooDeep);
        }
        self.taken += 1;
        if self.taken > MAX_CONTEXTS {
            return Err(ContextError::TooMany);
        }
        match source {
            Value::Null => Ok(()),
            Value::Text(url) if is_core_context(url) => Ok(()),
            Value::Text(text) if crate::check_uri(text, "/@context").is_err() => {
                Err(ContextError::WrongKind("a text that is no URL"))
            }
            Value::Text(url) => {
                let document = lookup(url).ok_or_else(|| ContextError::Unknown(url.clone()))?;
                let inner = document.get("@context").cloned().unwrap_or(document);
                self.add(&inner, lookup, depth + 1)
            }
            Value::List(items) => {
                items.iter().try_for_each(|item| self.add(item, lookup, depth + 1))
            }
            Value::Map(entries) => {
                self.defined += entries.len();
                if self.defined > 2 * MAX_TERMS {
                    return Err(ContextError::TooManyTerms);
                }
                for (term, meaning) in entries {
                    self.define(term, meaning);
                }
                if self.terms.len() > MAX_TERMS { Err(ContextError::TooManyTerms) } else { Ok(()) }
            }
            Value::Bool(_) => Err(ContextError::WrongKind("true or false")),
            Value::Integer(_) | Value::Real(_) => Err(ContextError::WrongKind("a number")),
        }
    }

    fn define(&mut self, term: &str, meaning: &Value) {
        let iri = match meaning {
            Value::Text(iri) => Some(iri.as_str()),
            Value::Map(_) => meaning.get("@id").and_then(Value::as_text),
            _ => None,
        };
        match (term, iri) {
            ("@vocab", Some(iri)) => self.vocabulary = Some(iri.to_owned()),
            (keyword, _) if keyword.starts_with('@') => {}
            // What looks like an IRI means itself (JSON-LD 1.1 API, clause 4.2.2, step 14).
            (term, _) if term.contains(':') => {}
            (term, Some(iri)) if !iri.starts_with('@') => {
                self.terms.insert(term.to_owned(), iri.to_owned());
            }
            _ => {}
        }
    }

    /// Expands compact IRIs inside the definitions, and makes the way back.
    fn resolve(&mut self) {
        for _ in 0..MAX_DEPTH {
            let expanded: Vec<(String, String)> = self
                .terms
                .iter()
                .filter_map(|(term, iri)| {
                    let (prefix, rest) = iri.split_once(':')?;
                    let base = self.terms.get(prefix).filter(|_| prefix != term)?;
                    let fits = base.len() + rest.len() <= crate::parse::MAX_NAME_BYTES;
                    let expands = fits && !rest.starts_with("//");
                    expands.then(|| (term.clone(), format!("{base}{rest}")))
                })
                .collect();
            if expanded.is_empty() {
                break;
            }
            self.terms.extend(expanded);
        }
        let mut terms: Vec<_> = self.terms.iter().collect();
        terms.sort();
        self.back = terms
            .into_iter()
            .rev()
            .filter(|(term, _)| !is_member(term))
            .map(|(t, iri)| (Name::new(iri).as_str().to_owned(), t.clone()))
            .collect();
        let bases = self.terms.iter().filter(|(_, iri)| iri.ends_with(['/', '#']));
        let mut bases: Vec<_> = bases.map(|(term, iri)| (iri.clone(), term.clone())).collect();
        bases.sort();
        self.bases = bases.into_iter().collect();
    }
}

impl Context {
    /// Whether this is the core context alone.
    pub fn is_core(&self) -> bool {
        self.meaning.terms.is_empty() && self.meaning.vocabulary.is_none()
    }

    /// The context as it was given: null for the core context alone.
    pub fn source(&self) -> &Value {
        &self.source.0
    }

    /// The name a term, compact IRI or IRI stands for.
    pub fn expand(&self, term: &str) -> Name {
        if self.is_core() || matches!(term, "location" | "observationSpace" | "operationSpace") {
            return Name::new(term);
        }
        if let Some(iri) = self.meaning.terms.get(term) {
            return Name::new(iri);
        }
        if let Some((prefix, rest)) = term.split_once(':') {
            return match self.meaning.terms.get(prefix) {
                Some(base) if !rest.starts_with("//") => Name::new(&format!("{base}{rest}")),
                _ => Name::new(term),
            };
        }
        match &self.meaning.vocabulary {
            Some(vocabulary) => Name::new(&format!("{vocabulary}{term}")),
            None => Name::new(term),
        }
    }

    /// The shortest way to write a name under this context.
    pub fn compact<'a>(&'a self, name: &'a Name) -> std::borrow::Cow<'a, str> {
        let text = name.as_str();
        if self.is_core() {
            return text.into();
        }
        if let Some(term) = self.meaning.back.get(text) {
            return term.as_str().into();
        }
        // What is shorter must still mean the same: it may be a term with another meaning, or be taken
        // for a member of the entity or attribute itself.
        let means_it = |short: &str| !is_member(short) && self.expand(short) == *name;
        let rest = self.meaning.vocabulary.as_deref().and_then(|v| text.strip_prefix(v));
        if let Some(rest) = rest.filter(|rest| !rest.is_empty() && means_it(rest)) {
            return rest.into();
        }
        if name.is_short() {
            // A short term that this context gives another meaning must be written in full.
            return if self.meaning.terms.contains_key(text) || self.meaning.vocabulary.is_some() {
                name.iri().into()
            } else {
                text.into()
            };
        }
        // The longest base first; each end that a base may have is looked up, not each base.
        for (end, _) in text.rmatch_indices(['/', '#']) {
            let (base, rest) = text.split_at(end + 1);
            let Some(prefix) = self.meaning.bases.get(base) else { continue };
            let short = format!("{prefix}:{rest}");
            if means_it(&short) {
                return short.into();
            }
        }
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(json: &str) -> Result<Arc<Context>, ContextError> {
        Context::parse(&serde_json::from_str(json).unwrap(), &|url| {
            (url == "https://city.example/c.jsonld").then(|| {
                serde_json::from_str(r#"{"@context":{"tinggi":"https://city.example/level"}}"#)
                    .unwrap()
            })
        })
    }

    #[test]
    fn expands_and_compacts() {
        let c = context(
            r#"["https://city.example/c.jsonld",
                {"s":"https://schema.org/","nama":"s:name","speed":{"@id":"https://x.example/speed","@type":"@id"}}]"#,
        )
        .unwrap();
        let check = |term: &str, iri: &str| {
            assert_eq!(c.expand(term).iri(), iri);
            assert_eq!(c.compact(&c.expand(term)), term);
        };
        check("tinggi", "https://city.example/level");
        check("nama", "https://schema.org/name");
        check("s:address", "https://schema.org/address");
        check("speed", "https://x.example/speed");
        check("other", "https://uri.etsi.org/ngsi-ld/default-context/other");
        check("location", "https://uri.etsi.org/ngsi-ld/location");
        assert_eq!(
            c.compact(&Name::new("speed")),
            "https://uri.etsi.org/ngsi-ld/default-context/speed"
        );
    }

    #[test]
    fn refuses() {
        let unknown = context(r#""https://evil.example/c.jsonld""#).unwrap_err();
        assert!(unknown.to_string().contains("never fetched"));
        assert_eq!(context("5").unwrap_err(), ContextError::WrongKind("a number"));
        assert!(matches!(context("\"\"").unwrap_err(), ContextError::WrongKind(_)));
        let mut deep = "null".to_owned();
        for _ in 0..20 {
            deep = format!("[{deep}]");
        }
        assert_eq!(context(&deep).unwrap_err(), ContextError::TooDeep);
    }

    #[test]
    fn the_core_context_needs_no_lookup() {
        assert!(context(&format!("[\"{CORE_CONTEXT}\"]")).unwrap().is_core());
    }
}
