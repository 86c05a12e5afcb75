//! More rows than `vectors.json` has, for differences in the order of operations that show in only a few rows in a
//! hundred (a product with 1/127 or a quotient, two divisions or one). The digests are those of `reference.py`'s
//! functions, in numpy 2.4.6, over the inputs generated here; they need no file.

use std::vec::Vec;

use super::attention::attend;
use super::{generated, little_endian, sha256_hex};
use crate::numerics::{F32Bytes, LOG2E_Q15, layer_norm, quantize, rms_norm};

#[test]
fn many_rows_quantize_as_the_reference_does() {
    let mut bytes = Vec::new();
    for row in generated(901, 512 * 24, 20).chunks_exact(24) {
        let mut q = [0; 24];
        bytes.extend(quantize(row, &mut q).expect("small values").to_le_bytes());
        bytes.extend(q.map(|q| q as u8));
    }
    assert_eq!(sha256_hex(&bytes), "56e78411176bdd032114efab5def07eff2bc2b9ed2106e3cbe91e86eb549d7ec");
}

#[test]
fn many_rows_are_normed_as_the_reference_does() {
    let (mut rms, mut layer) = (Vec::new(), Vec::new());
    for width in [3, 24, 37, 100] {
        let (weight, bias) = (little_endian(&generated(903, width, 23)), little_endian(&generated(904, width, 23)));
        let (weight, bias) = (F32Bytes::new(&weight), F32Bytes::new(&bias));
        for row in generated(902, 300 * width, 20).chunks_exact(width) {
            let (mut x, mut y) = (row.to_vec(), row.to_vec());
            rms_norm(&mut x, weight, 1e-5).expect("small values");
            layer_norm(&mut y, weight, bias, 1e-5).expect("small values");
            rms.extend(little_endian(&x));
            layer.extend(little_endian(&y));
        }
    }
    assert_eq!(sha256_hex(&rms), "cd65dc60e5ac5956f4f90b690ae0af043504c2477210c79188378542b525a70e");
    assert_eq!(sha256_hex(&layer), "b806d0fa54dd7c292785498c33f8cb2d74c46f3d6e40fa1a0693eb78c89fdd78");
}

#[test]
fn many_queries_attend_as_the_reference_does() {
    let (q, k, v) = (generated(905, 400 * 16, 23), generated(906, 200 * 16, 23), generated(907, 200 * 16, 21));
    let y = attend(&q, &k, &v, 16, (LOG2E_Q15 * 0.25) as f32, false).expect("small values");
    assert_eq!(sha256_hex(&little_endian(&y)), "ebd4be6b6840e283c4c181319d8437bcdf88ad4d892b6a2fb737bc0673bd4408");
}
