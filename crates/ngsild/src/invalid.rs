//! What is wrong with what somebody sent.

use std::fmt;

/// Input that does not fit, with its place and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where: a JSON pointer such as `/speed/observedAt`, or a parameter such as `?q`.
    pub place: String,
    /// What is wrong there, and where it helps, what would be right.
    pub what: String,
    /// The request as such is malformed (no JSON, no known parameter), rather than its data.
    pub request: bool,
}

impl Invalid {
    /// Data that does not fit (`BadRequestData`).
    pub fn data(place: impl Into<String>, what: impl Into<String>) -> Invalid {
        Invalid { place: place.into(), what: what.into(), request: false }
    }

    /// A malformed request (`InvalidRequest`).
    pub fn request(place: impl Into<String>, what: impl Into<String>) -> Invalid {
        Invalid { place: place.into(), what: what.into(), request: true }
    }

    /// The same fault seen from one level further out.
    pub fn inside(mut self, outer: &str) -> Invalid {
        self.place = format!("/{}{}", outer.replace('~', "~0").replace('/', "~1"), self.place);
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "at `{}`: {}", self.place, self.what)
        }
    }
}

impl std::error::Error for Invalid {}
