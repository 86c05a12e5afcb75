//! A normalizer as a map of characters. A chain of steps that each work on single characters, with at most one canonical
//! decomposition among them, does the same to a character wherever it stands, but for the order of marks, which the
//! runtime restores by their combining classes. So the chain is run over every character once, and what comes out is
//! stored as ranges.

use super::{HostOnly, host_only, type_of};
use serde_json::Value;
use slm_runtime::format::text::{ELEMENT_LAST, MapAction, MapRecord};
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::{
    canonical_combining_class, compose, decompose_canonical, is_combining_mark,
};

/// Code points, of which all but the surrogates are characters.
const CODES: usize = char::MAX as usize + 1;

/// What a step does to one character.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// BERT's cleaning: control characters go, white space becomes the space.
    Clean,
    /// Spaces around ideographs.
    Isolate,
    /// Canonical decomposition, marks in order.
    Decompose,
    /// Nonspacing marks go.
    DropNonspacing,
    /// Combining marks go.
    DropCombining,
    /// To lower case.
    Lowercase,
    /// One character becomes a string.
    Replace(char, String),
    /// Canonical composition.
    Compose,
}

impl Step {
    /// Hands out what a character becomes, one by one.
    fn apply(&self, character: char, mut give: impl FnMut(char)) {
        match self {
            Step::Clean if matches!(character, '\t' | '\n' | '\r') => give(' '),
            Step::Clean if matches!(character, '\0' | '\u{FFFD}') || character.is_other() => {}
            Step::Clean => give(if character.is_whitespace() { ' ' } else { character }),
            Step::Isolate if is_ideograph(character) => [' ', character, ' '].into_iter().for_each(give),
            Step::Decompose => decompose_canonical(character, give),
            Step::DropNonspacing if character.is_mark_nonspacing() => {}
            Step::DropCombining if is_combining_mark(character) => {}
            Step::Lowercase => character.to_lowercase().for_each(give),
            Step::Replace(from, to) if *from == character => to.chars().for_each(give),
            Step::Isolate | Step::DropNonspacing | Step::DropCombining | Step::Replace(..) | Step::Compose => {
                give(character)
            }
        }
    }
}

/// BERT's ideographs.
fn is_ideograph(character: char) -> bool {
    matches!(
        character as u32,
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F
    )
}

/// A normalizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Normalization {
    steps: Vec<Step>,
    prepend: Option<String>,
    /// The first step that comes after the prepending.
    prepend_from: usize,
}

/// Room for the outcome of one character, used again for the next: there are a million of them.
#[derive(Default)]
struct Outcome {
    /// What there is after a step, and its combining class; `None` for what went after the decomposition.
    all: Vec<(Option<char>, u8)>,
    next: Vec<(Option<char>, u8)>,
    after: Vec<char>,
}

/// The map of every character that does not stay as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Maps {
    pub(super) records: Vec<MapRecord>,
    /// Characters of lists, the last of each with [`ELEMENT_LAST`].
    pub(super) elements: Vec<u32>,
    /// First, second, composed, ascending.
    pub(super) compositions: Vec<[u32; 3]>,
    /// What is put before a piece.
    pub(super) prepend: String,
    /// Most bytes of output per byte of input.
    pub(super) growth: u32,
    /// Every character that becomes another or several, and what it becomes.
    pub(super) changed: Vec<(char, Vec<char>)>,
}

impl Normalization {
    pub(super) fn from_json(normalizer: &Value) -> Result<Self, HostOnly> {
        let mut parsed = Normalization::default();
        if !normalizer.is_null() {
            parsed.add(normalizer)?;
        }
        let decompositions = parsed.steps.iter().filter(|&step| *step == Step::Decompose).count();
        let composed = parsed.steps.iter().position(|step| *step == Step::Compose);
        if decompositions > 1 || composed.is_some_and(|at| at + 1 != parsed.steps.len()) {
            return Err(host_only("order of normalizers", normalizer));
        }
        Ok(parsed)
    }

