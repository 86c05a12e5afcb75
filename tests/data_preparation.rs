//! `slmc data` and `slmc tokenizer trim` as commands and in a recipe: the same bytes for any number of threads, duplicates that
//! never cross the split, files larger than what is held, hostile files, and models whose rows are those of their tokens.

use crate::fixture::{Family, Size, write};
use crate::support::{json_with_code, one_line, root, run, states, stderr, succeed};
use serde_json::{Value, json};
use slmc::formats::open_model;
use slmc::model::id::{LinearId, ParameterId, Part, Role};
use slmc::text::tokenizer::Tokenizer;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("it can be read");
    text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

fn texts(path: &Path) -> Vec<String> {
    rows(path).iter().map(|row| row["text"].as_str().expect("a text").to_owned()).collect()
}

/// A story of its own words, and the same with a word changed.
fn story(number: usize, changed: bool) -> String {
    let word = |place: usize| format!("w{}x{}", number, (number * 7 + place * place) % 1000);
    let mut words: Vec<String> = (0..60).map(word).collect();
    if changed {
        words[59] = "other".to_owned();
    }
    words.join(" ")
}

/// 200 stories, every fifth of them a second time with another word, as a file of text; a file of rows with classes.
fn corpus(directory: &Path) {
    let mut stories: Vec<String> = (0..200).map(|number| story(number, false)).collect();
    stories.extend((0..200).step_by(5).map(|number| story(number, true)));
    stories.push(story(3, false).replace(' ', "  "));
    fs::write(directory.join("stories.txt"), stories.join("\n")).expect("written");
    let row = |n: usize| {
        let label = if n.is_multiple_of(10) { "rare" } else { "common" };
        json!({"text": format!("write to me{n}@example.org about {}", story(500 + n, false)), "label": label, "n": n})
    };
    let rows: String = (0..100).map(|n| format!("{}\n", row(n))).collect();
    fs::write(directory.join("rows.jsonl"), rows).expect("written");
    fs::write(directory.join("tags.toml"), "[first]\nwords = ['w500x500']\n[mail]\npatterns = ['<EMAIL>']\n")
        .expect("written");
}

const ALL: &str =
    "data --data rows.jsonl stories.txt --rules none --min-words 5 --scrub all --tags tags.toml --held-out 0.1";

