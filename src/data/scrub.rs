//! Personal numbers and addresses in texts, replaced by what they are: `<EMAIL>`, `<PHONE>`, `<CARD>`, `<IBAN>`, `<IP>`. What
//! has check digits is replaced only where they agree. It is a help and no promise: a name stays a name.
//!
//! ```text
//! card   13 to 19 digits, in one row or in groups of 4 to 6 and a last of 3 to 6, with Luhn's sum: every second digit from the
//!        right doubled, its digits added; all ≡ 0 mod 10, and not all of them zero
//! IBAN   two letters, two digits, 11 to 30 letters or digits; with the first four moved to the end, A = 10 … Z = 35, ≡ 1 mod 97
//! IP     four numbers up to 255, or eight groups of hexadecimal digits, with a digit among them, of which one run may be left out
//! phone  a number with + or 00 and 8 to 15 digits; or 10 to 12 digits in groups, of which the first may be in brackets, without
//!        a date among them, without a decimal point, and not years alone
//! email  a name at a domain whose last part has a letter
//! ```
//!
//! What follows after a space may look like more of the same: of cards, IBANs and international numbers the longest part that
//! is one and ends with a word is replaced.

use regex::Regex;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::LazyLock;

/// A kind of what is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Addresses of electronic mail.
    Email,
    /// International bank account numbers.
    Iban,
    /// Numbers of payment cards.
    Card,
    /// Addresses of computers.
    Ip,
    /// Telephone numbers.
    Phone,
}

impl Kind {
    /// Every kind, in the order in which they are looked for: a card number is not taken for a telephone number.
    pub const ALL: [Kind; 5] = [Kind::Email, Kind::Iban, Kind::Card, Kind::Ip, Kind::Phone];

    /// What stands in its place.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Email => "<EMAIL>",
            Kind::Iban => "<IBAN>",
            Kind::Card => "<CARD>",
            Kind::Ip => "<IP>",
            Kind::Phone => "<PHONE>",
        }
    }

    /// As options and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Email => "email",
            Kind::Iban => "iban",
            Kind::Card => "card",
            Kind::Ip => "ip",
            Kind::Phone => "phone",
        }
    }

    fn pattern(self) -> &'static str {
        match self {
            Kind::Email => {
                r"[0-9A-Za-z._%+-]+@[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?(?:\.[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?)+"
            }
            Kind::Iban => r"[A-Za-z]{2}[0-9]{2}(?: ?[0-9A-Za-z]){11,30}",
            Kind::Card => r"[0-9](?:[ -]?[0-9]){12,18}",
            Kind::Ip => r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:]",
            Kind::Phone => {
                r"(?:\+|00)[1-9](?:[ ./-]?(?:\([0-9]{1,4}\)|[0-9])){7,14}|(?:1[ ./-]?)?\(?[0-9]{2,5}(?:\)[ ./-]?|[ ./-])[0-9]{2,8}(?:[ ./-][0-9]{2,8}){0,4}"
            }
        }
    }

    /// Length of the part of a match that is one; `None` where the rest of its rules say otherwise. `after` is the character
    /// after the match.
    fn checked(self, found: &str, after: Option<char>) -> Option<usize> {
        match self {
            Kind::Email => {
                let last = found.rsplit('.').next().unwrap_or_default();
                last.contains(|character: char| character.is_ascii_alphabetic()).then_some(found.len())
            }
            Kind::Ip => (digits(found) > 0 && found.parse::<IpAddr>().is_ok()).then_some(found.len()),
            Kind::Card => longest(found, after, |part| has_groups_of_cards(part) && luhn(part)),
            Kind::Iban => longest(found, after, iban),
            Kind::Phone if is_international(found) => longest(found, after, |part| (8..=15).contains(&digits(part))),
            Kind::Phone => {
                let is_one = (10..=12).contains(&digits(found))
                    && !has_date(found)
                    && !has_decimal(found)
                    && !are_short_dates(found)
                    && !groups(found).all(is_year);
                is_one.then_some(found.len())
            }
        }
    }
}

/// One pattern a kind; they are part of the program.
static PATTERNS: LazyLock<Vec<(Kind, Option<Regex>)>> =
    LazyLock::new(|| Kind::ALL.map(|kind| (kind, Regex::new(kind.pattern()).ok())).into());

/// A text with what is replaced in it, and how often each of `kinds` was, in their order.
pub fn scrubbed(text: &str, kinds: &[Kind]) -> (String, Vec<u64>) {
    let (mut text, mut counts) = (text.to_owned(), vec![0; kinds.len()]);
    for (kind, pattern) in PATTERNS.iter() {
        let (Some(number), Some(pattern)) = (kinds.iter().position(|other| other == kind), pattern) else { continue };
        let places = places(&text, *kind, pattern);
        counts[number] = places.len() as u64;
        for place in places.into_iter().rev() {
            text.replace_range(place, kind.placeholder());
        }
    }
    (text, counts)
}

