//! Temporal queries (clause 4.11) and aggregation (clause 4.5.19).

use crate::Invalid;
use model::Time;

/// Which part of a history is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TemporalQuery {
    /// From here, inclusive.
    pub from: Time,
    /// Up to here, exclusive.
    pub until: Time,
    /// Only the latest so many of each attribute.
    pub last: Option<usize>,
    /// Where periods begin to be counted, when a beginning was given.
    pub origin: Option<Time>,
}

impl Default for TemporalQuery {
    fn default() -> Self {
        TemporalQuery { from: Time::MIN, until: Time::MAX, last: None, origin: None }
    }
}

/// A period of the calendar: months and microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub months: i64,
    pub micros: i64,
}

/// How values of a period are made into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    TotalCount,
    DistinctCount,
    Sum,
    Average,
    Minimum,
    Maximum,
    StandardDeviation,
    SumOfSquares,
    First,
    Last,
}

impl Aggregate {
    const WORDS: [(&'static str, Aggregate); 10] = [
        ("totalCount", Aggregate::TotalCount),
        ("distinctCount", Aggregate::DistinctCount),
        ("sum", Aggregate::Sum),
        ("avg", Aggregate::Average),
        ("min", Aggregate::Minimum),
        ("max", Aggregate::Maximum),
        ("stddev", Aggregate::StandardDeviation),
        ("sumsq", Aggregate::SumOfSquares),
        ("first", Aggregate::First),
        ("last", Aggregate::Last),
    ];

    /// The standard's word (`first` and `last` are the hub's own).
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, method)| *method == self).map_or("", |(word, _)| word)
    }
}

/// An aggregation: methods over periods that start at the query's first instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregation {
    pub methods: Vec<Aggregate>,
    /// None: one period over everything.
    pub period: Option<Period>,
}

impl TemporalQuery {
    /// From `timerel`, `timeAt`, `endTimeAt` and `lastN`.
    ///
    /// # Errors
    /// When one is missing or does not fit.
    pub fn parse(
        timerel: Option<&str>,
        time_at: Option<&str>,
        end_time_at: Option<&str>,
        last: Option<&str>,
    ) -> Result<TemporalQuery, Invalid> {
        let time = |place: &str, text: Option<&str>| match text {
            Some(text) => {
                Time::parse(text).map_err(|error| Invalid::data(place, error.to_string()))
            }
            None => Err(Invalid::data(place, "is missing beside `timerel`")),
        };
        let mut query = TemporalQuery::default();
        match timerel {
            None if time_at.is_some() => {
                return Err(Invalid::data("?timerel", "is missing beside `timeAt`"));
            }
            None => {}
            Some("before") => query.until = time("?timeAt", time_at)?,
            Some("after") => {
                let at = time("?timeAt", time_at)?;
                (query.from, query.origin) = (Time(at.0 + 1), Some(at));
            }
            Some("between") => {
                query.from = time("?timeAt", time_at)?;
                query.origin = Some(query.from);
                query.until = time("?endTimeAt", end_time_at)?;
            }
            Some(other) => {
                let what = format!("`{other}` is none of: before, after, between");
                return Err(Invalid::data("?timerel", what));
            }
        }
        if query.from > query.until {
            return Err(Invalid::data("?endTimeAt", "lies before `timeAt`"));
        }
        if let Some(last) = last {
            let number = last.parse::<usize>().ok().filter(|number| *number > 0);
            query.last = Some(number.ok_or_else(|| {
                Invalid::data("?lastN", format!("`{last}` is no whole number above 0"))
            })?);
        }
        Ok(query)
    }
}

impl Aggregation {
    /// From `aggrMethods` and `aggrPeriodDuration`.
    ///
    /// # Errors
    /// When a method is unknown or the period is none.
    pub fn parse(methods: &str, period: Option<&str>) -> Result<Aggregation, Invalid> {
        let method = |word: &str| {
            Aggregate::WORDS.iter().find(|(known, _)| *known == word).map(|(_, m)| *m).ok_or_else(
                || {
                    let known: Vec<_> = Aggregate::WORDS.iter().map(|(word, _)| *word).collect();
                    Invalid::data(
                        "?aggrMethods",
                        format!("`{word}` is none of: {}", known.join(", ")),
                    )
                },
            )
        };
        let methods = methods.split(',').map(method).collect::<Result<Vec<_>, _>>()?;
        let period = match period {
            None | Some("PT0S" | "P0D") => None,
            Some(text) => Some(parse_duration(text).ok_or_else(|| {
                let what = format!("`{text}` is no duration such as `PT1H` or `P1D` (ISO 8601)");
                Invalid::data("?aggrPeriodDuration", what)
            })?),
        };
        Ok(Aggregation { methods, period })
    }
}

