//! Runs over time as text, Markdown and a page. In text and Markdown the last runs alone have a column; JSON and the page
//! have all of them.

use super::{Course, HistoryReport, PastRun};
use crate::disk::atomic::{self, AtomicError};
use crate::recipe::reports::markdown::inline;
use crate::recipe::run_report::RunVerdict;
use crate::report::figure::{self, Line};
use crate::report::page::{Page, Section, figure_with_table, table};
use crate::report::{Align, Report, Table, grouped, json_line, visible};
use maud::html;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

/// Runs that have a column in text.
const COLUMNS: usize = 6;
const MARKDOWN: &str = "<!-- slmc history -->\n";
const HTML: &str = "<!DOCTYPE html><!-- slmc history -->";

/// A format of `slmc report --report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryFormat {
    /// As on a terminal.
    Text,
    /// As with `--json`.
    Json,
    /// For the summary of a job.
    Markdown,
    /// One page.
    Html,
}

/// A format, and the file it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRequest {
    /// The format.
    pub format: HistoryFormat,
    /// Its path.
    pub path: PathBuf,
}

impl HistoryFormat {
    const ALL: [(&'static str, HistoryFormat); 4] = [
        ("text", HistoryFormat::Text),
        ("json", HistoryFormat::Json),
        ("markdown", HistoryFormat::Markdown),
        ("html", HistoryFormat::Html),
    ];

    fn magic(self) -> &'static [u8] {
        match self {
            HistoryFormat::Text => b"run",
            HistoryFormat::Json => b"{\"schema\":\"slmc.history/",
            HistoryFormat::Markdown => MARKDOWN.as_bytes(),
            HistoryFormat::Html => HTML.as_bytes(),
        }
    }
}

impl FromStr for HistoryRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').unwrap_or((text, ""));
        let known = HistoryFormat::ALL.into_iter().find(|(known, _)| *known == name);
        let Some((_, format)) = known else {
            let names = HistoryFormat::ALL.map(|(name, _)| name).join(", ");
            return Err(format!("`{name}` is not a form of this report; known: {names}, each with =FILE"));
        };
        match path.is_empty() {
            true => Err(format!("`{name}` needs a file: {name}=FILE")),
            false => Ok(HistoryRequest { format, path: path.into() }),
        }
    }
}

