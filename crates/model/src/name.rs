//! Names of types and attributes: IRIs, held in one canonical form.

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Visitor};
use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// The canonical name of a type, an attribute or a vocabulary value.
///
/// An IRI, except that a term the NGSI-LD core context knows or puts into its default vocabulary
/// (`https://uri.etsi.org/ngsi-ld/default-context/`, ETSI GS CIM 009 annex B) is held as its short
/// term, however it was written and wherever it is read from: what a dataset declares by an IRI is what
/// is sent by a term. A short term holds no `:`, an IRI always does, so the two never meet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(Arc<str>);

/// Names that are held once however often they occur; more than these are held by themselves.
const MAX_SHARED: usize = 100_000;
/// Bytes of a name that is held once: whoever asks for longer ones fills no memory with them.
const MAX_SHARED_BYTES: usize = 256;

/// One copy of each name: a city has a few hundred names and millions of uses.
fn shared(text: &str) -> Arc<str> {
    if text.len() > MAX_SHARED_BYTES {
        return text.into();
    }
    static NAMES: LazyLock<RwLock<HashSet<Arc<str>>>> = LazyLock::new(RwLock::default);
    let known = NAMES.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known.get(text) {
        return name.clone();
    }
    let full = known.len() >= MAX_SHARED;
    drop(known);
    let name: Arc<str> = text.into();
    if !full {
        NAMES.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
    }
    name
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name::new(text))
            }
        }
        from.deserialize_str(Text)
    }
}

impl Name {
    /// The vocabulary that terms without a context of their own belong to.
    pub const DEFAULT_VOCABULARY: &str = "https://uri.etsi.org/ngsi-ld/default-context/";
    /// The vocabulary of the core terms themselves.
    pub const CORE_VOCABULARY: &str = "https://uri.etsi.org/ngsi-ld/";

    /// Makes the canonical form of an expanded IRI or of a term of the core context.
    pub fn new(iri: &str) -> Name {
        let fits = |rest: &&str| !rest.is_empty() && !rest.contains(':');
        let default = iri.strip_prefix(Self::DEFAULT_VOCABULARY).filter(fits);
        let core = || iri.strip_prefix(Self::CORE_VOCABULARY).filter(fits);
        let short = default.or_else(|| core().filter(|rest| !rest.contains(['/', '#'])));
        Name(shared(short.unwrap_or(iri)))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a term of the core context, written without a prefix.
    pub fn is_short(&self) -> bool {
        !self.0.contains(':')
    }

    /// The full IRI.
    pub fn iri(&self) -> String {
        match self.as_str() {
            core @ ("location" | "observationSpace" | "operationSpace" | "scope") => {
                format!("{}{core}", Self::CORE_VOCABULARY)
            }
            short if self.is_short() => format!("{}{short}", Self::DEFAULT_VOCABULARY),
            iri => iri.to_owned(),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

/// Whether the scope `scope` (ETSI GS CIM 009 clause 4.18, `/a/b`) lies at or below `prefix`.
pub fn scope_within(scope: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    scope == prefix
        || prefix.is_empty()
        || (scope.starts_with(prefix) && scope.as_bytes().get(prefix.len()) == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::value::StrDeserializer;

    #[test]
    fn canonical_names() {
        let check = |input: &str, short: &str, iri: &str| {
            assert_eq!(Name::new(input).as_str(), short);
            assert_eq!(Name::new(input).iri(), iri);
            assert_eq!(Name::new(&Name::new(input).iri()), Name::new(input));
            let read = StrDeserializer::<serde::de::value::Error>::new(input);
            assert_eq!(Name::deserialize(read).unwrap(), Name::new(input));
        };
        let default = "https://uri.etsi.org/ngsi-ld/default-context/level";
        check("level", "level", default);
        check(default, "level", default);
        check("/a#b", "/a#b", "https://uri.etsi.org/ngsi-ld/default-context//a#b");
        let odd = "https://uri.etsi.org/ngsi-ld/default-context/a:b";
        check(odd, odd, odd);
        check("location", "location", "https://uri.etsi.org/ngsi-ld/location");
        check("https://schema.org/name", "https://schema.org/name", "https://schema.org/name");
    }

    #[test]
    fn scopes() {
        assert!(scope_within("/bandung/coblong", "/bandung"));
        assert!(scope_within("/bandung", "/bandung"));
        assert!(scope_within("/bandung", ""));
        assert!(!scope_within("/bandungan", "/bandung"));
    }
}
