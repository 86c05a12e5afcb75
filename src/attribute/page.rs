//! The page of `slmc attribute`: the text with its shares as shades, their table, and a heat map of attention for every
//! layer and head. A map is chosen by radio buttons, whose labels are the maps themselves in small; the rules that show
//! the chosen one are CSS, so nothing runs and nothing is loaded.

use super::report::{AttributeReport, Choice, Head, InputToken, shown};
use super::shade;
use crate::disk::atomic::{self, AtomicError};
use crate::report::page::{Page, Section, table};
use crate::report::visible;
use maud::{Markup, html};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// First bytes of every such page.
pub const MAGIC: &str = "<!DOCTYPE html><!-- slmc.attribute -->";
const STYLE: &str = include_str!("page.css");

/// `html=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The file.
    pub path: PathBuf,
}

impl FromStr for PageRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("html", "") => Err("`html` needs a file: html=FILE".to_owned()),
            ("html", path) => Ok(PageRequest { path: path.into() }),
            (name, _) => {
                Err(format!("`{name}` is not a form of this report; known: html, with =FILE; see also --json"))
            }
        }
    }
}

impl PageRequest {
    /// Refuses, before the work, a file that may not be replaced.
    ///
    /// # Errors
    /// [`AtomicError`].
    pub fn check(&self) -> Result<(), AtomicError> {
        atomic::check_file(&self.path, MAGIC.as_bytes())
    }

    /// Writes the page of a report that has matrices.
    ///
    /// # Errors
    /// [`AtomicError`].
    pub fn write(&self, report: &AttributeReport) -> Result<(), AtomicError> {
        let page = render(report);
        atomic::write_file(&self.path, MAGIC.as_bytes(), |file| file.write_all(page.as_bytes()))
    }
}

/// A head of the model, and its attention at every position, in order.
type Map<'a> = (usize, usize, Vec<&'a Head>);

fn render(report: &AttributeReport) -> String {
    let maps = maps(report);
    let name = Path::new(&report.artifact).file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    let chosen: Vec<String> = report.choices.iter().map(|choice| visible(&choice.text)).collect();
    let title = format!("{}: {} of {name}", chosen.concat(), report.chooses);
    let mut sections = vec![Section { id: "shares", title: "Share of each token", content: shares(report) }];
    if !maps.is_empty() {
        sections.push(Section { id: "attention", title: "Attention", content: attention(report, &maps) });
    }
    sections.push(Section { id: "numbers", title: "Attention in numbers", content: numbers(report) });
    let heading = html! {
        h1 { "What the choice rests on" }
        p.verdict { (report.chooses) " " @for choice in &report.choices { strong { (shown(&choice.text)) } " " } }
    };
    let footer = "Computed with the integers of the device by slmc attribute; docs/attribution.md says what the numbers mean \
                  and what they do not.";
    let page = Page { magic: MAGIC, title, heading, sections, footer: footer.to_owned() };
    page.render_with(&style(report, &maps))
}

/// The maps by layer and head.
fn maps(report: &AttributeReport) -> Vec<Map<'_>> {
    let mut all: Vec<&Head> = report.matrices.iter().flatten().collect();
    all.sort_by_key(|head| (head.layer, head.head, head.position));
    all.chunk_by(|a, b| (a.layer, a.head) == (b.layer, b.head))
        .map(|heads| (heads[0].layer, heads[0].head, heads.to_vec()))
        .collect()
}

