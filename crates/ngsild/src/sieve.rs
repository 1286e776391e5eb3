//! A filter over columns: what the numbers and the place of an entity say by themselves.
//!
//! Three answers: it matches, it does not, or only the entity itself tells.

use crate::q::{Operand, Operator, Path};
use crate::{Filter, GeoQuery, Q};
use model::{Name, Value};

/// How an attribute of entities that are alike can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is not there for whoever asks.
    Absent,
    /// It is one number, in the column with this index.
    Number(usize),
    /// It is one point, in the column of places.
    Place,
    /// It is there; only the entity tells more.
    Other,
}

/// The columns of entities that are alike, by row.
pub struct Columns<'a> {
    pub numbers: Vec<&'a [f64]>,
    pub places: &'a [(f64, f64)],
}

/// A filter as far as columns can answer it.
#[derive(Debug)]
pub enum Sieve<'a> {
    Always,
    Never,
    Unsure,
    Number { column: usize, within: Vec<(f64, f64)>, negated: bool },
    Above { column: usize, least: f64, equal: bool },
    Below { column: usize, most: f64, equal: bool },
    Place(&'a GeoQuery, Option<[f64; 4]>),
    All(Vec<Sieve<'a>>),
    Any(Vec<Sieve<'a>>),
}

/// Largest whole number up to which all are told apart in a column.
const EXACT: i64 = 1 << 53;

impl<'a> Sieve<'a> {
    /// The filter over entities with these types, whose attributes can be looked at so.
    pub fn of(filter: &'a Filter, types: &[Name], look: &dyn Fn(&Name) -> Look) -> Sieve<'a> {
        let unsure = |given: bool| if given { Sieve::Unsure } else { Sieve::Always };
        let typed = filter.types.as_ref().is_none_or(|selection| selection.matches(types));
        let there = |name: &Name| look(name) != Look::Absent;
        let has = filter.attributes.is_empty() || filter.attributes.iter().any(there);
        let mut all = vec![
            if typed && has { Sieve::Always } else { Sieve::Never },
            unsure(!filter.ids.is_empty()),
            unsure(filter.id_pattern.is_some()),
            unsure(filter.scopes.is_some()),
        ];
        all.extend(filter.q.as_ref().map(|q| Sieve::of_q(q, look)));
        all.extend(filter.geo.as_ref().map(|geo| match look(&geo.property) {
            Look::Absent | Look::Number(_) => Sieve::Never,
            Look::Place => Sieve::Place(geo, geo.bounds()),
            Look::Other => Sieve::Unsure,
        }));
        if !filter.any_of.is_empty() {
            let of = |one: &'a Filter| Sieve::of(one, types, look);
            all.push(Sieve::any(filter.any_of.iter().map(of).collect()));
        }
        Sieve::all(all)
    }

    fn all(mut terms: Vec<Sieve<'a>>) -> Sieve<'a> {
        terms.retain(|term| !matches!(term, Sieve::Always));
        if terms.iter().any(|term| matches!(term, Sieve::Never)) {
            return Sieve::Never;
        }
        match terms.len() {
            0 => Sieve::Always,
            1 => terms.remove(0),
            _ => Sieve::All(terms),
        }
    }

    fn any(mut terms: Vec<Sieve<'a>>) -> Sieve<'a> {
        terms.retain(|term| !matches!(term, Sieve::Never));
        if terms.iter().any(|term| matches!(term, Sieve::Always)) {
            return Sieve::Always;
        }
        match terms.len() {
            0 => Sieve::Never,
            1 => terms.remove(0),
            _ => Sieve::Any(terms),
        }
    }

    fn of_q(q: &'a Q, look: &dyn Fn(&Name) -> Look) -> Sieve<'a> {
        match q {
            Q::All(terms) => Sieve::all(terms.iter().map(|term| Sieve::of_q(term, look)).collect()),
            Q::Any(terms) => Sieve::any(terms.iter().map(|term| Sieve::of_q(term, look)).collect()),
            Q::Exists(path) => match Sieve::look(path, look) {
                Ok(_) => Sieve::Always,
                Err(sieve) => sieve,
            },
            Q::Compare(path, operator, operands) => match Sieve::look(path, look) {
                Ok(Look::Number(column)) => Sieve::compare(column, *operator, operands),
                Ok(_) => Sieve::Unsure,
                Err(sieve) => sieve,
            },
            Q::Pattern(path, _, negated) => match Sieve::look(path, look) {
                // A number is no text that a pattern could fit.
                Ok(Look::Number(_)) if *negated => Sieve::Always,
                Ok(Look::Number(_)) => Sieve::Never,
                Ok(_) => Sieve::Unsure,
                Err(sieve) => sieve,
            },
        }
    }

    /// How the path's attribute can be looked at, if the path ends there.
    fn look(path: &Path, look: &dyn Fn(&Name) -> Look) -> Result<Look, Sieve<'a>> {
        match path.attribute() {
            Some(name) => match look(name) {
                Look::Absent => Err(Sieve::Never),
                found => Ok(found),
            },
            None => Err(Sieve::Unsure),
        }
    }

    fn compare(column: usize, operator: Operator, operands: &[Operand]) -> Sieve<'a> {
        let exact = |value: &Value| match value {
            Value::Integer(number) => number.unsigned_abs() <= EXACT.unsigned_abs(),
            _ => true,
        };
        let sure = operands.iter().all(|operand| match operand {
            Operand::One(value) => exact(value),
            Operand::Range(low, high) => exact(low) && exact(high),
        });
        if !sure {
            return Sieve::Unsure;
        }
        let one = match operands {
            [Operand::One(value)] => value.as_number(),
            _ => None,
        };
        match (operator, one) {
            (Operator::Equal | Operator::Unequal, _) => {
                let range = |operand: &Operand| match operand {
                    Operand::One(value) => value.as_number().map(|number| (number, number)),
                    Operand::Range(low, high) => Some((low.as_number()?, high.as_number()?)),
                };
                let within = operands.iter().filter_map(range).collect();
                Sieve::Number { column, within, negated: operator == Operator::Unequal }
            }
            (_, None) => Sieve::Never,
            (Operator::Greater, Some(least)) => Sieve::Above { column, least, equal: false },
            (Operator::GreaterEqual, Some(least)) => Sieve::Above { column, least, equal: true },
            (Operator::Less, Some(most)) => Sieve::Below { column, most, equal: false },
            (Operator::LessEqual, Some(most)) => Sieve::Below { column, most, equal: true },
        }
    }

    /// Whether the entity in a row matches; none when only the entity itself tells.
    pub fn test(&self, columns: &Columns<'_>, row: usize) -> Option<bool> {
        let number = |column: &usize| columns.numbers.get(*column)?.get(row).copied();
        Some(match self {
            Sieve::Always => true,
            Sieve::Never => false,
            Sieve::Unsure => return None,
            Sieve::Number { column, within, negated } => {
                let found = number(column)?;
                within.iter().any(|(low, high)| (*low..=*high).contains(&found)) != *negated
            }
            Sieve::Above { column, least, equal } => {
                let found = number(column)?;
                found > *least || (*equal && found == *least)
            }
            Sieve::Below { column, most, equal } => {
                let found = number(column)?;
                found < *most || (*equal && found == *most)
            }
            Sieve::Place(geo, bounds) => {
                let (lon, lat) = *columns.places.get(row)?;
                let outside = bounds.is_some_and(|[west, south, east, north]| {
                    lon < west || lon > east || lat < south || lat > north
                });
                !outside && geo.takes_point(lon, lat)
            }
            Sieve::All(terms) => {
                let mut sure = true;
                for term in terms {
                    match term.test(columns, row) {
                        Some(false) => return Some(false),
                        found => sure &= found.is_some(),
                    }
                }
                return sure.then_some(true);
            }
            Sieve::Any(terms) => {
                let mut sure = true;
                for term in terms {
                    match term.test(columns, row) {
                        Some(true) => return Some(true),
                        found => sure &= found.is_some(),
                    }
                }
                return sure.then_some(false);
            }
        })
    }
}
