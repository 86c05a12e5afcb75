//! Random numbers and the choice of a token.

use std::format;
use std::vec::Vec;

use super::{Differences, floats, number, section};
use crate::numerics::{LOG2E_Q15, exp2_q24};
use crate::sample::{Sampling, choose, random_u64};

#[test]
fn random_numbers() {
    let cases = section("/ops/random_u64");
    let mut differences = Differences::default();
    for case in cases.as_array().expect("cases") {
        let (seed, index) = (case["seed"].as_u64().expect("a seed"), case["index"].as_u64().expect("an index"));
        // As text: not every JSON reader keeps 64 bits.
        let value = case["value"].as_str().expect("a value as text");
        differences.value(
            format!("seed {seed}, index {index}"),
            format!("{}", random_u64(seed, index)).as_str(),
            value,
        );
    }
    differences.none();
}

#[test]
fn choosing() {
    let operation = section("/ops/choose");
    let mut differences = Differences::default();
    let logits = floats(&operation["logits"]);
    for case in operation["cases"].as_array().expect("cases") {
        let fraction = |name: &str| case[name].as_f64().expect("a number");
        let sampling = Sampling {
            temperature: fraction("temperature") as f32,
            top_k: number(&case["top_k"]) as u32,
            top_p: (fraction("top_p") * 65_536.0).round() as u32,
        };
        let (seed, index) = (case["seed"].as_u64().expect("a seed"), case["index"].as_u64().expect("an index"));
        let token = choose(&logits, &sampling, seed, index);
        differences.value(case, token as usize, number(&case["token"]));
    }
    differences.none();
}

#[test]
fn equal_logits_go_to_the_lowest_id() {
    assert_eq!(choose(&[1.0, 3.0, 3.0, 2.0], &Sampling::GREEDY, 0, 0), 1);
}

/// The draws of the reference over logits of which the second and third are equal.
#[test]
fn top_k_keeps_ties() {
    let drawn = |top_k, top_p| -> Vec<u32> {
        let sampling = Sampling { temperature: 8.0, top_k, top_p };
        (0..24).map(|index| choose(&[5.0, 3.0, 3.0, 1.0], &sampling, 11, index)).collect()
    };
    let three = [0, 0, 1, 1, 0, 1, 0, 2, 0, 2, 0, 0, 2, 2, 2, 0, 1, 2, 2, 2, 0, 2, 2, 1];
    let four = [1, 0, 2, 1, 0, 1, 0, 2, 1, 3, 0, 0, 3, 3, 3, 0, 2, 3, 2, 2, 0, 3, 2, 1];
    assert_eq!(drawn(1, 65_536), [0; 24]);
    assert_eq!(drawn(2, 65_536), three);
    assert_eq!(drawn(3, 65_536), three);
    assert_eq!(drawn(4, 65_536), four);
    assert_eq!(drawn(0, 65_536), four);
    assert_eq!(drawn(0, 0), [0; 24]);
}

/// With tokens of weights 2^24 and 257, a share of 65535/65536 is 2^24 and a part of one: the second token is needed
/// too.
#[test]
fn the_share_of_top_p_is_rounded_up() {
    const DEPTH: u32 = 523_919;
    assert_eq!(exp2_q24(DEPTH), 257);
    // A factor of one: a logit's distance from the largest is its depth. The draw falls to the second token.
    let drawn = |top_p| {
        let sampling = Sampling { temperature: LOG2E_Q15 as f32, top_k: 0, top_p };
        choose(&[0.0, -(DEPTH as f32)], &sampling, 3, 39_220)
    };
    assert_eq!([drawn(65_536), drawn(65_535), drawn(65_534)], [1, 1, 0]);
}

#[test]
fn a_draw_of_zero_goes_to_the_first_token_that_weighs_anything() {
    let seed = 0u64.wrapping_sub(0x9E37_79B9_7F4A_7C15);
    assert_eq!(random_u64(seed, 0), 0);
    let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    assert_eq!(choose(&[-1e6, 0.0, 0.0], &sampling, seed, 0), 1);
}
