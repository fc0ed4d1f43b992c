//! RFC 5322 3.3 dates in UTC.

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

/// Each message has a date: formatting macros would take longer than the rest of its line.
fn two_digits(text: &mut String, value: u64) {
    text.push(char::from(b'0' + (value / 10 % 10) as u8));
    text.push(char::from(b'0' + (value % 10) as u8));
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
}