/// Where a kind stands in a text, as words of their own.
fn places(text: &str, kind: Kind, pattern: &Regex) -> Vec<Range<usize>> {
    let (mut places, mut from) = (Vec::new(), 0);
    while let Some(found) = pattern.find_at(text, from) {
        let continues = kind == Kind::Ip && goes_on(text, &found.range());
        let apart = !continues && !text[..found.start()].ends_with(joins);
        let after = text[found.end()..].chars().next();
        match kind.checked(found.as_str(), after).filter(|_| apart) {
            Some(length) if !text[found.start() + length..].starts_with(joins) => {
                places.push(found.start()..found.start() + length);
                from = found.start() + length;
            }
            // A part of a longer row of digits is no telephone number.
            _ if kind == Kind::Phone => from = found.end(),
            // What begins later in the match may be one.
            _ => {
                let next = found.as_str().char_indices().skip_while(|(_, c)| joins(*c)).map(|(at, _)| at).next();
                from = found.start() + next.unwrap_or(found.len()).max(1);
                while !text.is_char_boundary(from) {
                    from += 1;
                }
            }
        }
    }
    places
}

/// Whether a row of numbers goes on before or after a place: then it is a version or something else. Behind a colon there may be
/// a port.
fn goes_on(text: &str, place: &Range<usize>) -> bool {
    let (before, after) = (&text[..place.start], &text[place.end..]);
    let number = |character: char| character.is_ascii_digit();
    before.strip_suffix('.').is_some_and(|before| before.ends_with(number))
        || after.strip_prefix('.').is_some_and(|after| after.starts_with(number))
        || text[place.clone()].contains(':') && (before.ends_with(':') || after.starts_with(':'))
}

/// Whether a character belongs to the word beside it.
fn joins(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Length of the longest beginning of a match that is one and ends with a word, so that a word after it is not part of it.
fn longest(found: &str, after: Option<char>, is_one: impl Fn(&str) -> bool) -> Option<usize> {
    let ends = found.char_indices().rev().filter(|(_, last)| joins(*last) || *last == ')');
    let mut ends = ends.map(|(at, last)| at + last.len_utf8());
    ends.find(|&end| !found[end..].chars().next().or(after).is_some_and(joins) && is_one(&found[..end]))
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn luhn(text: &str) -> bool {
    let digits: Vec<u32> = text.bytes().filter(u8::is_ascii_digit).map(|digit| u32::from(digit - b'0')).collect();
    let term = |(place, digit): (usize, &u32)| match place % 2 {
        0 => *digit,
        _ => 2 * digit / 10 + 2 * digit % 10,
    };
    let sum: u32 = digits.iter().rev().enumerate().map(term).sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10) && digits.iter().any(|&digit| digit != 0)
}

/// Whether the digits of an IBAN agree.
fn iban(text: &str) -> bool {
    let compact: Vec<u8> = text.to_ascii_uppercase().bytes().filter(|&byte| byte != b' ').collect();
    if !(15..=34).contains(&compact.len()) {
        return false;
    }
    let remainder = compact[4..].iter().chain(&compact[..4]).fold(0u32, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    remainder == 1
}

/// Whether a number begins with the code of a country.
fn is_international(text: &str) -> bool {
    text.starts_with('+') || matches!(text.as_bytes(), [b'0', b'0', b'1'..=b'9', ..])
}

/// Whether there are a year, a month and a day among the groups, or the other way round: hours may stand on either side.
fn has_date(text: &str) -> bool {
    let groups: Vec<&str> = groups(text).collect();
    let year = is_year;
    let small = |group: &str| group.parse::<u8>().ok().filter(|_| group.len() <= 2).unwrap_or(0);
    // A month and a day, in either order.
    let days = |one: &str, other: &str| {
        let (one, other) = (small(one), small(other));
        (1..=12).contains(&one.min(other)) && one.max(other) <= 31
    };
    groups.windows(3).any(|three| match three {
        [a, b, c] => (year(a) && days(b, c)) || (days(a, b) && year(c)),
        _ => false,
    })
}

/// What stands between separators.
fn groups(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '.', '/', '-'])
}

fn is_year(group: &str) -> bool {
    group.len() == 4 && (group.starts_with("19") || group.starts_with("20"))
}

/// Whether there are dates with years of two digits alone, one after the other.
fn are_short_dates(text: &str) -> bool {
    text.split(' ').all(|part| {
        let groups: Vec<&str> = groups(part).collect();
        groups.len() == 3 && groups.iter().all(|group| group.len() <= 2)
    })
}

/// Whether digits stand as cards have them: in one row, or in groups of which none is as short as those of dates.
fn has_groups_of_cards(text: &str) -> bool {
    let lengths: Vec<usize> = groups(text).map(str::len).collect();
    let [first @ .., last] = &lengths[..] else { return false };
    first.is_empty() || first.iter().all(|length| (4..=6).contains(length)) && (3..=6).contains(last)
}

