//! Wall-clock time as the Lambda API and SigV4 write it. Pure but for [`now_ms`].

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day of a day since 1970 (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The day since 1970 of a date; `None` before 1970 or for a date that is none.
fn day_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let shifted_year = year - u64::from(month <= 2);
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    let days = (era * 146_097 + of_era).checked_sub(719_468)?;
    (civil(days) == (year, month, day)).then_some(days)
}

/// `2026-11-21T13:05:48.000+0000`, as in `LastModified`; with `Z` as in records to
/// destinations.
fn written(ms: u64, zone: &str) -> String {
    let (year, month, day) = civil(ms / DAY_MS);
    let rest = ms % DAY_MS;
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, millis) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}{zone}")
}

/// As in `LastModified`.
#[must_use]
pub fn last_modified(ms: u64) -> String {
    written(ms, "+0000")
}

/// As in records to destinations.
#[must_use]
pub fn timestamp(ms: u64) -> String {
    written(ms, "Z")
}

/// Seconds since 1970 of `20261121T130548Z`, as in `X-Amz-Date`.
#[must_use]
pub fn parse_amz_date(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = bytes.get(range)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    };
    let days = day_of(number(0..4)?, number(4..6)?, number(6..8)?)?;
    let (hours, minutes, seconds) = (number(9..11)?, number(11..13)?, number(13..15)?);
    (hours < 24 && minutes < 60 && seconds < 60)
        .then(|| days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (text, seconds) in [
            ("19700101T000000Z", 0),
            ("20000229T235959Z", 951_868_799),
            ("20261121T130548Z", 1_795_266_348),
            ("99991231T235959Z", 253_402_300_799),
        ] {
            assert_eq!(parse_amz_date(text), Some(seconds), "{text}");
        }
        assert_eq!(last_modified(1_795_266_348_007), "2026-11-21T13:05:48.007+0000");
        assert_eq!(timestamp(951_868_799_000), "2000-02-29T23:59:59.000Z");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "20261121T130548",
            "20261121 130548Z",
            "20260229T000000Z",
            "20261321T000000Z",
            "20261121T240000Z",
            "20261121T006000Z",
            "1969123xT000000Z",
            "19691231T235959Z",
            "+0261121T130548Z",
            "20261100T000000Z",
            "ä0261121T13054Z",
        ] {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
    }

    #[test]
    fn days_round_trip() {
        for days in (0..200_000).step_by(7) {
            let (year, month, day) = civil(days);
            assert_eq!(day_of(year, month, day), Some(days));
        }
    }
}
