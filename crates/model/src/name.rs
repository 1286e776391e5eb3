//! Names of types and attributes: IRIs, held in one canonical form.

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Borrow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use xxhash_rust::xxh3::xxh3_64;

/// The canonical name of a type, an attribute or a vocabulary value.
///
/// An IRI, except that a term the NGSI-LD core context knows or puts into its default vocabulary
/// (`https://uri.etsi.org/ngsi-ld/default-context/`, ETSI GS CIM 009 annex B) is held as its short
/// term, however it was written and wherever it is read from: what a dataset declares by an IRI is what
/// is sent by a term. A short term holds no `:`, an IRI always does, so the two never meet.
#[derive(Clone)]
pub struct Name(Text);

/// A name that is held once is copied without counting who holds it: it stays for good.
#[derive(Clone)]
enum Text {
    Once(&'static str),
    Own(Arc<str>),
}

/// Names that are held once however often they occur; more than these are held by themselves.
const MAX_SHARED: usize = 100_000;
/// Bytes of a name that is held once: whoever asks for longer ones fills no memory with them.
const MAX_SHARED_BYTES: usize = 256;
/// Names that each thread finds without asking the others, by hash.
const LATELY: usize = 256;

/// One copy of each name: a city has a few hundred names and millions of uses.
fn shared(text: &str) -> Text {
    thread_local! {
        static FOUND: [Cell<&'static str>; LATELY] = const { [const { Cell::new("") }; LATELY] };
    }
    if text.len() > MAX_SHARED_BYTES {
        return Text::Own(text.into());
    }
    FOUND.with(|found| {
        let place = &found[xxh3_64(text.as_bytes()) as usize % LATELY];
        if place.get() == text {
            return Text::Once(place.get());
        }
        let name = known(text);
        if let Text::Once(once) = name {
            place.set(once);
        }
        name
    })
}

fn known(text: &str) -> Text {
    static NAMES: LazyLock<RwLock<HashSet<&'static str>>> = LazyLock::new(RwLock::default);
    if let Some(once) = NAMES.read().unwrap_or_else(PoisonError::into_inner).get(text) {
        return Text::Once(once);
    }
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(once) = names.get(text) {
        // Another thread was first.
        return Text::Once(once);
    }
    if names.len() >= MAX_SHARED {
        return Text::Own(text.into());
    }
    let once: &'static str = Box::leak(text.into());
    names.insert(once);
    Text::Once(once)
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        let (one, other) = (self.as_str(), other.as_str());
        std::ptr::eq(one, other) || one == other
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
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
        match &self.0 {
            Text::Once(text) => text,
            Text::Own(text) => text,
        }
    }

    /// Whether this is a term of the core context, written without a prefix.
    pub fn is_short(&self) -> bool {
        !self.as_str().contains(':')
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
        write!(f, "`{}`", self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
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
    fn held_once_or_not_a_name_is_its_text() {
        let long = |last: &str| Name::new(&format!("urn:{}{last}", "x".repeat(MAX_SHARED_BYTES)));
        // More than a thread finds by itself, so that they take each other's place.
        let many = || (0..4 * LATELY).map(|n| Name::new(&format!("urn:many:{n}")));
        let elsewhere = std::thread::spawn(move || many().collect::<Vec<_>>());
        let (here, elsewhere) = (many().collect::<Vec<_>>(), elsewhere.join().unwrap());
        for (n, (one, other)) in here.iter().zip(&elsewhere).enumerate() {
            assert_eq!(one.as_str(), format!("urn:many:{n}"));
            assert!(std::ptr::eq(one.as_str(), other.as_str()), "{one} is held twice");
        }
        assert_eq!(long("a"), long("a").clone());
        assert!(long("a") < long("b") && Name::new("a") < Name::new("b"));
        assert_eq!(HashSet::from([long("a"), Name::new("a")]).get("a"), Some(&Name::new("a")));
    }

    #[test]
    fn scopes() {
        assert!(scope_within("/bandung/coblong", "/bandung"));
        assert!(scope_within("/bandung", "/bandung"));
        assert!(scope_within("/bandung", ""));
        assert!(!scope_within("/bandungan", "/bandung"));
    }
}