/// Reads an ISO 8601 duration such as `P1DT12H`; none when it is none, or nothing long.
pub fn parse_duration(text: &str) -> Option<Period> {
    let mut rest = text.strip_prefix('P')?;
    let mut period = Period { months: 0, micros: 0 };
    let mut in_time = false;
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T') {
            if in_time || time.is_empty() {
                return None;
            }
            (in_time, rest) = (true, time);
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..end].parse().ok().filter(|number| *number <= 1_000_000)?;
        let unit = rest[end..].chars().next()?;
        let (months, seconds) = match (unit, in_time) {
            ('Y', false) => (12, 0),
            ('M', false) => (1, 0),
            ('W', false) => (0, 7 * 86_400),
            ('D', false) => (0, 86_400),
            ('H', true) => (0, 3_600),
            ('M', true) => (0, 60),
            ('S', true) => (0, 1),
            _ => return None,
        };
        period.months = period.months.checked_add(number * months)?;
        period.micros = period.micros.checked_add(number * seconds * 1_000_000)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    (period.months > 0 || period.micros > 0).then_some(period)
}

impl Period {
    /// The start of the period after the one that starts at `start`.
    pub fn next(self, start: Time) -> Time {
        let moved = if self.months == 0 {
            start
        } else {
            let (year, month, day) = start.civil();
            let months = year * 12 + i64::from(month) - 1 + self.months;
            let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
            let in_day = start.0.rem_euclid(86_400_000_000);
            let month = u32::try_from(month).unwrap_or(1);
            let date = (1..=day).rev().find_map(|day| Time::from_civil(year, month, day, 0));
            Time(date.unwrap_or(Time::MAX).0.saturating_add(in_day))
        };
        Time(moved.0.saturating_add(self.micros)).min(Time::MAX)
    }

    /// The start of the period that holds `time`, counted from `origin` on.
    pub fn start_of(self, origin: Time, time: Time) -> Time {
        if self.months == 0 {
            let steps = time.0.saturating_sub(origin.0).div_euclid(self.micros);
            return Time(origin.0.saturating_add(steps.saturating_mul(self.micros)));
        }
        let mut start = origin;
        loop {
            let next = self.next(start);
            if next > time || next <= start {
                return start;
            }
            start = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, months: i64, seconds: i64| {
            assert_eq!(parse_duration(text), Some(Period { months, micros: seconds * 1_000_000 }));
        };
        check("PT1H", 0, 3600);
        check("P1DT12H30M5S", 0, 86_400 + 12 * 3600 + 30 * 60 + 5);
        check("P1Y2M", 14, 0);
        check("P2W", 0, 14 * 86_400);
        for bad in ["", "P", "PT", "1H", "P1H", "PT1X", "P-1D", "PT0S", "P99999999D", "P8\u{42a}"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn months_keep_to_the_calendar() {
        let month = parse_duration("P1M").unwrap();
        let start = Time::parse("2024-01-31T06:00:00Z").unwrap();
        assert_eq!(month.next(start).to_string(), "2024-02-29T06:00:00Z");
        let within =
            month.start_of(Time::parse("2024-01-01").unwrap(), Time::parse("2024-03-15").unwrap());
        assert_eq!(within.to_string(), "2024-03-01T00:00:00Z");
    }

    #[test]
    fn refuses_with_the_place() {
        let parse =
            |rel, at, end, last| TemporalQuery::parse(rel, at, end, last).unwrap_err().place;
        assert_eq!(parse(Some("during"), None, None, None), "?timerel");
        assert_eq!(parse(Some("before"), None, None, None), "?timeAt");
        assert_eq!(parse(Some("between"), Some("2026-01-01"), None, None), "?endTimeAt");
        assert_eq!(
            parse(Some("between"), Some("2026-01-02"), Some("2026-01-01"), None),
            "?endTimeAt"
        );
        assert_eq!(parse(None, None, None, Some("0")), "?lastN");
        assert_eq!(Aggregation::parse("mean", None).unwrap_err().place, "?aggrMethods");
        assert_eq!(Aggregation::parse("avg", Some("1h")).unwrap_err().place, "?aggrPeriodDuration");
    }
}
