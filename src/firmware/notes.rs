//! README.md of a folder, from its template: what is there, and the commands that build and run it. Commands are the indented lines;
//! a test takes those below a heading and runs them word for word.

use super::machine::Board;
use super::{Content, FirmwareError, headers, runtime};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};

const TEMPLATE: &str = include_str!("folder/README.md");

/// The notes of a folder.
///
/// # Errors
/// A template that does not render: a defect of slmc.
pub(super) fn notes(
    content: &Content<'_>,
    board: Option<Board>,
    object: Option<&str>,
    needed: &[String],
) -> Result<String, FirmwareError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.map_err(FirmwareError::Notes)?);
    let values = context! {
        target => &content.target.name,
        triple => &content.target.triple,
        board => board.map(|board| context! { name => board.name, core => board.core, triple => board.triple }),
        object => object,
        features => needed.join(", "),
        further => runtime::further(needed)?.join(", "),
        prompt => headers::prompt(content),
        decoder => headers::continues(content.view),
        asks => headers::asks(content),
        version => env!("CARGO_PKG_VERSION"),
    };
    environment.render_str(TEMPLATE, values).map_err(FirmwareError::Notes)
}
