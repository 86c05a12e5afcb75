//! Patterns that flags and recipes select matrices with: globs over names (`layers.*.attn.q`, `head.*`), or one of the
//! aliases embedding, attention, conv, ffn, head. The projections of short convolutions are a class of their own, `conv`:
//! `attention` does not select them. What is trained is selected by parameter: a matrix with its bias by these, norms and kernels
//! by globs over names of their own (`layers.*.norm`, `final.norm`).

use super::id::{Class, LinearId, ParameterId};

/// Whether a glob or an alias selects a matrix.
pub fn matches(pattern: &str, id: LinearId) -> bool {
    match Class::ALL.into_iter().find(|class| class.name() == pattern) {
        Some(class) => id.role.class() == class,
        None => glob(pattern.as_bytes(), id.to_string().as_bytes()),
    }
}

/// Whether a glob or an alias selects a parameter: the weight and the bias of a matrix as it does the matrix, everything else by
/// a glob over its name, with or without `.weight` or `.bias`.
pub fn matches_parameter(pattern: &str, id: ParameterId) -> bool {
    let name = id.to_string();
    let tensor = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")).unwrap_or(&name);
    let whole = match id {
        ParameterId::Linear(linear, _) => matches(pattern, linear),
        _ => glob(pattern.as_bytes(), tensor.as_bytes()),
    };
    whole || glob(pattern.as_bytes(), name.as_bytes())
}

/// `*` stands for any characters, `?` for one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on if the text after the last star does not match here.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star_p, star_t)) = star {
            (p, t, star) = (star_p + 1, star_t + 1, Some((star_p, star_t + 1)));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{NormSite, Part};

    #[test]
    fn globs_match_whole_names() {
        let id: LinearId = "layers.12.attn.q".parse().expect("a name");
        for yes in ["layers.*.attn.q", "layers.12.*", "*", "*.q", "layers.??.attn.?", "attention"] {
            assert!(matches(yes, id), "{yes}");
        }
        for no in ["attn.q", "layers.1.*", "layers.*.attn", "ffn", "conv", "", "layers.*.attn.qq"] {
            assert!(!matches(no, id), "{no}");
        }
        let conv: LinearId = "layers.3.conv.in".parse().expect("a name");
        assert!(matches("conv", conv) && matches("layers.*.conv.*", conv) && !matches("attention", conv));
    }

    #[test]
    fn parameters_go_with_their_matrix_or_by_their_own_name() {
        let id: LinearId = "layers.5.attn.q".parse().expect("a name");
        let norm = ParameterId::Norm(Some(5), NormSite::Attention, Part::Weight);
        for (pattern, weight, bias, of_norm) in [
            ("attention", true, true, false),
            ("layers.5.*", true, true, true),
            ("layers.5.attn.q", true, true, false),
            ("*.bias", false, true, false),
            ("layers.5.attn.norm", false, false, true),
            ("layers.4.*", false, false, false),
        ] {
            assert_eq!(matches_parameter(pattern, ParameterId::weight(id)), weight, "{pattern}");
            assert_eq!(matches_parameter(pattern, ParameterId::bias(id)), bias, "{pattern}");
            assert_eq!(matches_parameter(pattern, norm), of_norm, "{pattern}");
        }
    }
}
