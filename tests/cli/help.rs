//! The help of every subcommand, in a file of its own.

use super::harness::Transcript;

#[test]
fn of_the_program_and_of_every_subcommand() {
    let mut program = Transcript::new("help");
    let help = program.run("--help");
    let short = program.silent("-V");
    assert_eq!(String::from_utf8_lossy(&short.stdout), concat!("slmc ", env!("CARGO_PKG_VERSION"), "\n"));
    let version = String::from_utf8(program.silent("--version").stdout).expect("it is UTF-8");
    assert!(version.starts_with(concat!("slmc ", env!("CARGO_PKG_VERSION"), "\nformat    1.1 to 1.")), "{version}");
    for key in ["features  ", "numerics  portable; ", "build     "] {
        assert!(version.lines().any(|line| line.starts_with(key) && line.len() > key.len()), "no {key} in {version}");
    }
    let text = String::from_utf8(help.stdout).expect("help is UTF-8");
    let commands = text.split("Commands:\n").nth(1).expect("it lists its commands");
    // A long description goes on in a line of its own, further in.
    let lines = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = lines.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        Transcript::new(format!("help-{name}")).run(&format!("{name} --help"));
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let mut transcript = Transcript::new("usage");
    assert_eq!(transcript.silent("").status.code(), Some(2));
    for line in [
        "quantise",
        "quantize",
        "quantize model --scheme w5 -o out",
        "quantize model --scheme w8 --keep embedding -o out",
        "compile model -o a.slm",
        "compile model --target generic --context many -o a.slm",
        "generate a.slm --temperature -1",
        "generate a.slm --top-p 0",
        "eval a.slm --data text --task perplexity",
        "inspect a.slm --threads 0",
        "inspect a.slm --quiet --verbose",
        "estimate model --max-ram 0",
        "doctor --max-ram 1GiB",
        "targets --frobnicate",
        "worker --listen 0",
    ] {
        let output = transcript.run(line);
        assert_eq!(output.status.code(), Some(2), "slmc {line}");
        assert!(output.stdout.is_empty(), "slmc {line} printed to stdout");
    }
}
