//! Eigenvectors of symmetric matrices, f64: Householder's reduction to tridiagonal form, then the implicit QL method (Bowdler
//! et al. 1968, the procedures tred2 and tql2). One thread, plain sums in a written order, so the bits are the same
//! everywhere.
//!
//! ```text
//! A = V diag(λ) Vᵀ,    λ₁ ≥ λ₂ ≥ …,    the largest element of each column of V is positive
//! ```

/// Most rotations a value takes; it takes two or three.
const MOST_SWEEPS: usize = 60;

/// Values, largest first, and their vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// λ, (columns).
    pub values: Vec<f64>,
    /// Vᵀ, (columns, columns): row i is the vector of value i.
    pub vectors: Vec<f64>,
}

impl Eigen {
    /// The eigenvectors of a symmetric matrix, (columns, columns), whose lower triangle is read; `None` where it is not finite.
    ///
    /// # Panics
    /// If the matrix is not square.
    pub fn new(matrix: &[f64], columns: usize) -> Option<Self> {
        assert_eq!(matrix.len(), columns * columns, "a square matrix");
        if columns == 0 {
            return Some(Eigen { values: Vec::new(), vectors: Vec::new() });
        }
        if matrix.iter().any(|value| !value.is_finite()) {
            return None;
        }
        // Row i of `rows` is column i of V, so that both methods walk along memory.
        let mut rows = vec![0.0; columns * columns];
        for row in 0..columns {
            for column in 0..columns {
                let (low, high) = (row.min(column), row.max(column));
                rows[row * columns + column] = matrix[high * columns + low];
            }
        }
        let (mut values, mut beside) = (vec![0.0; columns], vec![0.0; columns]);
        tridiagonal(&mut rows, &mut values, &mut beside, columns);
        diagonal(&mut rows, &mut values, &mut beside, columns)?;
        Some(sorted(&rows, &values, columns))
    }
}

/// Householder's reduction. Afterwards `diagonal` and `beside` (from 1 on) are the tridiagonal form, and row i of `v` is
/// column i of the accumulated transformation. On entry `v` is the matrix, which is symmetric.
fn tridiagonal(v: &mut [f64], diagonal: &mut [f64], beside: &mut [f64], n: usize) {
    // at(i, j) is the element of row i, column j of the classical procedure, kept transposed.
    let at = |row: usize, column: usize| column * n + row;
    for (column, value) in diagonal.iter_mut().enumerate() {
        *value = v[at(n - 1, column)];
    }
    for i in (1..n).rev() {
        let scale: f64 = diagonal[..i].iter().map(|value| value.abs()).sum();
        let mut h = 0.0;
        if scale == 0.0 {
            beside[i] = diagonal[i - 1];
            for j in 0..i {
                diagonal[j] = v[at(i - 1, j)];
                v[at(i, j)] = 0.0;
                v[at(j, i)] = 0.0;
            }
        } else {
            for value in &mut diagonal[..i] {
                *value /= scale;
                h += *value * *value;
            }
            let f = diagonal[i - 1];
            let g = if f > 0.0 { -h.sqrt() } else { h.sqrt() };
            beside[i] = scale * g;
            h -= f * g;
            diagonal[i - 1] = f - g;
            beside[..i].fill(0.0);
            for j in 0..i {
                let f = diagonal[j];
                v[at(j, i)] = f;
                let mut g = beside[j] + v[at(j, j)] * f;
                for k in j + 1..i {
                    let value = v[at(k, j)];
                    g += value * diagonal[k];
                    beside[k] += value * f;
                }
                beside[j] = g;
            }
            let mut f = 0.0;
            for j in 0..i {
                beside[j] /= h;
                f += beside[j] * diagonal[j];
            }
            let half = f / (h + h);
            for j in 0..i {
                beside[j] -= half * diagonal[j];
            }
            for j in 0..i {
                let (f, g) = (diagonal[j], beside[j]);
                for k in j..i {
                    v[at(k, j)] -= f * beside[k] + g * diagonal[k];
                }
                diagonal[j] = v[at(i - 1, j)];
                v[at(i, j)] = 0.0;
            }
        }
        diagonal[i] = h;
    }
    for i in 0..n - 1 {
        v[at(n - 1, i)] = v[at(i, i)];
        v[at(i, i)] = 1.0;
        let h = diagonal[i + 1];
        if h != 0.0 {
            for k in 0..=i {
                diagonal[k] = v[at(k, i + 1)] / h;
            }
            for j in 0..=i {
                let g: f64 = (0..=i).map(|k| v[at(k, i + 1)] * v[at(k, j)]).sum();
                for k in 0..=i {
                    v[at(k, j)] -= g * diagonal[k];
                }
            }
        }
        for k in 0..=i {
            v[at(k, i + 1)] = 0.0;
        }
    }
    for j in 0..n {
        diagonal[j] = v[at(n - 1, j)];
        v[at(n - 1, j)] = 0.0;
    }
    v[at(n - 1, n - 1)] = 1.0;
    beside[0] = 0.0;
}

