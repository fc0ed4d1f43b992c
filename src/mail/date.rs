//! RFC 5322 3.3 dates in UTC.

use super::token::{Kind, tokens};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A wall time taken apart, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year.
    pub year: u64,
    /// Month, 1 to 12.
    pub month: u64,
    /// Day of the month, from 1.
    pub day: u64,
    /// Hour.
    pub hour: u64,
    /// Minute.
    pub minute: u64,
    /// Second.
    pub second: u64,
    /// Milliseconds.
    pub milli: u64,
}

/// Takes milliseconds since 1970-01-01 UTC apart.
#[must_use]
pub fn civil(wall_ms: u64) -> Civil {
    let seconds = wall_ms / 1000;
    // Days since 0000-03-01, so that leap days end a year.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: of_year - (153 * shifted + 2) / 5 + 1,
        hour: seconds / 3600 % 24,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        milli: wall_ms % 1000,
    }
}

/// A date as it stands in a header: `Mon, 23 Nov 2026 19:20:21 +0000`.
#[must_use]
pub fn format(wall_ms: u64) -> String {
    let at = civil(wall_ms);
    let day = DAYS
        .get((wall_ms / 86_400_000 % 7) as usize)
        .copied()
        .unwrap_or("Mon");
    let month = MONTHS.get(at.month as usize - 1).copied().unwrap_or("Jan");
    let mut text = String::with_capacity(31);
    text.push_str(day);
    text.push_str(", ");
    two_digits(&mut text, at.day);
    text.push(' ');
    text.push_str(month);
    text.push(' ');
    two_digits(&mut text, at.year / 100);
    two_digits(&mut text, at.year % 100);
    for (before, value) in [(' ', at.hour), (':', at.minute), (':', at.second)] {
        text.push(before);
        two_digits(&mut text, value);
    }
    text.push_str(" +0000");
    text
}

/// A date as it stands in the line in front of a message among others: `Mon Nov 23 19:20:21 2026`.
#[must_use]
pub fn format_from_line(wall_ms: u64) -> String {
    // `Mon, 23 Nov 2026 19:20:21 +0000`, in the order of ctime(3).
    let words = format(wall_ms);
    let mut words = words.split([',', ' ']).filter(|word| !word.is_empty());
    let mut next = || words.next().unwrap_or_default();
    let (name, day, month, year, time) = (next(), next(), next(), next(), next());
    let day = day.trim_start_matches('0');
    format!("{name} {month} {day:>2} {time} {year}")
}

/// Each message has a date: formatting macros would take longer than the rest of its line.
fn two_digits(text: &mut String, value: u64) {
    text.push(char::from(b'0' + (value / 10 % 10) as u8));
    text.push(char::from(b'0' + (value % 10) as u8));
}

/// Whether a field says a date as RFC 5322 3.3 and 4.3 write it: day, month, year, hour and minute in
/// this order. Comments and more words may follow.
#[must_use]
pub fn is_date(value: &[u8]) -> bool {
    let words: Vec<&[u8]> = tokens(value)
        .filter(|token| token.kind == Kind::Atom || token.is(b':', value))
        .take(9)
        .map(|token| token.bytes(value))
        .collect();
    let number = |word: &[u8], digits: usize| {
        (1..=digits).contains(&word.len()) && word.iter().all(u8::is_ascii_digit)
    };
    let is_one_of = |word: &[u8], names: &[&str]| {
        let mut names = names.iter();
        names.any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    let starts_with_day = words.first().is_some_and(|word| is_one_of(word, &DAYS));
    match words.get(usize::from(starts_with_day)..) {
        Some([day, month, year, hour, b":", minute, ..]) => {
            number(day, 2)
                && is_one_of(month, &MONTHS)
                && year.len() >= 2
                && number(year, 4)
                && number(hour, 2)
                && number(minute, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        const CASES: &[(u64, &str)] = &[
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400_000, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_800_000, "Wed, 01 Mar 2000 00:00:00 +0000"),
            (1_795_461_621_000, "Mon, 23 Nov 2026 19:20:21 +0000"),
            (4_107_542_399_000, "Sun, 28 Feb 2100 23:59:59 +0000"),
            (4_107_542_400_000, "Mon, 01 Mar 2100 00:00:00 +0000"),
        ];
        for (wall_ms, expected) in CASES {
            assert_eq!(format(*wall_ms), *expected);
        }
    }

    #[test]
    fn dates_of_from_lines_are_those_of_ctime() {
        assert_eq!(
            format_from_line(1_795_461_621_000),
            "Mon Nov 23 19:20:21 2026"
        );
        assert_eq!(
            format_from_line(951_868_800_000),
            "Wed Mar  1 00:00:00 2000"
        );
    }

    #[test]
    fn dates_are_known() {
        for good in [
            " Wed, 14 Feb 2001 10:11:12 +0200",
            "14 feb 01 10:11 GMT (really)",
            "(x)Mon,\r\n\t1 Jan 1999\r\n\t00:00:00 -0000",
        ] {
            assert!(is_date(good.as_bytes()), "{good}");
        }
        for bad in [
            "yesterday at noon",
            "",
            "Wed, 14 Feb 2001",
            "Feb 14 2001 10:11",
            "2001-02-14T10:11:12Z",
            "Wed Feb 14 10:11:12 2001",
        ] {
            assert!(!is_date(bad.as_bytes()), "{bad}");
        }
        assert!(is_date(format(1_000_000_000_000).as_bytes()));
    }
}
