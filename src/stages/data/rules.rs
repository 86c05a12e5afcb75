//! The limits of `slmc data` as options.

use crate::data::filters::Limits;
use crate::stages::StageError;
use crate::stages::stage::Faults;

const RULES: &str = "Rules";

/// The set of rules that the others change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum RuleSet {
    /// Gopher's and C4's limits for web text
    #[default]
    Gopher,
    /// No limits
    None,
}

/// Limits of what stays.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = RULES)]
pub(super) struct RuleArgs {
    /// Limits to begin with: gopher, none
    ///
    /// gopher: those of Gopher and C4 for web text, which are the defaults below. none: no limits but those that are given.
    #[arg(long, value_name = "SET", value_enum, default_value_t, hide_possible_values = true)]
    rules: RuleSet,

    /// Fewest words [default: 50]
    #[arg(long, value_name = "N")]
    min_words: Option<f64>,

    /// Most words [default: 100000]
    #[arg(long, value_name = "N")]
    max_words: Option<f64>,

    /// Shortest mean word, in characters [default: 3]
    #[arg(long, value_name = "N")]
    min_mean_word: Option<f64>,

    /// Longest mean word, in characters [default: 10]
    #[arg(long, value_name = "N")]
    max_mean_word: Option<f64>,

    /// Most # and ellipses per word [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    max_symbols: Option<f64>,

    /// Largest share of lines that begin with a bullet [default: 0.9]
    #[arg(long, value_name = "SHARE")]
    max_bullets: Option<f64>,

    /// Largest share of lines that end with an ellipsis [default: 0.3]
    #[arg(long, value_name = "SHARE")]
    max_ellipses: Option<f64>,

    /// Smallest share of words with a letter [default: 0.8]
    #[arg(long, value_name = "SHARE")]
    min_alphabetic: Option<f64>,

    /// Fewest of the, be, to, of, and, that, have, with [default: 2]
    #[arg(long, value_name = "N")]
    min_stop_words: Option<f64>,

    /// Largest share of control and replacement characters [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    max_unreadable: Option<f64>,

    /// Largest share of lines that occurred before in the text [default: 0.3]
    #[arg(long, value_name = "SHARE")]
    max_duplicate_lines: Option<f64>,

    /// Likewise of their characters [default: 0.2]
    #[arg(long, value_name = "SHARE")]
    max_duplicate_line_characters: Option<f64>,

    /// Largest share of characters in the most frequent two words in a row [default: 0.2]
    ///
    /// 0.02 less for three words in a row, 0.04 less for four.
    #[arg(long, value_name = "SHARE")]
    max_top_gram: Option<f64>,

    /// Largest share of characters in five words in a row that occurred before [default: 0.15]
    ///
    /// 0.01 less for each word more, up to ten in a row.
    #[arg(long, value_name = "SHARE")]
    max_repeated_grams: Option<f64>,

    /// Leave out texts with one of these, in any case [default: "lorem ipsum"]
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    blocked: Vec<String>,
}

impl RuleArgs {
    /// As the library takes them; what cannot be is a fault of its option.
    pub(super) fn limits(&self, faults: &mut Faults) -> Limits {
        let mut limits = match self.rules {
            RuleSet::Gopher => Limits::gopher(),
            RuleSet::None => Limits::none(),
        };
        let given = [
            ("min-words", self.min_words, &mut limits.min_words),
            ("max-words", self.max_words, &mut limits.max_words),
            ("min-mean-word", self.min_mean_word, &mut limits.min_mean_word),
            ("max-mean-word", self.max_mean_word, &mut limits.max_mean_word),
            ("max-symbols", self.max_symbols, &mut limits.max_symbols),
            ("max-bullets", self.max_bullets, &mut limits.max_bullets),
            ("max-ellipses", self.max_ellipses, &mut limits.max_ellipses),
            ("min-alphabetic", self.min_alphabetic, &mut limits.min_alphabetic),
            ("min-stop-words", self.min_stop_words, &mut limits.min_stop_words),
            ("max-unreadable", self.max_unreadable, &mut limits.max_unreadable),
            ("max-duplicate-lines", self.max_duplicate_lines, &mut limits.max_duplicate_lines),
            (
                "max-duplicate-line-characters",
                self.max_duplicate_line_characters,
                &mut limits.max_duplicate_line_characters,
            ),
            ("max-top-gram", self.max_top_gram, &mut limits.max_top_gram),
            ("max-repeated-grams", self.max_repeated_grams, &mut limits.max_repeated_grams),
        ];
        for (name, value, limit) in given {
            let Some(value) = value else { continue };
            match value >= 0.0 && value.is_finite() {
                true => *limit = value,
                false => faults.add(name, StageError::Limit { name, value }),
            }
        }
        if !self.blocked.is_empty() {
            limits.blocked = self.blocked.iter().map(|text| text.to_lowercase()).collect();
        }
        limits
    }
}
