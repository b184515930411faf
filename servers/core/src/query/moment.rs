//! Points in time as people write them, and as answers show them.
//!
//! UTC alone. The clock is given, never read.

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// The moment that `text` names, in milliseconds since 1970: `15m`, `24h`, `7d` ago; a date; a date
/// and time in UTC; or a number of milliseconds since 1970.
#[must_use]
pub fn parse(now_ms: u64, text: &str) -> Option<u64> {
    if let Some(ago_ms) = duration_ms(text) {
        return Some(now_ms.saturating_sub(ago_ms));
    }
    if text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (date, time) = match text.split_once(['T', 't', '_']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let day = day_of(date)?;
    let time_ms = time.map_or(Some(0), time_ms)?;
    day.checked_mul(DAY_MS)?.checked_add(time_ms)
}

/// A length of time such as `90s`, in milliseconds.
fn duration_ms(text: &str) -> Option<u64> {
    let unit_ms = match text.bytes().last()? {
        b's' => 1_000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => DAY_MS,
        b'w' => 7 * DAY_MS,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    number.checked_mul(unit_ms)
}

fn day_of(date: &str) -> Option<u64> {
    let mut parts = date.split('-');
    let mut next = |length: usize| {
        let part = parts.next()?;
        let is_number = part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { part.parse::<u64>().ok() } else { None }
    };
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    if parts.next().is_some() || year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    (day <= days_of_month(year, month)).then(|| days_before(year, month) + day - 1)
}

fn time_ms(time: &str) -> Option<u64> {
    let time = time.strip_suffix(['Z', 'z']).unwrap_or(time);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':').map(|part| {
        let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { part.parse::<u64>().ok() } else { None }
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((hour * 60 + minute) * 60 + second) * 1_000 + thousandths)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to the first of `month`.
fn days_before(year: u64, month: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    years + (1..month).map(|month| days_of_month(year, month)).sum::<u64>()
}

/// `moment_ms`, milliseconds since 1970, as a date and time in UTC.
#[must_use]
pub fn show(moment_ms: u64) -> String {
    let (mut day, time_ms) = (moment_ms / DAY_MS, moment_ms % DAY_MS);
    // 146,097 days are 400 years, after which the calendar repeats.
    let mut year = 1970 + day / 146_097 * 400;
    day %= 146_097;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while day >= days_of_month(year, month) {
        day -= days_of_month(year, month);
        month += 1;
    }
    let (seconds, thousandths) = (time_ms / 1_000, time_ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{thousandths:03}Z",
        day + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let now = 1_000 * DAY_MS;
        assert_eq!(parse(now, "15m"), Some(now - 900_000));
        assert_eq!(parse(now, "1970-01-02"), Some(DAY_MS));
        assert_eq!(parse(now, "2000-03-01T00:00:01.5Z"), Some(951_868_801_500));
        assert_eq!(parse(now, "1700000000000"), Some(1_700_000_000_000));
        for text in ["", "h", "12", "1970-02-29", "1969-01-01", "2026-1-1", "2026-01-01T25:00"] {
            assert_eq!(parse(now, text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same_moment() {
        for moment in [0, 951_868_801_500, 1_700_000_000_123, 4_102_444_799_999, 13_569_465_600_000]
        {
            assert_eq!(parse(0, &show(moment)), Some(moment), "{}", show(moment));
        }
        assert_eq!(show(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
