//! The command line: one file per subcommand, and the options that all of them share.

pub mod global;
