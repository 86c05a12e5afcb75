//! Sizes in bytes as people write them.

use std::fmt;
use std::str::FromStr;

/// A size in bytes, at least 1. Written as a number, or a number and a unit: `4096`, `64KiB`, `512MiB`, `4GiB`, `1TiB`
/// (powers of 1024), `64kB`, `512MB`, `4GB`, `1TB` (powers of 1000). Displayed in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A string that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No whole number with a known unit.
    #[error(
        "`{0}` is not a size; write whole bytes, or a whole number with KiB, MiB, GiB, TiB, kB, MB, GB or TB: 512MiB"
    )]
    Malformed(String),
    /// More than 64 bits hold.
    #[error("`{0}` is more bytes than 64 bits can count")]
    TooLarge(String),
    /// Nothing fits into nothing.
    #[error("a size of 0 bytes holds nothing; leave the option out for no limit")]
    Zero,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let malformed = || SizeError::Malformed(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let unit: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(malformed()),
        };
        if digits.is_empty() {
            return Err(malformed());
        }
        let count: Option<u64> = digits.parse().ok();
        match count.and_then(|count| count.checked_mul(unit)) {
            None => Err(SizeError::TooLarge(text.to_owned())),
            Some(0) => Err(SizeError::Zero),
            Some(bytes) => Ok(Size(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        let cases = [
            ("1", 1),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("512MiB", 512 << 20),
            ("4GiB", 4 << 30),
            ("4 GB", 4_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "4G", "1.5GiB", "-1", "4gib", "0x10", "4GiBs"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::Malformed(text.to_owned())), "{text}");
        }
        assert_eq!("0MiB".parse::<Size>(), Err(SizeError::Zero));
        for text in ["16777216TiB", "99999999999999999999"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge(text.to_owned())), "{text}");
        }
    }
}
