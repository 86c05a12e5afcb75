//! Patterns that flags and recipes select matrices with: globs over names (`layers.*.attn.q`, `head.*`), or one of the
//! aliases embedding, attention, conv, ffn, head. The projections of short convolutions are a class of their own, `conv`:
//! `attention` does not select them.

use super::id::{Class, LinearId};

/// Whether a glob or an alias selects a matrix.
pub fn matches(pattern: &str, id: LinearId) -> bool {
    match Class::ALL.into_iter().find(|class| class.name() == pattern) {
        Some(class) => id.role.class() == class,
        None => glob(pattern.as_bytes(), id.to_string().as_bytes()),
    }
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
}
