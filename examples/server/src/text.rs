//! The bytes of tokens as text that can be handed out: whole characters only, and nothing that may be the beginning of a
//! stop sequence. All of it together is the text of all bytes, what is not UTF-8 replaced as `String::from_utf8_lossy` does.

/// Bytes that are not handed out yet.
pub struct Text {
    stops: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Text {
    /// A text that ends before the first of these.
    pub fn new(stops: &[String]) -> Self {
        Text { stops: stops.iter().map(|stop| stop.clone().into_bytes()).collect(), held: Vec::new() }
    }

    /// Adds bytes; returns the text that they complete, and whether a stop sequence followed it.
    pub fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        self.held.extend_from_slice(bytes);
        let found = |stop: &Vec<u8>| self.held.windows(stop.len()).position(|window| window == stop);
        if let Some(end) = self.stops.iter().filter_map(found).min() {
            self.held.truncate(end);
            return (self.end(), true);
        }
        let begins = |stop: &Vec<u8>| {
            let most = (stop.len() - 1).min(self.held.len());
            (1..=most).rev().find(|&length| self.held.ends_with(&stop[..length])).unwrap_or(0)
        };
        let kept = self.stops.iter().map(begins).max().unwrap_or(0);
        let mut text = String::new();
        let mut rest = &self.held[..self.held.len() - kept];
        loop {
            let (valid, wrong) = match std::str::from_utf8(rest) {
                Ok(all) => (all, None),
                Err(error) => {
                    (std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(), Some(error.error_len()))
                }
            };
            text += valid;
            rest = &rest[valid.len()..];
            match wrong {
                Some(Some(length)) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[length..];
                }
                // A character whose end is to come, or nothing.
                Some(None) | None => break,
            }
        }
        let left = rest.len() + kept;
        self.held.drain(..self.held.len() - left);
        (text, false)
    }

    /// The rest, at the end of the text.
    pub fn end(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut text = Text::new(&stops);
        let mut parts = Vec::new();
        for piece in pieces {
            let (part, stopped) = text.push(piece);
            parts.push(part);
            if stopped {
                return (parts, true);
            }
        }
        parts.push(text.end());
        (parts, false)
    }

    #[test]
    fn characters_are_handed_out_whole() {
        let euro = "€".as_bytes();
        assert_eq!(all(&[], &[&euro[..1], &euro[1..2], &euro[2..], b"x"]).0, ["", "", "€", "x", ""]);
        assert_eq!(all(&[], &[b"a\xe2\x82", b"b"]).0, ["a", "\u{fffd}b", ""]);
        assert_eq!(all(&[], &[b"a\xff\xfeb\xe2"]).0, ["a\u{fffd}\u{fffd}b", "\u{fffd}"]);
    }

    #[test]
    fn pieces_together_are_the_lossy_text_of_the_whole() {
        let bytes: Vec<u8> = (0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for size in 1..7 {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let (parts, _) = all(&["never in there, by its length"], &pieces);
            assert_eq!(parts.concat(), String::from_utf8_lossy(&bytes), "pieces of {size}");
        }
    }

    #[test]
    fn stops_are_found_across_pieces_and_cut_off() {
        assert_eq!(all(&["\n\n"], &[b"one\n", b"\ntwo"]), (vec!["one".into(), String::new()], true));
        assert_eq!(all(&["\n\n"], &[b"one\n", b"two"]), (vec!["one".into(), "\ntwo".into(), String::new()], false));
        assert_eq!(all(&["END", "E"], &[b"an END"]), (vec!["an ".into()], true));
        assert_eq!(all(&["abc"], &[b"ab", b"abc"]), (vec![String::new(), "ab".into()], true));
        assert_eq!(all(&["abc"], &[b"xab"]), (vec!["x".into(), "ab".into()], false));
    }
}