/// Whether two groups are joined by one point, as the parts of a number are. Behind an area code in brackets they are not.
fn has_decimal(text: &str) -> bool {
    !text.contains(')') && text.split([' ', '/', '-']).any(|part| part.matches('.').count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> String {
        scrubbed(text, &Kind::ALL).0
    }

    #[test]
    fn what_is_one_is_replaced() {
        let cases = [
            ("write to jane.doe+x@mail.example.org.", "write to <EMAIL>."),
            ("pay 4111 1111 1111 1111 now", "pay <CARD> now"),
            ("5500-0000-0000-0004", "<CARD>"),
            ("DE89 3704 0044 0532 0130 00 is mine", "<IBAN> is mine"),
            ("to GB82WEST12345698765432, thanks", "to <IBAN>, thanks"),
            ("at 192.168.0.1:80 and 2001:db8::8a2e:370:7334", "at <IP>:80 and <IP>"),
            ("call +49 30 901820 or (212) 555-0142", "call <PHONE> or <PHONE>"),
            ("0041 44 668 18 00", "<PHONE>"),
            ("call (212)555-0142, (212) 555.0142 or 212.555.0142", "call <PHONE>, <PHONE> or <PHONE>"),
        ];
        for (text, expected) in cases {
            assert_eq!(all(text), expected);
        }
        let (_, counts) = scrubbed("a@b.c d@e.f 10.0.0.1", &[Kind::Ip, Kind::Email]);
        assert_eq!(counts, [1, 2]);
        assert_eq!(scrubbed("a@b.cd 10.0.0.1", &[Kind::Ip]).0, "a@b.cd <IP>");
    }

    #[test]
    fn dates_versions_and_names_stay() {
        for text in [
            "2023-02-12 2023-02-18",
            "2023-01-22 2023-01-28",
            "08-01-2023 14-01-2023",
            "01-01-23 07-01-23",
            "2019 2020 2021",
            "1.2.3.4.5",
            "1.2.3.4.5.6",
            "a::b and face::feed, C::D",
            "1::2::3",
            "numpy@2.0",
        ] {
            assert_eq!(all(text), text);
        }
        for month in 1..=12 {
            for day in 1..=28 {
                for text in [
                    format!("2023-{month:02}-{day:02} 2024-{month:02}-{day:02}"),
                    format!("{day:02}-{month:02}-2023 {day:02}-{month:02}-2024"),
                    format!("{day:02}.{month:02}.2023 {day:02}.{month:02}.2024"),
                    format!("{day:02}-{month:02}-23 {day:02}-{month:02}-24"),
                ] {
                    assert_eq!(all(&text), text);
                }
            }
        }
        let cases = [
            ("06 12 34 56 78 or 06.12.34.56.78", "<PHONE> or <PHONE>"),
            ("1-800-555-0199, 1 (800) 555 0199", "<PHONE>, <PHONE>"),
            ("de89370400440532013000", "<IBAN>"),
            ("3782 822463 10005 and 30569309025904", "<CARD> and <CARD>"),
            ("fe80::1 and ::1 at 10.0.0.1.", "<IP> and <IP> at <IP>."),
        ];
        for (text, expected) in cases {
            assert_eq!(all(text), expected);
        }
    }

    #[test]
    fn digits_that_follow_are_not_part_of_it() {
        let cases = [
            ("4111 1111 1111 1111 12/25", "<CARD> 12/25"),
            ("4111 1111 1111 1111 123", "<CARD> 123"),
            ("4111-1111-1111-1111 12 2027", "<CARD> 12 2027"),
            ("5500 0000 0000 0004 7 times", "<CARD> 7 times"),
            ("7 4111 1111 1111 1111", "7 <CARD>"),
            ("DE89 3704 0044 0532 0130 00 2019", "<IBAN> 2019"),
            ("+4930901820 2019-04-02", "<PHONE>-04-02"),
        ];
        for (text, expected) in cases {
            assert_eq!(all(text), expected);
        }
        // Whatever they are, also where more of them agree by chance; but never a part of one row of digits.
        for following in 0..1000 {
            let scrubbed = all(&format!("4111 1111 1111 1111 {following:03}"));
            assert!(scrubbed == "<CARD>" || scrubbed == format!("<CARD> {following:03}"), "{scrubbed}");
            let joined = format!("4111111111111111{following:04}");
            assert_eq!(all(&joined), joined);
        }
    }

    #[test]
    fn what_is_none_stays() {
        for text in [
            "4111 1111 1111 1112",
            "DE89 3704 0044 0532 0130 03",
            "999.1.1.1",
            "in 2019-04-02 12:30",
            "at 12:30 2019-04-02",
            "12:30 02.04.2019 and 48.85837009",
            "1234.567890",
            "1234.567890 12",
            "12.34 56.78 90.12",
            "1939-1945",
            "chapter 12.4",
            "a @ b",
            "std::fmt::Display",
            "0000 0000 0000 0000",
            "x4111111111111111",
        ] {
            assert_eq!(all(text), text);
        }
    }

    #[test]
    fn any_text_is_cut_at_characters() {
        for text in ["é+4930901820é", "日本::日本", "::::", "1.1.1.1.1.1.1.1", "++++123", "00000000000000000000000"]
        {
            all(text);
        }
    }
}
