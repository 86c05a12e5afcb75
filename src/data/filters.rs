//! The rules of Gopher (Rae et al. 2021, table A1) and C4 (Raffel et al. 2020) for web text: what is too short, too long,
//! made of symbols or lists, or repeats itself, is left out. Words are what stands between spaces. A text is left out by the
//! first rule that it breaks.
//!
//! ```text
//! repeated lines        lines that occurred before / lines;  their characters / characters
//! most frequent n-gram  characters of its occurrences / characters of all words,  n = 2, 3, 4
//! repeated n-grams      characters of words within an n-gram that occurs more than once / characters of all words, n = 5 … 10
//! ```

use super::minhash::hash;
use serde::Serialize;
use slm_runtime::sample::random_u64;
use std::collections::HashMap;

/// The limits; a text within all of them stays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Fewest words.
    pub min_words: f64,
    /// Most words.
    pub max_words: f64,
    /// Shortest mean word, in characters.
    pub min_mean_word: f64,
    /// Longest mean word.
    pub max_mean_word: f64,
    /// Most `#` and ellipses per word.
    pub max_symbols: f64,
    /// Largest share of lines that begin with a bullet.
    pub max_bullets: f64,
    /// Largest share of lines that end with an ellipsis.
    pub max_ellipses: f64,
    /// Smallest share of words with a letter.
    pub min_alphabetic: f64,
    /// Fewest different stop words.
    pub min_stop_words: f64,
    /// Largest share of characters that are control characters or stand for what could not be read.
    pub max_unreadable: f64,
    /// Largest share of lines that occurred before.
    pub max_duplicate_lines: f64,
    /// Largest share of their characters.
    pub max_duplicate_line_characters: f64,
    /// Largest share of characters in the most frequent two words in a row; 0.02 less for each further word, up to four.
    pub max_top_gram: f64,
    /// Largest share of characters in repeated five words in a row; 0.01 less for each further word, up to ten.
    pub max_repeated_grams: f64,
    /// Texts that are in none that stays, in small letters.
    pub blocked: Vec<String>,
}

/// The stop words of Gopher.
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

impl Limits {
    /// Those of Gopher and C4.
    pub fn gopher() -> Self {
        Limits {
            min_words: 50.0,
            max_words: 100_000.0,
            min_mean_word: 3.0,
            max_mean_word: 10.0,
            max_symbols: 0.1,
            max_bullets: 0.9,
            max_ellipses: 0.3,
            min_alphabetic: 0.8,
            min_stop_words: 2.0,
            max_unreadable: 0.01,
            max_duplicate_lines: 0.3,
            max_duplicate_line_characters: 0.2,
            max_top_gram: 0.2,
            max_repeated_grams: 0.15,
            blocked: vec!["lorem ipsum".to_owned()],
        }
    }

    /// None: every text stays.
    pub fn none() -> Self {
        Limits {
            min_words: 0.0,
            max_words: f64::INFINITY,
            min_mean_word: 0.0,
            max_mean_word: f64::INFINITY,
            max_symbols: f64::INFINITY,
            max_bullets: 1.0,
            max_ellipses: 1.0,
            min_alphabetic: 0.0,
            min_stop_words: 0.0,
            max_unreadable: 1.0,
            max_duplicate_lines: 1.0,
            max_duplicate_line_characters: 1.0,
            max_top_gram: 1.1,
            max_repeated_grams: 1.1,
            blocked: Vec::new(),
        }
    }

