//! Models in other formats: looked at, written as a directory, refused.

use super::harness::Transcript;
use crate::support::root;

#[test]
fn of_a_gguf_file() {
    let mut transcript = Transcript::new("import");
    let file = |name: &str| std::fs::read(root("tests/data/gguf").join(name)).expect("part of the repository");
    transcript.file("llama.gguf", file("llama-mha.gguf"));
    transcript.file("part-00001-of-00002.gguf", file("split-00001-of-00002.gguf"));
    transcript.run("inspect llama.gguf");
    transcript.run("estimate llama.gguf");
    transcript.run("import llama.gguf -o dense");
    transcript.run("import llama.gguf --dtype f16 -o dense -q");
    transcript.json("import llama.gguf --dtype bf16 -o dense", "slmc.import/1");
    transcript.note("what is not there, or not read");
    let mut cut = file("llama-mha.gguf");
    cut.truncate(4000);
    transcript.file("cut.gguf", cut);
    transcript.file("model.onnx", [8, 10, 18, 7]);
    transcript.file("pytorch_model.bin", b"PK\x03\x04");
    transcript.file("empty.gguf", "");
    for line in [
        "import part-00001-of-00002.gguf -o out",
        "import cut.gguf -o out",
        "import empty.gguf -o out",
        "import model.onnx -o out",
        "import pytorch_model.bin -o out",
        "import nowhere.gguf -o out",
        "import llama.gguf --max-ram 1MiB -o out",
        "import llama.gguf --dtype int8 -o out",
        "import llama.gguf --tokenizer dense -o out",
        "generate llama.gguf --prompt a",
        "compile llama.gguf --target generic -o out.slm",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    assert!(!transcript.path("out").exists(), "a refused command wrote something");
}
