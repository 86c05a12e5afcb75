//! The licence of a model, as far as its files say one: a licence file beside the weights, the `license` of the model card
//! (the front matter of README.md), `general.license` of a GGUF file. This is a reading aid, not advice: what is not
//! recognised is said to be so.

use crate::formats::gguf;
use crate::report::visible;
use serde::Serialize;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of a file that are looked at: the longest licences have some 40 KiB.
const MOST_BYTES: u64 = 128 << 10;
/// Beginnings of the names of licence files, in lower case.
const FILES: [&str; 5] = ["license", "licence", "copying", "use_policy", "terms"];

/// What a licence lets one do, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Terms {
    /// Use, change and hand on, with the notice.
    Permissive,
    /// Derived works stay under the same licence.
    Copyleft,
    /// Use, or handing on, is restricted.
    Restricted,
    /// There is one, and it is none of those known here.
    Unknown,
    /// None was found.
    Missing,
}

/// The licence of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Licence {
    /// What it lets one do.
    pub terms: Terms,
    /// Its name, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where that is said: a file's name, `README.md`, or `general.license`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stated_in: Option<String>,
    /// The licence file beside the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Words of the texts of licences, those that restrict first: such a text may quote a permissive one.
const TEXTS: [(&str, &str, Terms); 20] = [
    ("gemma terms of use", "Gemma Terms of Use", Terms::Restricted),
    ("llama 3", "Llama Community License", Terms::Restricted),
    ("llama 2 community license", "Llama Community License", Terms::Restricted),
    ("llama community license", "Llama Community License", Terms::Restricted),
    ("responsible ai license", "a Responsible AI License", Terms::Restricted),
    ("openrail", "an OpenRAIL licence", Terms::Restricted),
    ("attribution-noncommercial", "Creative Commons, not commercial", Terms::Restricted),
    ("research license", "a research licence", Terms::Restricted),
    ("research purposes only", "a research licence", Terms::Restricted),
    ("non-commercial use only", "a licence for use that is not commercial", Terms::Restricted),
    ("gnu affero general public license", "GNU AGPL", Terms::Copyleft),
    ("gnu lesser general public license", "GNU LGPL", Terms::Copyleft),
    ("gnu general public license", "GNU GPL", Terms::Copyleft),
    ("attribution-sharealike", "Creative Commons ShareAlike", Terms::Copyleft),
    ("mozilla public license", "MPL-2.0", Terms::Copyleft),
    ("apache license version 2.0", "Apache-2.0", Terms::Permissive),
    ("permission is hereby granted, free of charge", "MIT", Terms::Permissive),
    ("redistribution and use in source and binary forms", "BSD", Terms::Permissive),
    ("creative commons attribution 4.0", "CC-BY-4.0", Terms::Permissive),
    ("cc0 1.0 universal", "CC0-1.0", Terms::Permissive),
];

/// Beginnings of the names that model cards use, the longer before the shorter.
const NAMES: [(&str, Terms); 24] = [
    ("apache-2.0", Terms::Permissive),
    ("mit", Terms::Permissive),
    ("bsd", Terms::Permissive),
    ("isc", Terms::Permissive),
    ("cc0", Terms::Permissive),
    ("unlicense", Terms::Permissive),
    ("odc-by", Terms::Permissive),
    ("openmdw", Terms::Permissive),
    ("cc-by-nc", Terms::Restricted),
    ("cc-by-nd", Terms::Restricted),
    ("cc-by-sa", Terms::Copyleft),
    ("cc-by-", Terms::Permissive),
    ("agpl", Terms::Copyleft),
    ("lgpl", Terms::Copyleft),
    ("gpl", Terms::Copyleft),
    ("mpl", Terms::Copyleft),
    ("gemma", Terms::Restricted),
    ("llama", Terms::Restricted),
    ("openrail", Terms::Restricted),
    ("creativeml", Terms::Restricted),
    ("bigscience", Terms::Restricted),
    ("bigcode", Terms::Restricted),
    ("deepfloyd", Terms::Restricted),
    ("intel-research", Terms::Restricted),
];

impl Licence {
    /// The licence of the model at a path; a GGUF file's is also looked for beside it.
    pub fn of(model: &Path) -> Licence {
        let directory = if model.is_dir() { model } else { model.parent().unwrap_or(Path::new("")) };
        let file = licence_file(directory);
        let by_text = file.as_deref().and_then(text).map(|text| by_text(&text));
        if let (Some(file), Some((name, terms))) = (&file, by_text)
            && terms != Terms::Unknown
        {
            return Licence { terms, name, stated_in: file_name(file), file: Some(file.clone()) };
        }
        let stated = gguf::licence(model).map(|name| (name, "general.license".to_owned()));
        let stated = stated.or_else(|| Some((card(directory)?, "README.md".to_owned())));
        match (stated, file) {
            (Some((name, place)), file) => {
                Licence { terms: by_name(&name), name: Some(line(&name)), stated_in: Some(place), file }
            }
            (None, Some(file)) => {
                Licence { terms: Terms::Unknown, name: None, stated_in: file_name(&file), file: Some(file) }
            }
            (None, None) => Licence { terms: Terms::Missing, name: None, stated_in: None, file: None },
        }
    }

    /// Whether nobody has to be asked before an artifact is handed on, as far as it can be seen here.
    pub fn is_clear(&self) -> bool {
        self.terms == Terms::Permissive
    }