#[test]
fn data_are_prepared_with_the_same_bytes_for_any_number_of_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    corpus(path);
    let report = one_line(&run(path, &format!("{ALL} -o a --json --threads 1")));
    for threads in [2, 5] {
        let again = one_line(&run(path, &format!("{ALL} -o b --json --threads {threads}")));
        for part in ["read", "kept", "held_out", "rules", "scrubbed", "tags"] {
            assert_eq!(report[part], again[part], "{part} with {threads} threads");
        }
        for file in ["data.jsonl", "held-out.jsonl", "slmc.json"] {
            let read = |of: &str| fs::read(path.join(of).join(file)).expect(file);
            assert!(read("a") == read("b"), "{file} with {threads} threads");
        }
    }
    assert_eq!(report["read"]["texts"], 341);
    let taken = |rule: &str| {
        let rules = report["rules"].as_array().expect("rules").iter();
        rules.filter(|own| own["rule"] == rule).map(|own| own["texts"].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!((taken("exact duplicate"), taken("near duplicate")), (1, 40));
    assert_eq!(report["held_out"]["texts"], 30);
    assert_eq!(report["kept"]["texts"], 270);
    assert_eq!(report["scrubbed"][0], json!({"name": "email", "count": 100}));
    let example = &report["rules"][0]["examples"][0];
    assert_eq!((example["file"].as_str(), example["line"].as_u64()), (Some("stories.txt"), Some(201)));
    let rows = rows(&path.join("a/data.jsonl"));
    let first = rows.iter().find(|row| row["label"] == "common").expect("its row");
    assert!(first["text"].as_str().is_some_and(|text| text.starts_with("write to <EMAIL> about w5")), "{first}");
    assert_eq!((first["label"].as_str(), &first["tags"]), (Some("common"), &json!(["mail"])));
    // Another seed holds out others.
    succeed(path, &format!("{ALL} -o c -q --seed 1"));
    assert_ne!(texts(&path.join("a/held-out.jsonl")), texts(&path.join("c/held-out.jsonl")));
    let shown = String::from_utf8(run(path, &format!("{ALL} -o b")).stdout).expect("UTF-8");
    for part in ["- near duplicate", "held out", "taken out by", "stories.txt:201", "email"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn planted_duplicates_never_cross_the_split() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    corpus(path);
    for seed in 0..4 {
        let line =
            format!("data --data stories.txt --rules none --keep-duplicates --held-out 0.3 --seed {seed} -q -o s");
        succeed(path, &line);
        let (kept, held) = (texts(&path.join("s/data.jsonl")), texts(&path.join("s/held-out.jsonl")));
        assert_eq!(kept.len() + held.len(), 241);
        let stem = |text: &String| text.split('x').next().unwrap_or_default().to_owned();
        let kept: BTreeSet<String> = kept.iter().map(stem).collect();
        let held: BTreeSet<String> = held.iter().map(stem).collect();
        assert_eq!(kept.intersection(&held).count(), 0, "seed {seed}");
        assert!((50..=75).contains(&held.len()), "{}", held.len());
    }
}

#[test]
fn weights_and_balance_choose_how_often_texts_are_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    corpus(path);
    let count = |line: &str| {
        succeed(path, &format!("data --rules none -q -o w {line}"));
        let rows = rows(&path.join("w/data.jsonl"));
        let of = |label: &str| rows.iter().filter(|row| row["label"] == label).count();
        (of("rare"), of("common"), rows.len())
    };
    assert_eq!(count("--data rows.jsonl --balance label"), (10, 10, 20));
    assert_eq!(count("--data rows.jsonl --balance label --weights label:rare=3"), (30, 10, 40));
    let (rare, common, all) = count("--data rows.jsonl stories.txt --file-weights 0.5 2");
    assert_eq!((rare + common, all), (50, 50 + 400));
    let refused = [
        (
            "--data rows.jsonl --balance class",
            "no text has the field `class`, which --balance names; fields that rows have: label, n",
        ),
        ("--data rows.jsonl --weights label:odd=2", "no text has `label` = `odd`"),
        ("--data rows.jsonl --weights label=2", "expected FIELD:VALUE=WEIGHT"),
        ("--data rows.jsonl stories.txt --file-weights 2", "--file-weights gives 1 and --data 2 files"),
        ("--data rows.jsonl --min-words 900 --rules gopher", "none of 100 texts is left: 100 by min-words"),
        ("--data rows.jsonl --weights label:rare=0 label:common=0", "none of 100 texts is left: 100 by weights"),
        ("--data rows.jsonl --similarity 0", "--similarity is 0"),
        ("--data rows.jsonl --scrub names", "known: email, phone, card, iban, ip, and all"),
        ("--data rows.jsonl --max-words=-1", "--max-words is -1"),
        ("--data rows.jsonl --tags rows.jsonl", "cannot be used for --tags"),
    ];
    for (line, expected) in refused {
        let output = run(
            path,
            &format!(
                "data -o n {}",
                if line.contains("--rules") { line.to_owned() } else { format!("--rules none {line}") }
            ),
        );
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains(expected), "{line}: {}", stderr(&output));
        assert!(!path.join("n").exists(), "{line}");
    }
}