impl HistoryReport {
    /// Writes it in other formats; a file that something else wrote is not replaced.
    ///
    /// # Errors
    /// A file that cannot be written, or is something else.
    pub fn write(&self, requests: &[HistoryRequest]) -> Result<(), AtomicError> {
        for HistoryRequest { format, path } in requests {
            let text = match format {
                HistoryFormat::Text => format!("{}\n", self.text()),
                HistoryFormat::Json => format!("{}\n", json_line(self).unwrap_or_default()),
                HistoryFormat::Markdown => self.markdown(),
                HistoryFormat::Html => self.page(),
            };
            atomic::write_file(path, format.magic(), |file| file.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    fn title(&self) -> String {
        let count = self.runs.len();
        format!("{count} run{}", if count == 1 { "" } else { "s" })
    }

    /// Index of the first run that has a column.
    fn first(&self) -> usize {
        self.runs.len().saturating_sub(COLUMNS)
    }

    fn headings(&self) -> Vec<String> {
        let runs = (self.first()..self.runs.len()).map(|run| format!("#{}", run + 1));
        ["stage".to_owned(), "figure".to_owned()].into_iter().chain(runs).chain(["change".to_owned()]).collect()
    }

    fn cells(&self, course: &Course) -> Vec<String> {
        let values = course.values[self.first()..].iter().map(|value| shown(course.figure, *value));
        [course.stage.clone(), course.figure.to_owned()]
            .into_iter()
            .chain(values)
            .chain([course.change_words()])
            .collect()
    }

    /// Gates of any run, with the verdict of each run that has a column.
    fn gates(&self) -> Vec<Vec<String>> {
        let mut names: Vec<(&str, &str)> = Vec::new();
        for gate in self.runs.iter().flat_map(|run| &run.gates) {
            let name = (gate.gate.as_str(), gate.stage.as_str());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let row = |&(gate, stage): &(&str, &str)| {
            let verdict = |run: &PastRun| {
                let found = run.gates.iter().find(|found| found.gate == gate && found.stage == stage);
                found.map_or_else(|| "-".to_owned(), |found| found.verdict_word().to_owned())
            };
            let verdicts = self.runs[self.first()..].iter().map(verdict);
            [stage.to_owned(), gate.to_owned()].into_iter().chain(verdicts).chain([String::new()]).collect()
        };
        names.iter().map(row).collect()
    }

    fn run_rows(&self) -> Vec<[String; 5]> {
        let row = |(index, run): (usize, &PastRun)| {
            let verdict = match run.passed {
                Some(_) if run.verdict == Some(RunVerdict::NotJudged) => "not judged",
                Some(true) => "passed",
                Some(false) => "not passed",
                None => "-",
            };
            [format!("#{}", index + 1), run.name.clone(), run.recipe.clone(), run.tool.clone(), verdict.to_owned()]
        };
        self.runs.iter().enumerate().map(row).collect()
    }

    fn markdown(&self) -> String {
        let mut out = format!("{MARKDOWN}## {}\n\n", self.title());
        for remark in self.remarks() {
            out.push_str(&inline(&remark));
            out.push_str("\n\n");
        }
        let rows = self.run_rows().into_iter().map(|row| row.to_vec()).collect();
        rows_of(&mut out, &["run", "from", "recipe", "tool", "verdict"].map(str::to_owned), rows);
        let rows = self.courses.iter().map(|course| self.cells(course)).chain(self.gates()).collect();
        out.push('\n');
        rows_of(&mut out, &self.headings(), rows);
        out
    }

    fn page(&self) -> String {
        let runs = self.run_rows().into_iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
        let runs = table("Runs", &["run", "from", "recipe", "tool", "verdict"], runs);
        let all = |course: &Course| {
            let cells = course.values.iter().enumerate();
            cells.map(|(run, value)| vec![format!("#{}", run + 1), shown(course.figure, *value)]).collect()
        };
        let curve = |course: &Course| {
            let points = course.values.iter().enumerate();
            let points: Vec<(f64, f64)> =
                points.filter_map(|(run, value)| Some(((run + 1) as f64, (*value)?))).collect();
            let label = format!("{} of {}, run by run", course.figure, course.stage);
            let line = Line { name: course.figure.to_owned(), points };
            figure::lines(&label, ("run", course.figure), &[line])
        };
        let change = |course: &Course| match course.change {
            Some(_) => format!(", {} with the last run", course.change_words()),
            None => String::new(),
        };
        let courses = html! {
            @for course in self.courses.iter().filter(|course| course.varies()) {
                @let caption = format!("{} of {}{}", course.figure, visible(&course.stage), change(course));
                (figure_with_table(curve(course), &caption, &["run", course.figure], all(course)))
            }
        };
        let same = self.courses.iter().filter(|course| !course.varies());
        let same: Vec<Vec<String>> = same
            .map(|course| {
                let value = shown(course.figure, course.values.first().copied().flatten());
                vec![visible(&course.stage), course.figure.to_owned(), value]
            })
            .collect();
        let headings = self.headings();
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let shown = |row: Vec<String>| row.iter().map(|cell| visible(cell)).collect::<Vec<String>>();
        let gates: Vec<Vec<String>> = self.gates().into_iter().map(shown).collect();
        let mut sections = vec![Section { id: "runs", title: "Runs", content: runs }];
        if !gates.is_empty() {
            sections.push(Section { id: "gates", title: "Gates", content: table("Gates", &headings, gates) });
        }
        if same.len() < self.courses.len() {
            sections.push(Section { id: "figures", title: "Figures", content: courses });
        }
        if !same.is_empty() {
            let content = table("The same in every run", &["stage", "figure", "value"], same);
            sections.push(Section { id: "same", title: "The same in every run", content });
        }
        let heading = html! {
            h1 { (self.title()) }
            p { "Each figure of each stage, run by run, in the order in which the runs were named." }
            @for remark in self.remarks() { p { (visible(&remark)) } }
        };
        let title = self.title();
        Page { magic: HTML, title, heading, sections, footer: "slmc report, schema slmc.history/1".to_owned() }.render()
    }
}

fn rows_of(out: &mut String, headings: &[String], rows: Vec<Vec<String>>) {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    out.push_str(&line(headings.iter().map(|cell| inline(cell)).collect()));
    out.push_str(&line(headings.iter().map(|_| "---".to_owned()).collect()));
    for row in rows {
        out.push_str(&line(row.iter().map(|cell| inline(cell)).collect()));
    }
}

impl Course {
    /// Whether it is not the same in every run.
    fn varies(&self) -> bool {
        self.values.iter().any(|value| Some(value) != self.values.first())
    }

    /// Such as `−2.0 %`, with what it means.
    fn change_words(&self) -> String {
        let Some(change) = self.change else { return "-".to_owned() };
        let word = match self.better {
            Some(true) => " better",
            Some(false) => " worse",
            None => "",
        };
        if change == 0.0 { "same".to_owned() } else { format!("{:+.2} %{word}", 100.0 * change) }
    }
}

/// Counts with their thousands apart, shares in per cent, all else with four digits after the point.
fn shown(figure: &str, value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if figure.ends_with("_bytes") && value >= 0.0 => grouped(value as u64),
        Some(value) if figure == "seconds" => format!("{value:.1}"),
        Some(value) => format!("{value:.4}"),
    }
}

impl Report for HistoryReport {
    const SCHEMA: &'static str = "slmc.history/1";

    fn text(&self) -> String {
        let columns = [
            ("run", Align::Left),
            ("from", Align::Left),
            ("recipe", Align::Left),
            ("tool", Align::Left),
            ("", Align::Left),
        ];
        let mut runs = Table::new(columns);
        for row in self.run_rows() {
            runs.row(row);
        }
        let headings = self.headings();
        let align = |heading: &String| match heading.as_str() {
            "stage" | "figure" => Align::Left,
            _ => Align::Right,
        };
        let mut figures = Table::of(headings.iter().map(|heading| (heading.clone(), align(heading))).collect());
        for course in &self.courses {
            figures.row(self.cells(course));
        }
        for gate in self.gates() {
            figures.row(gate);
        }
        let remarks: String = self.remarks().iter().map(|remark| format!("\n{remark}\n")).collect();
        visible(&format!("{runs}\n{remarks}\n{figures}"))
    }
}