    /// In one sentence, without a full stop.
    pub fn words(&self) -> String {
        let name = self.name.as_deref().unwrap_or("a licence");
        let place = self.stated_in.as_deref().map_or_else(String::new, |place| format!(" (by {place})"));
        let without_file = match self.file {
            Some(_) => "",
            None => "; its text is not beside the model and belongs to what is handed on",
        };
        match self.terms {
            Terms::Permissive => format!("{name}{place}{without_file}"),
            Terms::Copyleft => {
                format!("{name}{place}: what is derived, artifacts too, stays under it{without_file}")
            }
            Terms::Restricted => {
                format!("{name}{place}: restricts use or handing on; read it before the artifact leaves this machine{without_file}")
            }
            Terms::Unknown => format!("{name}{place} that slmc does not know; read it{without_file}"),
            Terms::Missing => {
                "no licence file, and no model card or key that names one: without a licence nothing may be handed on; ask \
                 whoever made the model"
                    .to_owned()
            }
        }
    }
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| line(&name.to_string_lossy()))
}

/// One line of other people's text, made safe to show.
pub(super) fn line(text: &str) -> String {
    const MOST: usize = 120;
    let words: Vec<&str> = text.split_whitespace().collect();
    let shown = visible(&words.join(" "));
    match shown.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// The first licence file of a directory, by name.
fn licence_file(directory: &Path) -> Option<PathBuf> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    let is_licence = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        path.is_file() && FILES.iter().any(|start| name.starts_with(start))
    };
    let mut found: Vec<PathBuf> = entries.filter(is_licence).collect();
    found.sort();
    found.into_iter().next()
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A licence by the words of its text.
fn by_text(text: &str) -> (Option<String>, Terms) {
    let words: Vec<&str> = text.split(|character: char| character.is_whitespace() || character == '*').collect();
    let words = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase();
    // Apache's first lines have a comma or none.
    let words = words.replace("apache license, version", "apache license version");
    match TEXTS.iter().find(|(part, ..)| words.contains(part)) {
        Some((_, name, terms)) => (Some((*name).to_owned()), *terms),
        None => (None, Terms::Unknown),
    }
}

/// What a name of the kind that model cards have stands for.
fn by_name(name: &str) -> Terms {
    let name = name.trim().to_lowercase();
    NAMES.iter().find(|(start, _)| name.starts_with(start)).map_or(Terms::Unknown, |(_, terms)| *terms)
}

/// `license` (or `license_name`, where that is `other`) of the front matter of a model card.
fn card(directory: &Path) -> Option<String> {
    let text = text(&directory.join("README.md"))?;
    let mut lines = text.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let front: Vec<&str> = lines.take_while(|line| line.trim_end() != "---").collect();
    let value = |key: &str| {
        let found = front.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let found = found.trim().trim_matches(['"', '\'']);
        (!found.is_empty()).then(|| found.to_owned())
    };
    match value("license") {
        Some(other) if other == "other" => Some(value("license_name").unwrap_or(other)),
        stated => stated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Licence {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("written");
        }
        let found = Licence::of(directory.path());
        Licence { file: found.file.map(|path| PathBuf::from(path.file_name().unwrap_or_default())), ..found }
    }

    #[test]
    fn texts_cards_and_their_absence_are_told_apart() {
        type Case<'c> = (&'c [(&'c str, &'c str)], Terms, Option<&'c str>);
        let cases: [Case<'_>; 12] = [
            (&[], Terms::Missing, None),
            (&[("README.md", "# A model without a card\nlicense: mit\n")], Terms::Missing, None),
            (&[("LICENSE", "   Apache License\n   Version 2.0, January 2004")], Terms::Permissive, Some("Apache-2.0")),
            (
                &[("LICENSE.txt", "MIT License\n\nPermission is hereby granted, free of\ncharge, to")],
                Terms::Permissive,
                Some("MIT"),
            ),
            (&[("license.md", "** GNU GENERAL PUBLIC LICENSE ** noncommercially")], Terms::Copyleft, Some("GNU GPL")),
            (
                &[("LICENSE", "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")],
                Terms::Restricted,
                Some("Llama Community License"),
            ),
            (&[("LICENCE", "do as you like")], Terms::Unknown, None),
            (
                &[("LICENCE", "as the card says"), ("README.md", "---\nlicense: mit\n---\n")],
                Terms::Permissive,
                Some("mit"),
            ),
            (&[("README.md", "---\ntags: [a]\nlicense: cc-by-nc-4.0\n---\n")], Terms::Restricted, Some("cc-by-nc-4.0")),
            (&[("README.md", "---\nlicense: other\nlicense_name: \"gemma\"\n---\n")], Terms::Restricted, Some("gemma")),
            (&[("README.md", "---\nlicense: cc-by-sa-4.0\n")], Terms::Copyleft, Some("cc-by-sa-4.0")),
            (&[("README.md", "---\nlicense: my-own\n---\n")], Terms::Unknown, Some("my-own")),
        ];
        for (files, terms, name) in cases {
            let found = of(files);
            assert_eq!((found.terms, found.name.as_deref()), (terms, name), "{files:?}");
            assert_eq!(found.is_clear(), terms == Terms::Permissive);
            assert!(!found.words().is_empty() && !found.words().ends_with('.'));
        }
    }

    #[test]
    fn hostile_names_are_one_line_and_shown() {
        let found = of(&[("README.md", "---\nlicense: mit\u{1b}[2J\u{202e}\n---\n")]);
        let words = found.words();
        assert!(!words.contains('\u{1b}') && !words.contains('\u{202e}') && words.lines().count() == 1, "{words}");
        assert!(line(&"a ".repeat(400)).chars().count() <= 121);
    }
}
