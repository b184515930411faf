//! Moments as TUF writes them: `2026-11-24T04:15:09Z`, in UTC, to the second.

/// Milliseconds since 1970 of such a text; nothing for any other form, or before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let form = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            other => byte == *other,
        });
    if !fits {
        return None;
    }
    let part = |at: std::ops::Range<usize>| text[at].parse::<u64>().ok();
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_since_1970(year, month, day);
    // A date that does not exist, such as the 31st of February, is read as another and found so.
    if civil_date(days) != (year, month, day) {
        return None;
    }
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000)
}

/// Such a text of a moment in milliseconds since 1970; what is below the second is cut.
#[must_use]
pub fn format(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// By the 400-year cycle of the Gregorian calendar, counted from a first of March, so that the leap
/// day is a year's last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (cycle, year_of_cycle) = (year / 400, year % 400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day.saturating_sub(1);
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    (cycle * 146_097 + day_of_cycle).saturating_sub(719_468)
}

fn civil_date(days: u64) -> (u64, u64, u64) {
    let from_march_0000 = days + 719_468;
    let (cycle, day_of_cycle) = (from_march_0000 / 146_097, from_march_0000 % 146_097);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524
        - day_of_cycle / 146_096)
        / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{format, parse};

    #[test]
    fn moments_are_read_as_written() {
        for (text, unix_ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2026-11-24T04:15:09Z", 1_795_493_709_000),
            ("2100-02-28T23:59:59Z", 4_107_542_399_000),
        ] {
            assert_eq!(parse(text), Some(unix_ms), "{text}");
            assert_eq!(format(unix_ms), text);
        }
        for days in 0..80_000_u64 {
            let unix_ms = days * 86_400_000;
            assert_eq!(parse(&format(unix_ms)), Some(unix_ms));
        }
    }

    #[test]
    fn other_forms_and_days_that_do_not_exist_are_refused() {
        for text in [
            "",
            "2026-11-24T04:15:09",
            "2026-11-24T04:15:09.5Z",
            "2026-11-24T04:15:09+00:00",
            "2026-02-29T00:00:00Z",
            "2026-02-31T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-24t04:15:09z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
