//! What a person types: lines of stdin, and Ctrl-C while something is being written. In a terminal that is listened for by
//! taking the terminal out of its line mode for as long as an answer takes, so that Ctrl-C is a character that can be read
//! and not a signal that ends the program; what else is typed meanwhile is dropped. Between answers the terminal is as it
//! was, with its line editing, and Ctrl-C ends the program. Where stdin is not a terminal, Ctrl-C always does.

use super::Shell;
use std::io::{self, BufRead, IsTerminal};

/// The character that Ctrl-C types.
#[cfg(unix)]
const CONTROL_C: u8 = 3;

/// Stdin.
pub struct Input {
    terminal: bool,
    /// Lines read.
    lines: usize,
}

impl Input {
    /// The process's own.
    pub fn new() -> Self {
        Input { terminal: io::stdin().is_terminal(), lines: 0 }
    }

    /// Whether a person types it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The next line without its end, after a prompt where a person types it; `None` at the end.
    ///
    /// # Errors
    /// Stdin cannot be read, or the line is not UTF-8.
    pub fn line(&mut self, shell: &Shell, prompt: &str) -> io::Result<Option<String>> {
        if self.terminal {
            shell.prompt(prompt);
        }
        let mut bytes = Vec::new();
        let length = io::stdin().lock().read_until(b'\n', &mut bytes)?;
        self.lines += 1;
        if length == 0 {
            return Ok(None);
        }
        let line = String::from_utf8(bytes).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("stdin:{}: not UTF-8; send UTF-8 text", self.lines))
        })?;
        Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
    }

    /// Listens for Ctrl-C until the result is dropped.
    pub fn listen(&self) -> Listening {
        Listening::new(self.terminal)
    }
}

impl Default for Input {
    fn default() -> Self {
        Input::new()
    }
}

/// A terminal in which Ctrl-C is a character.
pub struct Listening {
    /// The terminal as it was, where there is one.
    #[cfg(unix)]
    before: Option<rustix::termios::Termios>,
}

#[cfg(unix)]
impl Listening {
    fn new(terminal: bool) -> Self {
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
        let before = terminal.then(|| tcgetattr(io::stdin()).ok()).flatten();
        let before = before.filter(|before| {
            let mut listening = before.clone();
            listening.local_modes -= LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO;
            // A read returns at once, with what has been typed or with nothing.
            listening.special_codes[SpecialCodeIndex::VMIN] = 0;
            listening.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(io::stdin(), OptionalActions::Now, &listening).is_ok()
        });
        Listening { before }
    }

    /// Whether Ctrl-C was typed since this was asked last.
    pub fn interrupted(&self) -> bool {
        let mut typed = [0u8; 64];
        let mut interrupted = false;
        while self.before.is_some() {
            match rustix::io::read(io::stdin(), &mut typed) {
                Ok(count) if count > 0 => interrupted |= typed[..count].contains(&CONTROL_C),
                _ => break,
            }
        }
        interrupted
    }
}

#[cfg(unix)]
impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nothing to do where the terminal is gone.
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}

#[cfg(not(unix))]
impl Listening {
    fn new(_terminal: bool) -> Self {
        Listening {}
    }

    /// Never: there Ctrl-C ends the program.
    pub fn interrupted(&self) -> bool {
        false
    }
}