#[test]
fn hostile_files_are_refused_and_leave_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("latin.txt", b"fine\ncaf\xE9 au lait\n".to_vec(), "latin.txt:2: not UTF-8"),
        ("zeros.txt", [b"a line of text\n".repeat(9), vec![0; 40]].concat(), "zeros.txt:10: holds zero bytes"),
        ("empty.txt", Vec::new(), "empty.txt holds no text"),
        ("blank.jsonl", b"{\"text\": \" \"}\n".to_vec(), "blank.jsonl holds no text"),
        (
            "half.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": \"b\n".to_vec(),
            "half.jsonl:2: expected one JSON object per line",
        ),
        ("table.csv", b"a,b\n1,2\n".to_vec(), "a table of separated values"),
    ];
    for (name, content, expected) in cases {
        fs::write(path.join(name), content).expect("written");
        let output = run(path, &format!("data --data {name} --rules none -o out"));
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(stderr(&output).contains(expected), "{name}: {}", stderr(&output));
    }
    let left: Vec<_> = fs::read_dir(path).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 6, "{left:?}");
    fs::write(path.join("mark.txt"), b"\xEF\xBB\xBFone line\r\nand two\r\n").expect("written");
    let report = one_line(&run(path, "data --data mark.txt --rules none -o out --json"));
    assert_eq!((&report["kept"]["texts"], &report["files_read"][0]["crlf"]), (&json!(2), &json!(true)));
    assert_eq!(texts(&path.join("out/data.jsonl")), ["one line", "and two"]);
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_follow_the_length_of_the_texts() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    // 96 MB in 1,200 texts of 80 kB.
    let text: String =
        (0..1200).map(|n| format!("{}\n", format!("unit{n} of text {} ", n * n).repeat(80_000 / 22))).collect();
    fs::write(path.join("long.txt"), &text).expect("written");
    let length = text.len() as u64;
    drop(text);
    let report = one_line(&run(path, "data --data long.txt --rules none -o out --json --threads 2"));
    let peak = report["peak_memory_bytes"].as_u64().expect("Linux says it");
    assert!(length > 90_000_000 && peak < 80_000_000, "{peak} bytes for a file of {length}");
    assert_eq!(report["bytes_per_text"], 620);
}