    fn add(&mut self, normalizer: &Value) -> Result<(), HostOnly> {
        let unknown = || host_only("normalizer", normalizer);
        match normalizer["type"].as_str() {
            Some("Sequence") => {
                let steps = normalizer["normalizers"].as_array().ok_or_else(unknown)?;
                return steps.iter().try_for_each(|step| self.add(step));
            }
            Some("BertNormalizer") => {
                let lowercase = normalizer["lowercase"] == true;
                let strip = normalizer["strip_accents"].as_bool().unwrap_or(lowercase);
                self.steps.extend((normalizer["clean_text"] == true).then_some(Step::Clean));
                self.steps.extend((normalizer["handle_chinese_chars"] == true).then_some(Step::Isolate));
                if strip {
                    self.steps.extend([Step::Decompose, Step::DropNonspacing]);
                }
                self.steps.extend(lowercase.then_some(Step::Lowercase));
            }
            Some("Lowercase") => self.steps.push(Step::Lowercase),
            Some("StripAccents") => self.steps.push(Step::DropCombining),
            Some("NFD") => self.steps.push(Step::Decompose),
            Some("NFC") => self.steps.extend([Step::Decompose, Step::Compose]),
            Some("Replace") => {
                let pattern = normalizer["pattern"]["String"].as_str().ok_or_else(unknown)?;
                let mut characters = pattern.chars();
                let (Some(from), None) = (characters.next(), characters.next()) else { return Err(unknown()) };
                self.replace(from, normalizer["content"].as_str().ok_or_else(unknown)?)?;
            }
            Some("Prepend") => {
                // An empty text stays empty, so that nothing may vanish before.
                let replaces = |step: &Step| matches!(step, Step::Replace(_, to) if !to.is_empty());
                if self.prepend.is_some() || !self.steps.iter().all(replaces) {
                    return Err(host_only("order of normalizers", normalizer));
                }
                let text = normalizer["prepend"].as_str().ok_or_else(unknown)?;
                self.prepend = Some(text.to_owned());
                self.prepend_from = self.steps.len();
            }
            _ => return Err(host_only("normalizer", type_of(normalizer))),
        }
        Ok(())
    }

    /// Appends the replacement of a character.
    pub(super) fn replace(&mut self, from: char, to: &str) -> Result<(), HostOnly> {
        if self.steps.contains(&Step::Compose) {
            return Err(host_only("order of normalizers", format!("replacement of {from:?} after NFC")));
        }
        self.steps.push(Step::Replace(from, to.to_owned()));
        Ok(())
    }

    /// Whether nothing but replacements of single characters by something happens.
    pub(super) fn only_replaces(&self) -> bool {
        self.prepend.is_none() && self.steps.iter().all(|step| matches!(step, Step::Replace(_, to) if !to.is_empty()))
    }

    pub(super) fn composes(&self) -> bool {
        self.steps.contains(&Step::Compose)
    }

    /// What the steps from `from` on make of a character: what stays, and the class of what goes.
    fn outcome<'a>(
        &self,
        character: char,
        from: usize,
        room: &'a mut Outcome,
    ) -> Result<&'a [(Option<char>, u8)], HostOnly> {
        let Outcome { all, next, after } = room;
        all.clear();
        all.push((Some(character), 0));
        let mut decomposed = false;
        for step in &self.steps[from..] {
            next.clear();
            for &(character, class) in all.iter() {
                let Some(before) = character else {
                    // What goes before the decomposition leaves nothing behind.
                    next.extend(decomposed.then_some((None, class)));
                    continue;
                };
                after.clear();
                step.apply(before, |character| after.push(character));
                match (after.as_slice(), *step == Step::Decompose) {
                    (_, true) => next.extend(after.iter().map(|&c| (Some(c), canonical_combining_class(c)))),
                    ([], _) => next.extend(decomposed.then_some((None, class))),
                    (&[one], _) => next.push((Some(one), class)),
                    (many, _) if class == 0 => next.extend(many.iter().map(|&c| (Some(c), 0))),
                    _ => return Err(host_only("normalizer of the mark", format!("U+{:04X}", before as u32))),
                }
            }
            decomposed |= *step == Step::Decompose;
            std::mem::swap(all, next);
        }
        Ok(all)
    }

    /// The map, by asking every character.
    pub(super) fn maps(&self) -> Result<Maps, HostOnly> {
        let mut maps = Maps { growth: 1, ..Maps::default() };
        let mut room = Outcome::default();
        if let Some(text) = &self.prepend {
            for character in text.chars() {
                let outcome = self.outcome(character, self.prepend_from, &mut room)?;
                maps.prepend.extend(outcome.iter().filter_map(|(c, _)| *c));
            }
        }
        if self.steps.is_empty() {
            return Ok(maps);
        }
        let mut actions: Vec<(MapAction, u32)> = Vec::with_capacity(CODES);
        // By character: its class where it stays a mark, and the class with which it is written for itself or another.
        let (mut marks, mut written) = (vec![0u8; CODES], vec![None; CODES]);
        let mut left: Vec<(char, u8)> = Vec::new();
        for code in 0..CODES as u32 {
            let Some(character) = char::from_u32(code) else {
                // No character: what is stored for it does not matter.
                actions.push(actions.last().copied().unwrap_or((MapAction::Keep, 0)));
                continue;
            };
            let outcome = self.outcome(character, 0, &mut room)?;
            left.clear();
            left.extend(outcome.iter().filter_map(|&(c, class)| Some((c?, class))));
            let breaks = outcome.iter().any(|&(c, class)| c.is_none() && class == 0);
            if breaks && left.iter().any(|&(_, class)| class != 0) {
                return Err(host_only("normalizer of the mark", format!("U+{code:04X}")));
            }
            let bytes: usize = left.iter().map(|(c, _)| c.len_utf8()).sum();
            maps.growth = maps.growth.max(bytes.div_ceil(character.len_utf8()) as u32);
            if let [(one, class)] = left[..]
                && one == character
            {
                marks[code as usize] = class;
            }
            for &(character, class) in &left {
                written[character as usize] = Some(class);
            }
            actions.push(maps.action(character, &left, breaks));
            if !left.is_empty() && left[0].0 != character {
                maps.changed.push((character, left.iter().map(|(c, _)| *c).collect()));
            }
        }
        // The runtime takes the class of a character from its own entry.
        for (code, (mark, class)) in marks.into_iter().zip(written).enumerate() {
            if class.is_some_and(|class| class != mark) {
                return Err(host_only("normalizer of the mark", format!("U+{code:04X}")));
            }
        }
        maps.records = ranges(&actions);
        if self.composes() {
            maps.compositions = compositions();
        }
        Ok(maps)
    }
}