    /// The first rule that a text breaks, by the name of its option.
    pub fn broken_by(&self, text: &str) -> Option<&'static str> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let count = words.len() as f64;
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let lengths: Vec<usize> = words.iter().map(|word| word.chars().count()).collect();
        let characters: usize = lengths.iter().sum();
        let mean = share(characters, words.len());
        let symbols = text.matches('#').count() + text.matches('…').count() + text.matches("...").count();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let bullets = lines.iter().filter(|line| line.starts_with(['•', '‣', '▪', '-', '*', '●'])).count();
        let ellipses = lines.iter().filter(|line| line.ends_with('…') || line.ends_with("...")).count();
        let alphabetic = words.iter().filter(|word| word.chars().any(char::is_alphabetic)).count();
        let unreadable =
            |character: &char| character.is_control() && !character.is_whitespace() || *character == '\u{FFFD}';
        let broken = [
            (count < self.min_words, "min-words"),
            (count > self.max_words, "max-words"),
            (mean < self.min_mean_word, "min-mean-word"),
            (mean > self.max_mean_word, "max-mean-word"),
            (share(symbols, words.len()) > self.max_symbols, "max-symbols"),
            (share(bullets, lines.len()) > self.max_bullets, "max-bullets"),
            (share(ellipses, lines.len()) > self.max_ellipses, "max-ellipses"),
            (share(alphabetic, words.len()) < self.min_alphabetic, "min-alphabetic"),
        ];
        if let Some((_, rule)) = broken.into_iter().find(|(broken, _)| *broken) {
            return Some(rule);
        }
        if self.min_stop_words > 0.0 && (stop_words(&words) as f64) < self.min_stop_words {
            return Some("min-stop-words");
        }
        if share(text.chars().filter(unreadable).count(), text.chars().count()) > self.max_unreadable {
            return Some("max-unreadable");
        }
        let small = if self.blocked.is_empty() { String::new() } else { text.to_lowercase() };
        if self.blocked.iter().any(|blocked| small.contains(blocked.as_str())) {
            return Some("blocked");
        }
        self.repeats(&words, &lengths, &lines)
    }

    fn repeats(&self, words: &[&str], lengths: &[usize], lines: &[&str]) -> Option<&'static str> {
        let mut seen = HashMap::new();
        let (mut again, mut again_characters, mut line_characters) = (0usize, 0usize, 0usize);
        for line in lines {
            let length = line.chars().count();
            line_characters += length;
            if seen.insert(hash(line.as_bytes()), ()).is_some() {
                again += 1;
                again_characters += length;
            }
        }
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        if share(again, lines.len()) > self.max_duplicate_lines {
            return Some("max-duplicate-lines");
        }
        if share(again_characters, line_characters) > self.max_duplicate_line_characters {
            return Some("max-duplicate-line-characters");
        }
        let hashes: Vec<u64> = words.iter().map(|word| hash(word.as_bytes())).collect();
        if self.max_top_gram <= 1.0 {
            let over = |n: usize| top_gram(&hashes, lengths, n) > self.max_top_gram - 0.02 * (n - 2) as f64;
            if (2..=4).any(over) {
                return Some("max-top-gram");
            }
        }
        if self.max_repeated_grams <= 1.0 {
            let over = |n: usize| repeated_grams(&hashes, lengths, n) > self.max_repeated_grams - 0.01 * (n - 5) as f64;
            if (5..=10).any(over) {
                return Some("max-repeated-grams");
            }
        }
        None
    }
}

fn stop_words(words: &[&str]) -> usize {
    let bare = |word: &str| word.trim_matches(|character: char| !character.is_alphanumeric()).to_lowercase();
    let bare: Vec<String> = words.iter().map(|word| bare(word)).collect();
    STOP_WORDS.iter().filter(|stop| bare.iter().any(|word| word == *stop)).count()
}

/// Hashes of n words in a row.
fn grams(hashes: &[u64], n: usize) -> impl Iterator<Item = u64> {
    hashes.windows(n).map(|words| words.iter().fold(0, |hash, word| random_u64(hash ^ word, 3)))
}

/// The share of the characters of all words that the most frequent n words in a row have.
fn top_gram(hashes: &[u64], lengths: &[usize], n: usize) -> f64 {
    // (occurrences, characters of one)
    let mut counts: HashMap<u64, (usize, usize)> = HashMap::new();
    let mut top = 0;
    for (place, gram) in grams(hashes, n).enumerate() {
        let entry = counts.entry(gram).or_insert_with(|| (0, lengths[place..place + n].iter().sum()));
        entry.0 += 1;
        if entry.0 > 1 {
            top = top.max(entry.0 * entry.1);
        }
    }
    top as f64 / lengths.iter().sum::<usize>().max(1) as f64
}

