//! Instants, in microseconds since 1970-01-01T00:00:00 UTC, and their RFC 3339 notation.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An instant: microseconds since 1970-01-01T00:00:00Z; years 0001 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Time(pub i64);

/// Why a text is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no date and time such as `2026-08-20T10:00:00Z` (RFC 3339)")]
pub struct TimeError(pub String);

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

impl Time {
    /// The first representable instant.
    pub const MIN: Time = Time(-62_135_596_800_000_000);
    /// The last representable instant.
    pub const MAX: Time = Time(253_402_300_799_999_999);

    /// From whole seconds since the epoch.
    pub const fn from_seconds(seconds: i64) -> Time {
        Time(seconds * MICROS_PER_SECOND)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// This instant moved by a number of seconds, held inside the representable range.
    pub fn plus_seconds(self, seconds: i64) -> Time {
        let moved = self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND));
        Time(moved.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// From a date and a time of day in UTC; none when a part is out of range.
    pub fn from_civil(year: i64, month: u32, day: u32, second_of_day: i64) -> Option<Time> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        if day < 1 || day > days_in_month(year, month) {
            return None;
        }
        Some(Time::from_seconds(
            days_from_civil(year, month, day) * SECONDS_PER_DAY + second_of_day,
        ))
    }

    /// Year, month and day in UTC.
    pub fn civil(self) -> (i64, u32, u32) {
        civil_from_days(self.seconds().div_euclid(SECONDS_PER_DAY))
    }

    /// Reads RFC 3339 (a date alone is its midnight UTC; the seconds' fraction is kept to
    /// microseconds; an offset is applied).
    ///
    /// # Errors
    /// When the text has another form or a part is out of range.
    pub fn parse(text: &str) -> Result<Time, TimeError> {
        Ok(Time::parse_with_offset(text)?.0)
    }

    /// The same, with how far ahead of UTC the clock is that it was read from, in microseconds.
    ///
    /// # Errors
    /// As [`Time::parse`].
    pub fn parse_with_offset(text: &str) -> Result<(Time, i64), TimeError> {
        parse(text.as_bytes()).ok_or_else(|| TimeError(text.chars().take(40).collect()))
    }
}

fn number(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() || bytes.len() > 9 {
        return None;
    }
    bytes.iter().try_fold(0i64, |sum, byte| match byte {
        b'0'..=b'9' => Some(sum * 10 + i64::from(byte - b'0')),
        _ => None,
    })
}

/// The instant, and how far its clock is ahead of UTC.
fn parse(text: &[u8]) -> Option<(Time, i64)> {
    let date = text.get(..10)?;
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    let midnight = Time::from_civil(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?, 0)?;
    if text.len() == 10 {
        return Some((midnight, 0));
    }
    let clock = text.get(10..19)?;
    if !matches!(clock[0], b'T' | b't' | b' ') || clock[3] != b':' || clock[6] != b':' {
        return None;
    }
    let (hour, minute, second) =
        (number(&clock[1..3])?, number(&clock[4..6])?, number(&clock[7..])?);
    // A leap second is read as the last instant before it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > 12 {
            return None;
        }
        let kept = digits.min(6);
        micros = number(&fraction[..kept])? * 10i64.pow(6 - u32::try_from(kept).ok()?);
        rest = &fraction[digits..];
    }
    let offset_seconds = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), zone @ ..] if zone.len() == 5 && zone[2] == b':' => {
            let (hours, minutes) = (number(&zone[..2])?, number(&zone[3..])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = hour * 3600 + minute * 60 + second.min(59) - offset_seconds;
    let time = Time(midnight.0 + seconds * MICROS_PER_SECOND + micros);
    let offset = offset_seconds * MICROS_PER_SECOND;
    (Time::MIN..=Time::MAX).contains(&time).then_some((time, offset))
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, by eras of 400 years.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

/// An instant in RFC 3339, made without allocating: histories are mostly times.
pub struct TimeText {
    bytes: [u8; 27],
    length: usize,
}

impl std::ops::Deref for TimeText {
    type Target = str;

    fn deref(&self) -> &str {
        // Only digits and marks were written.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

fn digits(into: &mut [u8], mut number: i64) {
    for place in into.iter_mut().rev() {
        *place = b'0' + u8::try_from(number.rem_euclid(10)).unwrap_or(0);
        number /= 10;
    }
}

impl Time {
    /// The instant as RFC 3339 writes it in UTC, with as many digits of the second as it has.
    pub fn text(self) -> TimeText {
        let (year, month, day) = self.civil();
        let second = self.seconds().rem_euclid(SECONDS_PER_DAY);
        let mut bytes = *b"0000-00-00T00:00:00.000000Z";
        digits(&mut bytes[..4], year);
        digits(&mut bytes[5..7], i64::from(month));
        digits(&mut bytes[8..10], i64::from(day));
        digits(&mut bytes[11..13], second / 3600);
        digits(&mut bytes[14..16], second / 60 % 60);
        digits(&mut bytes[17..19], second % 60);
        let micros = self.0.rem_euclid(MICROS_PER_SECOND);
        let length = match micros {
            0 => 20,
            micros if micros % 1000 == 0 => {
                digits(&mut bytes[20..23], micros / 1000);
                24
            }
            micros => {
                digits(&mut bytes[20..26], micros);
                27
            }
        };
        bytes[length - 1] = b'Z';
        TimeText { bytes, length }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let check = |input: &str, output: &str| {
            assert_eq!(Time::parse(input).unwrap().to_string(), output, "{input}");
            assert_eq!(Time::parse(output).unwrap(), Time::parse(input).unwrap());
        };
        check("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z");
        check("2024-02-29T23:59:59.5Z", "2024-02-29T23:59:59.500Z");
        check("2026-08-20T17:00:00+07:00", "2026-08-20T10:00:00Z");
        check("2026-08-20T10:00:00.123456789Z", "2026-08-20T10:00:00.123456Z");
        check("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z");
        check("2026-08-20", "2026-08-20T00:00:00Z");
        check("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z");
    }

    #[test]
    fn refuses() {
        for bad in [
            "",
            "now",
            "2026-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0700",
            "0001-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00Zé",
            "2026-1-1",
        ] {
            assert!(Time::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in 0..146_097 {
            let (year, month, date) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, date), day);
        }
    }
}