impl Maps {
    /// The action for a character of which `left` is what stays.
    fn action(&mut self, character: char, left: &[(char, u8)], breaks: bool) -> (MapAction, u32) {
        let syllable = matches!(character, '\u{AC00}'..='\u{D7A3}');
        match *left {
            [] if breaks => (MapAction::Break, 0),
            [] => (MapAction::Drop, 0),
            [(one, class)] if one == character && class != 0 => (MapAction::Mark, u32::from(class)),
            [(one, _)] if one == character => (MapAction::Keep, 0),
            [(one, 0)] => (MapAction::Single, one as u32),
            [(' ', _), (one, 0), (' ', _)] => (MapAction::Isolate, if one == character { 0 } else { one as u32 }),
            [('\u{1100}'..='\u{1112}', _), ('\u{1161}'..='\u{1175}', _), ..] if syllable => (MapAction::Hangul, 0),
            _ => {
                let from = self.elements.len() as u32;
                self.elements.extend(left.iter().map(|(c, _)| *c as u32));
                if let Some(last) = self.elements.last_mut() {
                    *last |= ELEMENT_LAST;
                }
                (MapAction::Elements, from)
            }
        }
    }
}

/// Ranges of characters that one record describes, greedily.
fn ranges(actions: &[(MapAction, u32)]) -> Vec<MapRecord> {
    let mut records = Vec::new();
    let mut push = |first: usize, action: MapAction, value: u32| {
        let keeps = records.last().is_none_or(|last: &MapRecord| last.first >> 24 == MapAction::Keep as u32);
        if !(keeps && action == MapAction::Keep) {
            records.push(MapRecord { first: first as u32 | (action as u32) << 24, value });
        }
    };
    let single = |at: usize| matches!(actions.get(at), Some((MapAction::Single, _)));
    let shift = |at: usize| actions[at].1.wrapping_sub(at as u32);
    let raised = |at: usize| single(at) && shift(at) == 1;
    let kept = |at: usize| matches!(actions.get(at), Some((MapAction::Keep, _)));
    let mut at = 0;
    while at < actions.len() {
        let (action, value) = actions[at];
        let same = actions[at..].iter().take_while(|&&other| other == actions[at]).count();
        let pairs = (0..).take_while(|pair| raised(at + 2 * pair) && kept(at + 2 * pair + 1)).count();
        let run = (at..actions.len()).take_while(|&other| single(other) && shift(other) == shift(at)).count();
        at += match action {
            MapAction::Single if pairs > 1 => {
                push(at, MapAction::Alternate, 0);
                2 * pairs
            }
            MapAction::Single if run > same => {
                push(at, MapAction::Shift, shift(at));
                run
            }
            _ => {
                push(at, action, value);
                same
            }
        };
    }
    records
}

/// Every pair of characters that composes to one, letters of Hangul aside.
fn compositions() -> Vec<[u32; 3]> {
    let mut found = Vec::new();
    for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
        let mut parts = Vec::new();
        decompose_canonical(character, |part| parts.push(part));
        let Some((last, front)) = parts.split_last().filter(|(_, front)| !front.is_empty()) else { continue };
        // The front composes to the character's own first part.
        let first = front[1..].iter().try_fold(front[0], |first, &next| compose(first, next));
        if let Some(first) = first
            && compose(first, *last) == Some(character)
            && !matches!(character, '\u{AC00}'..='\u{D7A3}')
        {
            found.push([first as u32, *last as u32, character as u32]);
        }
    }
    found.sort_unstable();
    found
}
