//! Models written for other tools: what becomes of them, what is refused.

use super::harness::Transcript;
use crate::fixture::{self, Family, Size};

#[test]
fn of_a_quantized_model() {
    let mut transcript = Transcript::new("export");
    // Whole blocks of 32 columns, which files of llama.cpp are made of.
    let size = Size { hidden: 64, ffn: 96, ..Size::SMALL };
    fixture::write(&transcript.path("model"), Family::TiedLlama, size);
    transcript.silent("quantize model --scheme mixed --method rtn --exact-f16 -q -o mixed");
    transcript.run("export mixed --format gguf -o mixed.gguf");
    transcript.run("export mixed --format compressed-tensors --dtype f32 -o packed -q");
    transcript.run("export mixed --format safetensors --dtype bf16 -o dense -q");
    transcript.json("export mixed --format gguf -o mixed.gguf", "slmc.export/1");
    transcript.note("what is refused");
    transcript.silent("quantize model --scheme w8 --method rtn --activations '*=a16' -q -o wide");
    transcript.file("notes.gguf", "GGUF, my notes");
    for line in [
        "export wide --format gguf -o out.gguf",
        "export model --format compressed-tensors -o out",
        "export mixed --format onyx -o out",
        "export mixed --format gguf --variant inputs -o out",
        "export mixed --format gguf -o notes.gguf",
        "export mixed --format safetensors -o model",
        "export mixed --format safetensors -o mixed",
        "export mixed --format gguf --max-ram 1MiB -o out",
        "export nowhere --format gguf -o out",
    ] {
        assert_eq!(transcript.run(line).status.code(), Some(2), "slmc {line}");
    }
    assert!(
        !transcript.path("out").exists() && !transcript.path("out.gguf").exists(),
        "a refused command wrote something"
    );
    transcript.run("export wide --format gguf --lossy -o wide.gguf -q");
}
