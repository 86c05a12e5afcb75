//! The clock of `strftime_now`, which many templates write into the system message: a moment in UTC that the caller can
//! fix, so that a rendering can be repeated. Days are turned into dates as in Howard Hinnant's `civil_from_days`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;
/// The last second of the year 9999, where Python's dates end.
const LAST: u64 = 253_402_300_799;
/// Longest format of `strftime_now`, in bytes.
const MAX_FORMAT_BYTES: usize = 256;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A second in UTC, from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    seconds: u64,
}

impl Moment {
    /// The machine's clock.
    pub fn now() -> Self {
        Moment::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// Seconds since 1970-01-01; moments after 9999 become its last second.
    pub fn from_unix(seconds: u64) -> Self {
        Moment { seconds: seconds.min(LAST) }
    }

    /// The first second of a day written as `2026-11-28`; `None` where that is not a day from 1970 to 9999.
    pub fn parse_date(text: &str) -> Option<Self> {
        let [year, month, day] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
        let number = |part: &str, digits| {
            (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| part.parse::<u64>().ok())?
        };
        let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
        if year < 1970 || !(1..=12).contains(&month) {
            return None;
        }
        let moment =
            Moment::from_unix(days_before(year, month) * SECONDS_PER_DAY + day.checked_sub(1)? * SECONDS_PER_DAY);
        let civil = moment.civil();
        ((civil.year, civil.month, civil.day) == (year, month, day)).then_some(moment)
    }

    fn civil(self) -> Civil {
        let days = self.seconds / SECONDS_PER_DAY;
        let second = self.seconds % SECONDS_PER_DAY;
        // Days since 0000-03-01, in eras of 400 years.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Civil {
            year,
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            week_day: (days + 4) % 7,
            year_day: days - days_before(year, 1) + 1,
        }
    }

    /// Python's `datetime.strftime`, in the C locale and without a time zone.
    ///
    /// # Errors
    /// A message: the format is too long, or has a directive that is not known.
    pub(super) fn format(self, format: &str) -> Result<String, String> {
        if format.len() > MAX_FORMAT_BYTES {
            return Err(format!("strftime_now of a format longer than {MAX_FORMAT_BYTES} bytes"));
        }
        let civil = self.civil();
        let mut text = String::with_capacity(2 * format.len());
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let (padded, directive) = match characters.next() {
                Some('-') => (false, characters.next()),
                other => (true, other),
            };
            let known = directive.is_some_and(|directive| civil.write(&mut text, directive, padded));
            if !known {
                let directive = directive.map(String::from).unwrap_or_default();
                let sign = if padded { "" } else { "-" };
                return Err(format!(
                    "strftime_now does not know `%{sign}{directive}` of `{format}`; it knows a A b B c d D e f \
                     F h H I j m M n p R S t T u w x X y Y z Z and %"
                ));
            }
        }
        Ok(text)
    }
}

/// Days from 1970-01-01 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// A moment as people write it.
struct Civil {
    year: u64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// Sunday is 0.
    week_day: u64,
    /// From 1.
    year_day: u64,
}