/// The page's own rules, with the pictures and the rules that show the chosen one.
fn style(report: &AttributeReport, maps: &[Map<'_>]) -> String {
    let mut style = STYLE.to_owned();
    let side = report.inputs.len();
    let [red, green, blue] = shade::COLOUR;
    let _ = writeln!(style, ":root{{--shade:rgb({red} {green} {blue});--side:{side}}}");
    for (layer, head, rows) in maps {
        let share = |row: usize, column: usize| rows.get(row).map_or(0.0, |head| head.share(column));
        let picture = shade::address(side, share);
        let _ = writeln!(style, ".m{layer}-{head}{{background-image:url({picture})}}");
        let _ = writeln!(
            style,
            "#a{layer}-{head}:checked~.stage .m{layer}-{head}{{display:block}}\
             #a{layer}-{head}:checked~.small .t{layer}-{head}{{outline:3px solid var(--accent)}}\
             #a{layer}-{head}:focus-visible~.small .t{layer}-{head}{{outline:3px solid var(--second)}}"
        );
    }
    style
}

fn shares(report: &AttributeReport) -> Markup {
    let replacement = &report.replacement;
    html! {
        p {
            "Each token in turn was replaced by " code { (shown(&replacement.token)) } ", " (replacement.role.name())
            ", and the logarithm of the choice's probability computed again. "
            span.pro { "Shaded so" } ": it spoke for the choice. " span.con { "So" } ": against it."
        }
        @for choice in &report.choices {
            h3 {
                (report.chooses) " " (shown(&choice.text)) ", "
                (format!("{:.2} %, ln p {:.4}", 100.0 * choice.probability, choice.log_probability))
            }
            (text(report, choice))
            details {
                summary { "Numbers" }
                (table("Share of each token", &["position", "token", "change of ln p", "share"], rows(report, choice)))
            }
        }
        @if let Some(prompt) = &report.prompt {
            details { summary { "The prompt that the chat template made" } pre { (visible(prompt)) } }
        }
        @for note in &report.notes { p { (note) } }
    }
}

/// The text, each token shaded by its share of the largest.
fn text(report: &AttributeReport, choice: &Choice) -> Markup {
    let largest = choice.shares.iter().map(|share| share.share.abs()).fold(0.0, f64::max);
    let read = |input: &&InputToken| report.chooses == "label" || input.position <= choice.position;
    html! {
        p.text {
            @for input in report.inputs.iter().filter(read) {
                @match choice.shares.iter().find(|share| share.position == input.position) {
                    Some(share) => {
                        @let depth = if largest > 0.0 { 100.0 * share.share.abs() / largest } else { 0.0 };
                        @let class = if share.share < 0.0 { "con" } else { "pro" };
                        span class=(class) style=(format!("--depth:{depth:.0}%"))
                            title=(format!("{}: {:+.1} %", input.position, 100.0 * share.share))
                            { (visible(&input.text)) }
                    }
                    None => { span.special { (visible(&input.text)) } }
                }
            }
            @if report.chooses == "next token" { strong.chosen { (visible(&choice.text)) } }
        }
    }
}

fn rows(report: &AttributeReport, choice: &Choice) -> Vec<Vec<String>> {
    let row = |share: &super::Share| {
        vec![
            share.position.to_string(),
            shown(&report.inputs[share.position].text),
            format!("{:+.4}", share.change),
            format!("{:+.1} %", 100.0 * share.share),
        ]
    };
    choice.shares.iter().map(row).collect()
}

/// The maps in small, as labels of the buttons, and the chosen one with its tokens.
fn attention(report: &AttributeReport, maps: &[Map<'_>]) -> Markup {
    let label = |input: &InputToken| html! { span title=(input.position) { (shown(&input.text)) } };
    html! {
        p {
            "A row is a position that attends, a column one that it attends to. The shade is the square root of the share: "
            span.scale aria-hidden="true" {} " from 0 to all. Choose a map, or go through them with the arrow keys."
        }
        div.chooser {
            @for (number, (layer, head, _)) in maps.iter().enumerate() {
                input.button type="radio" name="map" id=(format!("a{layer}-{head}")) checked[number == 0]
                    aria-label=(format!("layer {layer}, head {head}"));
            }
            div.small {
                @for of_layer in maps.chunk_by(|a, b| a.0 == b.0) {
                    div.layer {
                        span.name { "layer " (of_layer[0].0) }
                        @for (layer, head, _) in of_layer {
                            label class=(format!("m{layer}-{head} t{layer}-{head}")) for=(format!("a{layer}-{head}"))
                                title=(format!("layer {layer}, head {head}")) {}
                        }
                    }
                }
            }
            div.stage tabindex="0" role="region" aria-label="The chosen map" {
                div.names {
                    @for (layer, head, _) in maps {
                        span class=(format!("map-name m{layer}-{head}")) { "layer " (layer) ", head " (head) }
                    }
                }
                div.grid {
                    div.columns { @for input in &report.inputs { (label(input)) } }
                    div.rows { @for input in &report.inputs { (label(input)) } }
                    div.maps {
                        @for (layer, head, _) in maps {
                            div role="img" class=(format!("map m{layer}-{head}"))
                                aria-label=(format!("Attention of layer {layer}, head {head}; its largest shares are below")) {}
                        }
                    }
                }
            }
        }
    }
}

/// Shares that a row of the table names.
const NAMED: usize = 3;

fn numbers(report: &AttributeReport) -> Markup {
    let named = |head: &Head| -> Vec<String> {
        let mut shares: Vec<(usize, f64)> =
            (head.first..head.first + head.weights.len()).map(|position| (position, head.share(position))).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let cell = |at: usize| {
            shares.get(at).map_or_else(String::new, |&(position, share)| {
                format!("{position} {} {:.1} %", shown(&report.inputs[position].text), 100.0 * share)
            })
        };
        [format!("{}.{}", head.layer, head.head)].into_iter().chain((0..NAMED).map(cell)).collect()
    };
    html! {
        p { "The positions with the largest shares, as seen from the position that chose." }
        @for choice in &report.choices {
            details open[report.choices.len() == 1 && choice.attention.len() <= 32] {
                summary { (shown(&choice.text)) ", chosen at position " (choice.position) }
                (table("Attention by layer and head", &["layer.head", "first", "second", "third"],
                    choice.attention.iter().map(named).collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_by_its_kind_and_file() {
        assert_eq!("html=a=b.html".parse(), Ok(PageRequest { path: "a=b.html".into() }));
        for (text, part) in [("html", "needs a file"), ("html=", "needs a file"), ("pdf=x", "`pdf` is not a form")] {
            let error = text.parse::<PageRequest>().expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }
}
