use super::*;
use slm_runtime::sample::random_u64;

fn values(stream: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}

/// One chain of fused multiply-adds in the order of k.
fn chain(start: f32, terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    terms.fold(start, |sum, (a, b)| a.mul_add(b, sum))
}

/// Every layout of both operands, written and added, against the chain.
fn check([m, k, n]: [usize; 3], threads: usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (a, b) = (values(1, m * k), values(2, k * n));
    let transposed = |values: &[f32], columns: usize| -> Vec<f32> {
        let rows = values.len() / columns;
        (0..values.len()).map(|index| values[index % rows * columns + index / rows]).collect()
    };
    let (a_t, b_t) = (transposed(&a, k), transposed(&b, n));
    let lefts = [Left::Rows(Matrix::new(&a, k)), Left::Columns(Matrix::new(&a_t, m))];
    let rights = [Right::Rows(Matrix::new(&b, n)), Right::Columns(Matrix::new(&b_t, k))];
    let (stride, first) = (n + 7, 3);
    let before = values(3, m * stride);
    for (left, right, add) in
        lefts.iter().flat_map(|l| rights.iter().flat_map(move |r| [(*l, *r, false), (*l, *r, true)]))
    {
        let mut out = before.clone();
        let output = Output { values: &mut out, stride, first, add };
        pool.install(|| multiply(output, left, right));
        let mut packed_out = before.clone();
        let mut memory = vec![0.0; Panels::floats(right)];
        let panels = Panels::new(right, &mut memory);
        let mut tiles = vec![0.0; tile_floats(m, k)];
        multiply_packed(Output { values: &mut packed_out, stride, first, add }, left, panels, &mut tiles);
        for (index, (out, packed)) in out.iter().zip(&packed_out).enumerate() {
            let (row, column) = (index / stride, (index % stride).wrapping_sub(first));
            let expected = if column < n {
                let start = if add { before[index] } else { 0.0 };
                chain(start, (0..k).map(|at| (a[row * k + at], b[at * n + column])))
            } else {
                before[index]
            };
            assert_eq!([out, packed], [&expected; 2], "{m}×{k}×{n}, {threads} threads, add {add}: ({row}, {column})");
        }
    }
}

#[test]
fn every_layout_is_the_chain_bit_for_bit() {
    let shapes = [
        [1, 1, 1],
        [1, 7, 33],
        [3, 5, 16],
        [4, 64, 48],
        [12, 32, 32],
        [13, 31, 31],
        [25, 513, 65],
        [64, 48, 100],
        [31, 1030, 17],
        [200, 40, 1060],
    ];
    for shape in shapes {
        check(shape, 1);
    }
    for threads in [2, 3] {
        check([61, 130, 97], threads);
        check([401, 1030, 40], threads);
    }
}

#[test]
fn narrower_vectors_change_no_bit() {
    let [m, k, n] = [27, 200, 77];
    let (a, b) = (values(1, m * k), values(2, k * n));
    let left = Left::Columns(Matrix::new(&a, m));
    let mut memory = vec![0.0; Panels::floats(Right::Rows(Matrix::new(&b, n)))];
    let packed = Panels::new(Right::Rows(Matrix::new(&b, n)), &mut memory);
    let run = |compute: &dyn Fn(Part<'_, f32>)| {
        let (mut out, mut tiles) = (vec![0.0; m * n], vec![0.0; tile_floats(m, k)]);
        let part = Part {
            left,
            row: 0,
            rows: m,
            start: 0,
            packed,
            depth: k,
            out: &mut out,
            stride: n,
            first: 0,
            add: false,
            tiles: &mut tiles,
        };
        compute(part);
        out
    };
    use pulp::WithSimd;
    let widest = run(&|part| pulp::Arch::new().dispatch(part));
    let scalar = run(&|part| part.with_simd(pulp::Scalar::new()));
    assert_eq!(widest, scalar);
}