#[test]
fn texts_are_scored_by_a_model_and_others_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    write(&path.join("m"), Family::TiedLlama, Size::SMALL);
    write(&path.join("bert"), Family::Bert, Size::SMALL);
    let lines: String =
        (0..40).map(|n| format!("{}\n", ["the fox ran over hill ", "a bird sang "][n % 2].repeat(2 + n))).collect();
    fs::write(path.join("a.txt"), lines).expect("written");
    let line =
        "data --data a.txt --rules none --similarity 1 --quality-model m --drop-worst 0.1 --drop-best 0.2 --json";
    let report = one_line(&run(path, &format!("{line} -o out --threads 1")));
    let again = one_line(&run(path, &format!("{line} -o other --threads 3")));
    assert_eq!(report["rules"], again["rules"]);
    let rules: Vec<(Option<&str>, Option<u64>)> = report["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| (rule["rule"].as_str(), rule["texts"].as_u64()))
        .collect();
    assert_eq!(rules, [(Some("drop-best"), Some(8)), (Some("drop-worst"), Some(4))]);
    let output = run(path, "data --data a.txt --rules none --quality-model bert -o no");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("bert: gives hidden states, and --quality-model needs a language model"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_trimmed_model_has_the_rows_of_its_tokens() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::write(path.join("text.txt"), "the fox ran to the hill.\n").expect("written");
    for family in Family::ALL {
        write(&path.join("m"), family, Size::SMALL);
        let line = "tokenizer trim m --data text.txt --characters used -o t --json";
        let report = one_line(&run(path, line));
        let (before, after) =
            (open_model(&path.join("m")).expect("opens"), open_model(&path.join("t")).expect("opens"));
        let kept: Value =
            serde_json::from_slice(&fs::read(path.join("t/trimmed_ids.json")).expect("read")).expect("JSON");
        let ids: Vec<usize> =
            kept["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as usize).collect();
        assert!(ids.len() < before.spec.vocabulary && after.spec.vocabulary == ids.len(), "{}", family.name());
        assert_eq!(report["vocabulary_after"], ids.len());
        let mut tables = 0;
        for (role, part) in
            [(Role::TokenEmbedding, Part::Weight), (Role::LmHead, Part::Weight), (Role::LmHead, Part::Bias)]
        {
            let id = ParameterId::Linear(LinearId::global(role), part);
            let (Ok(old), Ok(new)) = (before.values_f32(id), after.values_f32(id)) else { continue };
            let width = old.len() / before.spec.vocabulary;
            let expected: Vec<f32> = ids.iter().flat_map(|id| old[id * width..(id + 1) * width].to_vec()).collect();
            assert!(new == expected, "{}: {id}", family.name());
            tables += 1;
        }
        let expected = match family {
            Family::Llama | Family::BertMlm => 2,
            Family::TiedLlama | Family::Bert | Family::BertClassifier => 1,
        };
        assert_eq!(tables, expected, "{}", family.name());
        let (old, new) =
            (Tokenizer::of(&before.companions).expect("opens"), Tokenizer::of(&after.companions).expect("opens"));
        let (old, new) = (old.encode_with_specials("the hill ran"), new.encode_with_specials("the hill ran"));
        let mapped: Vec<usize> = new.expect("encodes").into_iter().map(|id| ids[id as usize]).collect();
        assert_eq!(mapped, old.expect("encodes").into_iter().map(|id| id as usize).collect::<Vec<_>>());
        // Another model of the same tokenizer, with the same tokens.
        succeed(path, "trim m --like t -q -o like");
        let read = |of: &str, file: &str| fs::read(path.join(of).join(file)).expect(file);
        for file in ["model.safetensors", "tokenizer.json", "config.json", "trimmed_ids.json"] {
            assert!(read("t", file) == read("like", file), "{file}");
        }
    }
    let refused = [
        ("trim m --data text.txt --vocabulary 3 -o x", "a vocabulary of 3 is too small"),
        ("trim m --data text.txt --coverage 2 -o x", "`2` is not a share"),
        ("trim m --data text.txt --coverage 0.9 --vocabulary 40 -o x", "cannot be used with"),
        ("trim m -o x", "--data <FILE>..."),
        ("trim t --like t -o x", "made of another tokenizer"),
        ("trim t --like m -o x", "trimmed_ids.json"),
        ("trim m --data none.txt -o x", "cannot read none.txt"),
    ];
    for (line, expected) in refused {
        let output = run(path, line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains(expected), "{line}: {}", stderr(&output));
    }
    write(&path.join("m"), Family::TiedLlama, Size::SMALL);
    succeed(path, "quantize m --scheme w8 --method rtn -q -o q");
    let output = run(path, "trim q --data text.txt -o x");
    assert!(stderr(&output).contains("is quantized; trim the dense model"), "{}", stderr(&output));
}

#[test]
fn the_recipe_prepares_data_for_its_other_stages() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let recipe = root("recipes/prepared.toml");
    // With a value over the recipe's own, no lock is kept beside it.
    let line = format!("run {} --set stages.tuned.tokens=4096", recipe.display());
    let report = json_with_code(path, &line, 0);
    assert_eq!(states(&report), ["done"; 4]);
    let clean = path.join("out/prepared/clean");
    let (kept, held) = (texts(&clean.join("data.jsonl")), texts(&clean.join("held-out.jsonl")));
    assert!(kept.len() > 400 && held.len() > 20, "{} and {}", kept.len(), held.len());
    assert!(held.iter().all(|text| !kept.contains(text)));
    assert_eq!(states(&json_with_code(path, &line, 0)), ["cached"; 4]);
    // What is trained on changes with the data; another file of the same stage is another input.
    let other = format!("{line} --set stages.clean.held_out=0.1");
    assert_eq!(states(&json_with_code(path, &other, 0)), ["done"; 4]);
    let other = format!("{line} --set stages.quality.data=clean/data.jsonl");
    assert_eq!(states(&json_with_code(path, &other, 0))[3], "done");
    let wrong = run(path, &format!("run {} --set stages.quality.data=clean/none.jsonl", recipe.display()));
    let expected = "stage `clean` (data) makes no file `none.jsonl` that others read";
    assert!(stderr(&wrong).contains(expected), "{}", stderr(&wrong));
    assert!(stderr(&wrong).contains("it makes data.jsonl and held-out.jsonl"), "{}", stderr(&wrong));
}
