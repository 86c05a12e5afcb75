//! A recipe (docs/recipes.md): `slmc run RECIPE --plan` makes a plan or lists mistakes. Runs in an empty directory, and
//! leaves out texts that could name a file outside of it.

#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use slmc::cli::Cli;

fuzz_target!(
    init: std::env::set_current_dir(slmc_fuzz::directory()).expect("the directory is there"),
    |text: &str| {
        if text.contains('/') || text.contains("..") || text.contains('\\') {
            return;
        }
        slmc_fuzz::put(slmc_fuzz::directory(), "recipe.toml", text.as_bytes());
        let _ = Cli::try_parse_from(["slmc", "-q", "run", "recipe.toml", "--plan"]).expect("it parses").run();
    }
);