/// The share of the characters of words within n words in a row that occurred before.
fn repeated_grams(hashes: &[u64], lengths: &[usize], n: usize) -> f64 {
    let mut seen = HashMap::new();
    let (mut repeated, mut counted) = (0, 0);
    for (place, gram) in grams(hashes, n).enumerate() {
        if seen.insert(gram, ()).is_some() {
            repeated += lengths[place.max(counted)..place + n].iter().sum::<usize>();
            counted = place + n;
        }
    }
    repeated as f64 / lengths.iter().sum::<usize>().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROSE: &str = "The old man of the hill went down to the river with his dog, and he saw that the water was high. \
        He said to his wife that they must have a boat before night, or be cut off from the village and the mill. So the \
        two of them worked until dark, and when the moon rose they had built something that could float.";

    #[test]
    fn every_rule_leaves_out_what_it_is_for() {
        assert_eq!(Limits::gopher().broken_by(PROSE), None);
        assert_eq!(Limits::none().broken_by(""), None);
        let long = "pneumonoultramicroscopic the of and ".repeat(20);
        let cases = [
            ("Too short.".to_owned(), "min-words"),
            (PROSE.repeat(2000), "max-words"),
            ("a b of to the I ".repeat(20), "min-mean-word"),
            ("pneumonoultramicroscopic thermodynamically of ".repeat(20), "max-mean-word"),
            (PROSE.replace(' ', " #"), "max-symbols"),
            (PROSE.split(' ').map(|word| format!("- {word}word\n")).collect(), "max-bullets"),
            (PROSE.replace(". ", "...\n").replace(", ", "...\n"), "max-ellipses"),
            (PROSE.split(' ').map(|word| format!("{word} 12345 ")).collect(), "min-alphabetic"),
            (
                PROSE
                    .replace("the", "die")
                    .replace("The", "Die")
                    .replace(" to", " zu")
                    .replace(" of", " von")
                    .replace("and", "und")
                    .replace("that", "dass")
                    .replace("have", "haben")
                    .replace(" be ", " sein ")
                    .replace("with", "mit"),
                "min-stop-words",
            ),
            (PROSE.replace("man", "m\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"), "max-unreadable"),
            (PROSE.replace("old man", "Lorem Ipsum"), "blocked"),
            (format!("{PROSE}\n{PROSE}\n{PROSE}"), "max-duplicate-lines"),
            (format!("{PROSE}\nThe end\n{PROSE}\nAnd so\non to\nthe next\n"), "max-duplicate-line-characters"),
            (format!("{PROSE} {}", "extraordinary circumstances ".repeat(4)), "max-top-gram"),
            (format!("{PROSE} And again: {PROSE}"), "max-repeated-grams"),
        ];
        for (text, rule) in &cases {
            assert_eq!(Limits::gopher().broken_by(text), Some(*rule), "{text:.200}");
        }
        assert_eq!(Limits::none().broken_by(&long), None);
        assert!(cases.iter().all(|(text, _)| Limits::none().broken_by(text).is_none()));
    }

    #[test]
    fn shares_of_n_grams_are_those_worked_out_by_hand() {
        let words = ["aa", "b", "aa", "b", "ccc", "aa", "b"];
        let hashes: Vec<u64> = words.iter().map(|word| hash(word.as_bytes())).collect();
        let lengths: Vec<usize> = words.iter().map(|word| word.len()).collect();
        // "aa b" three times with three characters each, of twelve.
        assert!((top_gram(&hashes, &lengths, 2) - 9.0 / 12.0).abs() < 1e-12);
        // The second and third "aa b".
        assert!((repeated_grams(&hashes, &lengths, 2) - 6.0 / 12.0).abs() < 1e-12);
        assert!(repeated_grams(&hashes, &lengths, 3).abs() < 1e-12);
        assert!(top_gram(&[], &[], 2).abs() < 1e-12);
    }
}
