//! The frame of an HTML page: one file, no script, no network, light or dark as the reader's system is, readable on a phone
//! and by keyboard.

mod parts;

pub use parts::{figure_with_table, table};

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("page/style.css");
/// Nothing is loaded, nothing runs: neither ours nor what a text may have smuggled in.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// A page.
pub struct Page {
    /// First bytes of every such file: the doctype, and a comment by which slmc knows its own.
    pub magic: &'static str,
    /// In the reader's window.
    pub title: String,
    /// What stands above the list of sections.
    pub heading: Markup,
    /// In order.
    pub sections: Vec<Section>,
    /// The last line.
    pub footer: String,
}

/// One part of the page.
pub struct Section {
    /// Where links lead.
    pub id: &'static str,
    /// Above it, and in the list of sections.
    pub title: &'static str,
    /// The rest.
    pub content: Markup,
}

impl Page {
    /// The whole file.
    pub fn render(&self) -> String {
        self.render_with("")
    }

    /// The whole file with rules of its own, which may hold pictures.
    pub fn render_with(&self, style: &str) -> String {
        let policy = if style.is_empty() { POLICY.to_owned() } else { format!("{POLICY}; img-src data:") };
        let page = html! {
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) (PreEscaped(style)) }
                }
                body {
                    a.skip href="#main" { "Skip to the results" }
                    header {
                        (self.heading)
                        nav aria-label="Sections" {
                            ul { @for section in &self.sections { li { a href={ "#" (section.id) } { (section.title) } } } }
                        }
                    }
                    main id="main" {
                        @for section in &self.sections {
                            section id=(section.id) aria-labelledby={ (section.id) "-title" } {
                                h2 id={ (section.id) "-title" } { (section.title) }
                                (section.content)
                            }
                        }
                    }
                    footer { p { (self.footer) } }
                }
            }
        };
        // maud's own doctype comes before the mark by which the file is known.
        debug_assert_eq!(DOCTYPE.0, "<!DOCTYPE html>");
        format!("{}{}", self.magic, page.into_string())
    }
}
