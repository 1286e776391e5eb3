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
    /// How far ahead of UTC the clock of `timeAt` is, in microseconds: months are those of its place.
    pub offset: i64,
}

impl Default for TemporalQuery {
    fn default() -> Self {
        TemporalQuery { from: Time::MIN, until: Time::MAX, last: None, origin: None, offset: 0 }
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
        let there = time_at.and_then(|text| Time::parse_with_offset(text).ok());
        let offset = there.map_or(0, |(_, offset)| offset);
        let mut query = TemporalQuery { offset, ..TemporalQuery::default() };
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
        let mut asked = Vec::new();
        for word in methods.split(',') {
            let method = method(word)?;
            if !asked.contains(&method) {
                asked.push(method);
            }
        }
        let methods = asked;
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
    /// The period that holds `time`, counted from `origin` on: start and end. Months are those of a clock
    /// `offset` microseconds ahead of UTC, and of the day that `origin` has there, or the last there is.
    pub fn holding(self, origin: Time, offset: i64, time: Time) -> (Time, Time) {
        if self.months == 0 {
            let steps = time.0.saturating_sub(origin.0).div_euclid(self.micros);
            let start = origin.0.saturating_add(steps.saturating_mul(self.micros));
            return (Time(start), Time(start.saturating_add(self.micros)).min(Time::MAX));
        }
        let local = Time(origin.0.saturating_add(offset));
        let (year, month, day) = local.civil();
        let in_day = local.0.rem_euclid(DAY);
        let start_of = |step: i64| {
            let months = year * 12 + i64::from(month) - 1 + step * self.months;
            let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
            let month = u32::try_from(month).unwrap_or(1);
            let date = (1..=day).rev().find_map(|day| Time::from_civil(year, month, day, 0));
            let Some(Time(date)) = date else { return Time::MAX };
            let date = date.saturating_add(in_day);
            let past = step.saturating_mul(self.micros);
            Time(date.saturating_sub(offset).saturating_add(past)).min(Time::MAX)
        };
        // No month is longer: never too far.
        let longest = self.months.saturating_mul(31 * DAY).saturating_add(self.micros);
        let mut step = time.0.saturating_sub(origin.0).div_euclid(longest).max(0);
        loop {
            let (start, end) = (start_of(step), start_of(step + 1));
            if end > time || end <= start {
                return (start, end);
            }
            step += 1;
        }
    }
}

/// Microseconds.
const DAY: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_place_they_are_asked_from() {
        let text = "2024-01-31T00:00:00+07:00";
        let (origin, offset) = Time::parse_with_offset(text).unwrap();
        let month = parse_duration("P1M").unwrap();
        let at = |text: &str| month.holding(origin, offset, Time::parse(text).unwrap());
        let between = |from: &str, to: &str| {
            let day = |day: &str| Time::parse(&format!("{day}T00:00:00+07:00")).unwrap();
            (day(from), day(to))
        };
        assert_eq!(at("2024-02-10T00:00:00Z"), between("2024-01-31", "2024-02-29"));
        assert_eq!(
            at("2024-02-28T17:00:00Z"),
            between("2024-02-29", "2024-03-31"),
            "midnight there"
        );
        assert_eq!(at("2024-04-29T16:59:59Z"), between("2024-03-31", "2024-04-30"));
        assert_eq!(at("2034-06-15T00:00:00Z"), between("2034-05-31", "2034-06-30"));
        let ages = parse_duration("P1000000Y").unwrap().holding(origin, offset, Time(0));
        assert_eq!(ages.1, Time::MAX);
        let first = "2024-01-01T00:00:00+07:00";
        let (origin, offset) = Time::parse_with_offset(first).unwrap();
        let found = month.holding(origin, offset, Time::parse("2024-04-15T00:00:00Z").unwrap());
        assert_eq!(found, between("2024-04-01", "2024-05-01"));
    }

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
        assert_eq!(month.holding(start, 0, start).1.to_string(), "2024-02-29T06:00:00Z");
        let time = |text| Time::parse(text).unwrap();
        let within = month.holding(time("2024-01-01"), 0, time("2024-03-15"));
        assert_eq!(within, (time("2024-03-01"), time("2024-04-01")));
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
