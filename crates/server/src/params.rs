//! Query parameters: each is known, given once, and said to be wrong by name.

use crate::problem::Problem;
use ngsild::Invalid;

/// Longest query string, in bytes.
pub const MAX_QUERY_BYTES: usize = 16 << 10;
/// Parameters of one query.
pub const MAX_PARAMETERS: usize = 64;

/// Parameters of the standard (ETSI GS CIM 009 clause 6.3 and 6.4) that are left out, where a
/// request does not take them.
const NOT_OFFERED: [&str; 9] = [
    "expandValues",
    "jsonKeys",
    "orderBy",
    "collation",
    "entityMap",
    "entityMapLifetime",
    "splitEntities",
    "keep",
    "reload",
];

/// Parameters of a request, decoded.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query string.
    ///
    /// # Errors
    /// When it is too long, a percent sign leads nowhere, or a parameter is given twice.
    pub fn parse(query: &str) -> Result<Params, Invalid> {
        if query.len() > MAX_QUERY_BYTES {
            return Err(Invalid::request(
                "?",
                format!("the query is longer than {MAX_QUERY_BYTES} bytes"),
            ));
        }
        let mut params: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(key)
                .ok_or_else(|| Invalid::request("?", "a parameter's name is no UTF-8"))?;
            let place = format!("?{key}");
            let value = decode(value).ok_or_else(|| {
                Invalid::request(&place, "holds `%` without two hex digits, or no UTF-8")
            })?;
            let before = params.iter_mut().find(|(seen, _)| *seen == key);
            if let (Some((_, list)), "options") = (&before, key.as_str()) {
                // Clients write `options=a&options=b` for `options=a,b`.
                let joined = format!("{list},{value}");
                params.retain(|(seen, _)| *seen != key);
                params.push((key, joined));
                continue;
            }
            if before.is_some() {
                return Err(Invalid::request(place, "is given twice"));
            }
            if params.len() >= MAX_PARAMETERS {
                let what = format!("the query has more than {MAX_PARAMETERS} parameters");
                return Err(Invalid::request("?", what));
            }
            params.push((key, value));
        }
        Ok(Params(params))
    }

    /// A parameter's text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A parameter's comma-separated items.
    pub fn list(&self, key: &str) -> Vec<&str> {
        self.get(key)
            .map(|text| text.split(',').filter(|item| !item.is_empty()).collect())
            .unwrap_or_default()
    }

    /// A parameter that is a whole number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, key: &str) -> Result<Option<usize>, Invalid> {
        let parse = |text: &str| {
            let what = format!("`{text}` is no whole number from 0");
            text.parse().map_err(|_| Invalid::data(format!("?{key}"), what))
        };
        self.get(key).map(parse).transpose()
    }

    /// A parameter that is true or false; false when missing.
    ///
    /// # Errors
    /// When it is neither.
    pub fn flag(&self, key: &str) -> Result<bool, Invalid> {
        match self.get(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Invalid::data(
                format!("?{key}"),
                format!("`{other}` is neither true nor false"),
            )),
        }
    }

    /// Checks that only known parameters are there.
    ///
    /// # Errors
    /// The first one that is part of the standard and not offered, or unknown.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        self.only_of(&[known])
    }

    /// As [`Params::only`], of several lists.
    ///
    /// # Errors
    /// As it.
    pub fn only_of(&self, known: &[&[&str]]) -> Result<(), Problem> {
        let is_known = |name: &str| known.iter().any(|list| list.contains(&name));
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            Some((name, _)) if NOT_OFFERED.contains(&name.as_str()) => Err(Problem::not_offered(
                format!("the parameter `{name}` is part of the standard and is not offered here"),
            )),
            Some((name, _)) => {
                let what = format!("is none of: {}", known.concat().join(", "));
                Err(Invalid::request(format!("?{name}"), what).into())
            }
            None => Ok(()),
        }
    }

    /// The same parameters with one replaced, as a query string.
    pub fn with(&self, key: &str, value: &str) -> String {
        let others = self.0.iter().filter(|(name, _)| name != key);
        let own = (key.to_owned(), value.to_owned());
        let pairs: Vec<String> = others
            .chain(std::iter::once(&own))
            .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
            .collect();
        pairs.join("&")
    }
}

/// Percent-decodes; none when it cannot be decoded.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:,/".contains(&byte);
    let one =
        |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_refuses() {
        let params = Params::parse("type=A%2CB&q=a%3E1&count=true&x=").unwrap();
        assert_eq!(params.list("type"), ["A", "B"]);
        assert_eq!(params.get("q"), Some("a>1"));
        assert!(params.flag("count").unwrap());
        assert_eq!(Params::parse(&params.with("offset", "20")).unwrap().get("q"), Some("a>1"));
        for bad in ["a=%", "a=%f", "a=%ff", "a=1&a=2", &"a".repeat(20_000)] {
            assert!(Params::parse(bad).is_err(), "{bad}");
        }
        assert!(params.only(&["type"]).is_err());
        assert!(Params::parse("limit=-1").unwrap().number("limit").is_err());
        assert!(Params::parse("count=yes").unwrap().flag("count").is_err());
    }
}