impl Civil {
    /// Appends the text of `%directive`; false where it is not known.
    fn write(&self, text: &mut String, directive: char, padded: bool) -> bool {
        let day = DAYS[self.week_day as usize % 7];
        let month = MONTHS[(self.month as usize + 11) % 12];
        let hour = (self.hour + 11) % 12 + 1;
        let monday = if self.week_day == 0 { 7 } else { self.week_day };
        let mut number = |value: u64, width: usize, fill: char| {
            let written = if !padded {
                write!(text, "{value}")
            } else if fill == '0' {
                write!(text, "{value:0width$}")
            } else {
                write!(text, "{value:width$}")
            };
            written.is_ok()
        };
        match directive {
            'd' => return number(self.day, 2, '0'),
            'e' => return number(self.day, 2, ' '),
            'f' => return number(0, 6, '0'),
            'H' => return number(self.hour, 2, '0'),
            'I' => return number(hour, 2, '0'),
            'j' => return number(self.year_day, 3, '0'),
            'm' => return number(self.month, 2, '0'),
            'M' => return number(self.minute, 2, '0'),
            'S' => return number(self.second, 2, '0'),
            'u' => return number(monday, 1, '0'),
            'w' => return number(self.week_day, 1, '0'),
            'y' => return number(self.year % 100, 2, '0'),
            'Y' => return number(self.year, 4, '0'),
            _ => {}
        }
        let parts = match directive {
            'c' => "a b e T Y",
            'D' | 'x' => "m/d/y",
            'F' => "Y-m-d",
            'R' => "H:M",
            'T' | 'X' => "H:M:S",
            _ => "",
        };
        match directive {
            'a' => text.push_str(&day[..3]),
            'A' => text.push_str(day),
            'b' | 'h' => text.push_str(&month[..3]),
            'B' => text.push_str(month),
            'n' => text.push('\n'),
            'p' => text.push_str(if self.hour < 12 { "AM" } else { "PM" }),
            't' => text.push('\t'),
            'z' | 'Z' => {}
            '%' => text.push('%'),
            _ if !parts.is_empty() => {
                for part in parts.chars() {
                    if part.is_ascii_alphabetic() {
                        self.write(text, part, true);
                    } else {
                        text.push(part);
                    }
                }
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from Python's `datetime.strftime`.
    #[test]
    fn formats_as_python_does() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 12AM Thu Jan 001 4"),
            (951_782_399, "2000-02-28 23:59:59 11PM Mon Feb 059 1"),
            (951_868_800, "2000-03-01 00:00:00 12AM Wed Mar 061 3"),
            (1_104_537_600, "2005-01-01 00:00:00 12AM Sat Jan 001 6"),
            (1_230_768_000, "2009-01-01 00:00:00 12AM Thu Jan 001 4"),
            (1_262_303_999, "2009-12-31 23:59:59 11PM Thu Dec 365 4"),
            (1_582_934_400, "2020-02-29 00:00:00 12AM Sat Feb 060 6"),
            (1_609_459_199, "2020-12-31 23:59:59 11PM Thu Dec 366 4"),
            (1_641_038_400, "2022-01-01 12:00:00 12PM Sat Jan 001 6"),
            (1_735_689_600, "2025-01-01 00:00:00 12AM Wed Jan 001 3"),
            (4_102_876_800, "2100-01-06 00:00:00 12AM Wed Jan 006 3"),
            (253_402_300_799, "9999-12-31 23:59:59 11PM Fri Dec 365 5"),
        ] {
            let formatted = Moment::from_unix(seconds).format("%Y-%m-%d %T %I%p %a %b %j %w");
            assert_eq!(formatted.as_deref(), Ok(expected));
        }
        let moment = Moment::from_unix(1_770_354_127);
        for (format, expected) in [
            ("%d %b %Y", "06 Feb 2026"),
            ("%B %A %a %h %y", "February Friday Fri Feb 26"),
            ("%H:%M:%S %I %p %j", "05:02:07 05 AM 037"),
            ("%w %u %e %f %% %z%Z%n%t", "5 5  6 000000 % \n\t"),
            ("%c", "Fri Feb  6 05:02:07 2026"),
            ("%x %X %D %F %T %R", "02/06/26 05:02:07 02/06/26 2026-02-06 05:02:07 05:02"),
            ("%-d %-m %-H %-I %-j", "6 2 5 5 37"),
            ("no directives, é", "no directives, é"),
        ] {
            assert_eq!(moment.format(format).as_deref(), Ok(expected), "{format}");
        }
    }

    #[test]
    fn dates_are_read_and_refused() {
        for text in ["1970-01-01", "2024-02-29", "2026-11-28", "9999-12-31"] {
            assert_eq!(Moment::parse_date(text).map(|moment| moment.format("%F")), Some(Ok(text.to_owned())));
        }
        for text in ["2023-02-29", "1969-12-31", "2024-00-10", "2024-13-01", "2024-01-00", "24-01-01", "", "2024-1-01"]
        {
            assert_eq!(Moment::parse_date(text), None, "{text}");
        }
        assert_eq!(Moment::from_unix(u64::MAX).format("%F %T").as_deref(), Ok("9999-12-31 23:59:59"));
    }

    #[test]
    fn unknown_directives_are_named() {
        for (format, directive) in [("%d %Q", "`%Q`"), ("%", "`%`"), ("a%-", "`%-`"), ("%-é ", "`%-é`")] {
            let message = Moment::now().format(format).expect_err(format);
            assert!(message.contains(&format!("does not know {directive} of `{format}`")), "{message}");
        }
        assert!(Moment::now().format(&"%Y".repeat(200)).is_err());
    }
}
