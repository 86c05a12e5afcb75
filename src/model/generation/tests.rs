//! generation_config.json as transformers means it, what is not followed, and files that cannot be.

use super::*;
use std::path::Path;

fn of(config: Value) -> Result<Generation, ConfigError> {
    let mut companions = Companions::of(Path::new("m"));
    companions.add_bytes(GENERATION_CONFIG_FILE, config.to_string().into_bytes());
    read(&companions)
}

#[test]
fn settings_mean_what_they_mean_in_transformers() {
    let draws = Sampling { temperature: 1.0, top_k: 50, ..Sampling::GREEDY };
    for (config, expected) in [
        (json!({}), Sampling::GREEDY),
        // Whatever the temperature: nothing is drawn.
        (json!({"do_sample": false, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.1}), Sampling::GREEDY),
        (json!({"temperature": 0.6}), Sampling::GREEDY),
        (json!({"do_sample": null, "temperature": 0.6}), Sampling::GREEDY),
        (json!({"do_sample": true}), draws),
        (json!({"do_sample": true, "temperature": null, "top_k": null, "top_p": null, "min_p": null}), draws),
        (json!({"do_sample": true, "top_k": 0, "top_p": 1.0}), Sampling { top_k: 0, ..draws }),
        (
            json!({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05}),
            Sampling { temperature: 0.6, top_k: 20, top_p: 62_259, min_p: 3_277, ..Sampling::GREEDY },
        ),
        // The likeliest token is within every share.
        (json!({"do_sample": true, "top_p": 0}), Sampling { top_p: 1, ..draws }),
        (json!({"do_sample": true, "temperature": 0.0, "top_k": 7}), Sampling::GREEDY),
        (json!({"repetition_penalty": 1.1}), Sampling { repetition_penalty: 1.1, ..Sampling::GREEDY }),
        (json!({"do_sample": true, "repetition_penalty": 1.05}), Sampling { repetition_penalty: 1.05, ..draws }),
    ] {
        let found = of(config.clone()).unwrap_or_else(|error| panic!("{config}: {error}"));
        assert_eq!(found.sampling, expected, "{config}");
        assert!(found.sampling.is_valid() && found.notes.is_empty(), "{config}");
    }
    assert_eq!(read(&Companions::of(Path::new("m"))).expect("no file").sampling, Sampling::GREEDY);
}

#[test]
fn what_is_not_followed_is_named() {
    let named =
        |config: Value| -> Vec<String> { of(config).expect("sound").notes.iter().map(ToString::to_string).collect() };
    let said =
        named(json!({"num_beams": 4, "no_repeat_ngram_size": 3, "suppress_tokens": [1, 2], "stop_strings": ["."]}));
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(
        said[0].starts_with("m/generation_config.json: `num_beams` is 4; slmc does not choose tokens by it"),
        "{said:?}"
    );
    assert!(said[2].contains("`suppress_tokens` is [1,2]"), "{said:?}");
    // Values that change nothing, and settings that only count where tokens are drawn.
    let neutral = json!({"num_beams": 1, "no_repeat_ngram_size": 0, "suppress_tokens": [], "typical_p": 0.9,
        "eta_cutoff": 0.1, "guidance_scale": null, "bad_words_ids": null, "max_length": 20, "length_penalty": 2.0});
    assert_eq!(named(neutral), [""; 0]);
    assert_eq!(named(json!({"do_sample": true, "typical_p": 0.9, "eta_cutoff": 0.0})).len(), 1);
}

#[test]
fn values_that_cannot_be_are_refused_by_key() {
    for (key, value, expected) in [
        ("do_sample", json!("yes"), "`do_sample` is \"yes\", expected true or false"),
        ("temperature", json!("hot"), "`temperature` is \"hot\", expected a number, 0, or 0.001 to 1000"),
        ("temperature", json!(-1.0), "`temperature` is -1.0"),
        ("temperature", json!(1e-5), "`temperature` is 0.00001"),
        ("temperature", json!(1e300), "`temperature` is 1e+300"),
        ("top_k", json!(-5), "`top_k` is -5, expected an integer of at least 0"),
        ("top_k", json!(1.5), "`top_k` is 1.5"),
        ("top_k", json!(5_000_000_000u64), "`top_k` is 5000000000"),
        ("top_p", json!(1.5), "`top_p` is 1.5, expected a number, 0 to 1"),
        ("min_p", json!([0.1]), "`min_p` is [0.1]"),
        ("repetition_penalty", json!(0), "`repetition_penalty` is 0, expected a number, 0.01 to 100"),
        ("repetition_penalty", json!(1e9), "`repetition_penalty` is 1000000000.0"),
    ] {
        let error = of(json!({key: value})).expect_err(expected).to_string();
        assert!(error.starts_with("m/generation_config.json: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_choice_is_said_in_words_and_numbers() {
    let words = |sampling| sampling_words(&sampling);
    assert_eq!(words(Sampling::GREEDY), "the likeliest token");
    let all = Sampling { temperature: 0.7, top_k: 40, top_p: 62_259, min_p: 3_277, repetition_penalty: 1.1 };
    assert_eq!(words(all), "temperature 0.7, top-k 40, top-p 0.95, min-p 0.05, repetition penalty 1.1");
    assert_eq!(
        words(Sampling { repetition_penalty: 1.1, ..Sampling::GREEDY }),
        "the likeliest token, repetition penalty 1.1"
    );
    let expected =
        json!({"temperature": 0.7, "top_k": 40, "top_p": 0.949997, "min_p": 0.050003, "repetition_penalty": 1.1});
    assert_eq!(sampling_json(&all), expected);
}
