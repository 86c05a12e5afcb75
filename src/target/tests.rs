//! Target files: the embedded ones, and the messages about mistakes.

use super::*;
use crate::model::id::Role;
use crate::model::scheme::SCHEMES;
use slm_runtime::kernels::VectorStorage;

const MINIMAL: &str = "name = 'x'\ndescription = 'y'\nlayout = 'r8k4.2c.d16.g32'\npage_bytes = 4096\n";

fn message(text: &str) -> String {
    let error = Target::parse("x.toml", text).expect_err(text);
    let source = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
    format!("{error}{source}")
}

#[test]
fn every_embedded_target_parses_and_names_its_file_and_sources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut expected: Vec<String> = Target::names().map(|name| format!("{name}.toml")).collect();
    expected.sort();
    assert_eq!(files, expected);
    for (target, name) in Target::all().expect("all parse").iter().zip(Target::names()) {
        assert_eq!(target.name, name);
        for number in target.numbers() {
            assert!(target.sources.contains_key(number), "{name}: {number} has no source");
        }
        let again = Target::parse(name, &toml::to_string(target).expect("serialises")).expect("parses");
        assert_eq!(&again, target);
    }
    let generic = Target::named("generic").expect("embedded");
    assert_eq!((generic.flash_bytes, generic.ram_bytes, generic.usable_ram_bytes()), (None, None, None));
}

#[test]
fn layouts_are_those_of_the_kernels() {
    let layouts: Vec<Layout> = Target::all().expect("all parse").iter().map(|target| target.layout).collect();
    let off8 = Layout::R8K4Offset8;
    assert_eq!(layouts, [off8, off8, Layout::R8K4, Layout::R4K4, Layout::R4K16, off8, Layout::R8K4]);
}

/// A target with an instruction set of its own runs the schemes that its kernels multiply, and refuses the rest by name; one without
/// runs every scheme, some on the portable kernels.
#[test]
fn targets_list_the_schemes_of_their_kernels() {
    for target in Target::all().expect("all parse") {
        let limited = target.isa.is_some() || target.required.is_some();
        for def in &SCHEMES {
            let assignment = Assignment::from([(LinearId::layer(1, Role::Up), def.scheme)]);
            let runs = target.check_schemes(&assignment);
            let in_kernels = VectorStorage::of(def.storage).is_some();
            assert_eq!(runs.is_ok(), !limited || in_kernels, "{} and {}", target.name, def.name);
            if let Err(refused) = runs {
                let expected = format!(
                    "target {} does not run {}, the scheme of `layers.1.ffn.up`; quantize it to w8 or w4.g32",
                    target.name, def.name
                );
                assert_eq!(refused.to_string(), expected);
            }
        }
    }
}

#[test]
fn mistakes_are_named_with_their_line() {
    let cases = [
        (
            "flash_byte = 1",
            "x.toml is not a target file: line 5: unknown key `flash_byte`; did you mean `flash_bytes`?",
        ),
        ("ram_bytes = 0", "line 5: 0 is not a positive number; leave the key out"),
        ("clock_hz = -3", "line 5: -3 is not a positive number"),
        ("[macs_per_cycle]\nw8 = 0.0", "line 6: 0 is not a positive number"),
        ("[max]\ncontexts = 3", "line 6: unknown key `contexts`; did you mean `context`?"),
        ("[required]\nschemes = ['w5']", "line 6: unknown scheme `w5`; known: w8, w4.g32 (or w4)"),
        ("[required]\nschemes = []", "line 6: an empty list allows no scheme"),
        ("[required]\nschemes = ['w8:64+w4']", "line 6: `w8:64+w4` is two schemes; a device that runs w8 and w4.g32"),
        ("[required]\nsparsity = '4:2'", "`required.sparsity` is `4:2`; expected 2:4, the one pattern"),
        ("[required]\nsparsity = '4:8'", "`required.sparsity` is `4:8`; expected 2:4, the one pattern"),
        ("ram_reserved_bytes = 5", "`ram_reserved_bytes` is 5; expected less than `ram_bytes`"),
        ("[sources]\nclock_hz = 'z'", "`sources.clock_hz` is the source of nothing; expected the source of a number"),
    ];
    for (extra, expected) in cases {
        let found = message(&format!("{MINIMAL}{extra}"));
        assert!(found.contains(expected), "{found}");
    }
    let page = message(&MINIMAL.replace("4096", "48"));
    assert!(page.contains("`page_bytes` is 48; expected a power of two"), "{page}");
    let layout = message(&MINIMAL.replace("r8k4.2c", "r9k4.2c"));
    assert!(layout.contains("line 3: unknown layout `r9k4.2c.d16.g32`; known: r8k4.off8.d16.g32"), "{layout}");
}

#[test]
fn names_and_paths_are_told_apart() {
    let unknown = Target::named("cortex-m5").expect_err("unknown").to_string();
    assert!(
        unknown.contains("did you mean `cortex-m4`?") && unknown.contains("known: generic, x86-64-v3"),
        "{unknown}"
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("board.toml");
    std::fs::write(&path, format!("{MINIMAL}ram_bytes = 4096\nram_reserved_bytes = 96\n")).expect("writes");
    let target = Target::named(&path.display().to_string()).expect("parses");
    assert_eq!(target.usable_ram_bytes(), Some(4000));
    assert!(matches!(Target::named("nowhere/board"), Err(TargetError::Read { .. })));
}
