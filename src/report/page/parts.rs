//! Parts that sections share: tables that scroll in a box of their own, figures with their numbers.

use maud::{Markup, PreEscaped, html};

/// A table with its headings; wide ones scroll by themselves, by keyboard too. Nothing where there are no rows.
pub fn table(name: &str, headings: &[&str], rows: Vec<Vec<String>>) -> Markup {
    html! {
        @if !rows.is_empty() {
            div.scroll tabindex="0" role="region" aria-label=(name) {
                table {
                    thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
                    tbody {
                        @for row in &rows {
                            tr {
                                @for (n, cell) in row.iter().enumerate() {
                                    @if n == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A drawing, what it shows, and its numbers.
pub fn figure_with_table(svg: Option<String>, caption: &str, headings: &[&str], rows: Vec<Vec<String>>) -> Markup {
    html! {
        figure {
            @if let Some(svg) = svg {
                (PreEscaped(svg))
                figcaption { (caption) }
                details {
                    summary { "Numbers: " (caption) }
                    (table(caption, headings, rows))
                }
            } @else {
                // Nothing to draw: the numbers stand for themselves.
                figcaption { (caption) }
                (table(caption, headings, rows))
            }
        }
    }
}