/// The implicit QL method on the tridiagonal form; rows of `v` are rotated along. `None` where a value does not settle.
fn diagonal(v: &mut [f64], diagonal: &mut [f64], beside: &mut [f64], n: usize) -> Option<()> {
    beside.rotate_left(1);
    beside[n - 1] = 0.0;
    let (mut shift, mut largest) = (0.0, 0.0f64);
    for l in 0..n {
        largest = largest.max(diagonal[l].abs() + beside[l].abs());
        let negligible = |value: f64, largest: f64| value.abs() <= f64::EPSILON * largest;
        let m = (l..n).find(|&m| negligible(beside[m], largest)).unwrap_or(n - 1);
        if m > l {
            let mut sweeps = 0;
            loop {
                sweeps += 1;
                if sweeps > MOST_SWEEPS {
                    return None;
                }
                let g = diagonal[l];
                let mut p = (diagonal[l + 1] - g) / (2.0 * beside[l]);
                let r = if p < 0.0 { -root_of_squares(p, 1.0) } else { root_of_squares(p, 1.0) };
                diagonal[l] = beside[l] / (p + r);
                diagonal[l + 1] = beside[l] * (p + r);
                let next = diagonal[l + 1];
                let h = g - diagonal[l];
                diagonal[l + 2..].iter_mut().for_each(|value| *value -= h);
                shift += h;
                p = diagonal[m];
                let (mut c, mut c2, mut c3) = (1.0, 1.0, 1.0);
                let (mut s, mut s2) = (0.0, 0.0);
                let after = beside[l + 1];
                for i in (l..m).rev() {
                    c3 = c2;
                    c2 = c;
                    s2 = s;
                    let g = c * beside[i];
                    let h = c * p;
                    let r = root_of_squares(p, beside[i]);
                    beside[i + 1] = s * r;
                    s = beside[i] / r;
                    c = p / r;
                    p = c * diagonal[i] - s * g;
                    diagonal[i + 1] = h + s * (c * g + s * diagonal[i]);
                    let (own, other) = v[i * n..(i + 2) * n].split_at_mut(n);
                    for (own, other) in own.iter_mut().zip(other) {
                        let h = *other;
                        *other = s * *own + c * h;
                        *own = c * *own - s * h;
                    }
                }
                p = -s * s2 * c3 * after * beside[l] / next;
                beside[l] = s * p;
                diagonal[l] = c * p;
                if negligible(beside[l], largest) {
                    break;
                }
            }
        }
        diagonal[l] += shift;
        beside[l] = 0.0;
    }
    Some(())
}

/// √(a² + b²), by correctly rounded operations alone.
fn root_of_squares(a: f64, b: f64) -> f64 {
    let most = a.abs().max(b.abs());
    if most == 0.0 {
        return 0.0;
    }
    let (a, b) = (a / most, b / most);
    most * (a * a + b * b).sqrt()
}

/// Largest values first, the first of equals before the others; every vector with its largest element positive.
fn sorted(rows: &[f64], values: &[f64], n: usize) -> Eigen {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut vectors = Vec::with_capacity(rows.len());
    for &index in &order {
        let row = &rows[index * n..][..n];
        let most = row.iter().fold(0.0f64, |most, value| if value.abs() > most.abs() { *value } else { most });
        let sign = if most < 0.0 { -1.0 } else { 1.0 };
        vectors.extend(row.iter().map(|value| sign * value));
    }
    Eigen { values: order.iter().map(|&index| values[index]).collect(), vectors }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::sample::random_u64;

    fn symmetric(columns: usize) -> Vec<f64> {
        let draw = |i: usize, j: usize| {
            let (low, high) = (i.min(j), i.max(j));
            (random_u64(columns as u64, (high * columns + low) as u64) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..columns * columns).map(|n| draw(n / columns, n % columns)).collect()
    }

    #[test]
    fn vectors_are_orthonormal_and_make_the_matrix_again() {
        for columns in [1, 2, 3, 17, 64, 150] {
            let matrix = symmetric(columns);
            let found = Eigen::new(&matrix, columns).expect("it settles");
            assert!(found.values.windows(2).all(|pair| pair[0] >= pair[1]), "{columns}");
            let row = |index: usize| &found.vectors[index * columns..][..columns];
            for i in 0..columns {
                for j in 0..columns {
                    let product: f64 = row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-10, "{columns}: {i} {j} {product}");
                    let again: f64 = (0..columns).map(|k| row(k)[i] * found.values[k] * row(k)[j]).sum();
                    assert!((again - matrix[i * columns + j]).abs() < 1e-9, "{columns}: {i} {j}");
                }
            }
        }
    }

    #[test]
    fn equal_values_and_zeros_settle_and_what_is_not_finite_is_refused() {
        let zeros = Eigen::new(&[0.0; 9], 3).expect("it settles");
        assert_eq!(zeros.values, [0.0; 3]);
        let identity: Vec<f64> = (0..16).map(|n| f64::from(u8::from(n % 5 == 0))).collect();
        assert_eq!(Eigen::new(&identity, 4).expect("it settles").vectors, identity);
        assert_eq!(Eigen::new(&[f64::NAN], 1), None);
    }
}
