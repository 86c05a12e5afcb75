//! Templates that would take all memory or never end, and real ones changed at random: each ends soon, in a text or an
//! error.

use super::*;
use proptest::prelude::*;

/// A loop that changes a namespace's field, then uses it.
fn repeated(fields: &str, times: usize, step: &str, end: &str) -> String {
    format!("{{% set n = namespace({fields}) %}}{{% for i in range({times}) %}}{step}{{% endfor %}}{end}")
}

#[test]
fn endless_and_exploding_templates_are_stopped() {
    let deep = "{{ n.x ~ n.x|tojson }}";
    let chain = vec!["a"; 200].join(" + ");
    let cases: Vec<String> = vec![
        "{{ 'x' * 10**9 }}".to_owned(),
        "{% set a = 'x' * 10**7 %}{% set b = a * 1000 %}".to_owned(),
        "{% for i in range(10**9) %}{% endfor %}".to_owned(),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}".to_owned(),
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        // Texts and lists that double.
        repeated("x='x'", 60, "{% set n.x = n.x ~ n.x %}", ""),
        repeated("x='x'", 60, "{% set n.x = n.x + n.x %}", ""),
        repeated("x=[1]", 60, "{% set n.x = n.x + n.x %}", "{{ n.x|length }}"),
        repeated("x=[1]|map('string')", 60, "{% set n.x = n.x + n.x %}", "{{ n.x|length }}"),
        format!("{{% set a = range(60000)|list %}}{{{{ ({chain})|length }}}}"),
        // Containers that hold another twice.
        repeated("x=[1]", 60, "{% set n.x = [n.x, n.x] %}", deep),
        repeated("x=[1]", 60, "{% set n.x = n.x, n.x %}", deep),
        repeated("x=[1]", 60, "{% set n.x = (n.x, n.x) %}", deep),
        repeated("x=[1]", 60, "{% set n.x = {'a': n.x, 'b': n.x} %}", deep),
        repeated("x=[1]", 60, "{% set n.x = dict(a=n.x, b=n.x) %}", deep),
        repeated("x=[1]", 60, "{% set n.x | default([n.x, n.x], true) %}{% endset %}", deep),
        repeated("x=[1]", 60, "{% with a = [n.x, n.x] %}{% set n.x = a %}{% endwith %}", deep),
        repeated("x=[1], y=[1]", 60, "{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}", "{{ n.x == n.y }}"),
        format!("{{% set x = [1] %}}{}{{{{ x }}}}", "{% set x = [x, x] %}".repeat(60)),
        "{% macro f(x, n) %}{{ f([x, x], n - 1) if n else x ~ '' }}{% endmacro %}{{ f([1], 60) }}".to_owned(),
        "{% macro f(x, n) %}{{ f((x, x), n - 1) if n else x ~ '' }}{% endmacro %}{{ f([1], 60) }}".to_owned(),
        // Depth.
        repeated("x=[]", 90000, "{% set n.x = [[[[[[[[n.x]]]]]]]] %}", ""),
        repeated("x=[1]", 90000, "{% set n.x = n.x[0:] %}", "{{ n.x }}"),
        repeated("x=[1, 2]", 90000, "{% set n.x = n.x|batch(1) %}", "{{ n.x }}"),
        repeated("x=1", 90000, "{% set n.x = {n.x: 1} %}", ""),
        // Namespaces that would hold themselves.
        "{% set n = namespace() %}{% set n.a = n %}{{ n }}".to_owned(),
        "{% set n = namespace() %}{% set n.a, b = n, 1 %}{{ n }}".to_owned(),
        "{% set n = namespace() %}{% set n.a | default(n, true) %}{% endset %}{{ n }}".to_owned(),
        "{% set n = namespace() %}{% set m = namespace(n=n) %}{% set n.m = m %}{{ n }}".to_owned(),
        // Operations whose result is far longer than their arguments.
        "{{ ([1] * 100000000) == ([1] * 100000000) }}".to_owned(),
        "{{ (['x' * 1000] * 1000000) ~ '' }}".to_owned(),
        format!("{{{{ {} }}}}", vec!["('x' * 1000000)"; 300].join(" ~ ")),
        repeated("x=[1.5]", 60, "{% set n.x = n.x|string ~ [n.x] %}", ""),
        repeated("x='x'", 60, "{% set n.x = [n.x, n.x]|join(n.x) %}", ""),
        "{{ '1'.zfill(10**12) }}".to_owned(),
        "{{ ('\\r' * 14000000).splitlines()|length }}".to_owned(),
        "{{ ''.join(['x' * 1000] * 1000000) }}".to_owned(),
        "{{ '{:1000000000}'.format(1) }}".to_owned(),
        "{{ ('{0}' * 100000).format('x' * 100000) }}".to_owned(),
        "{{ '%1000000000d'|format(1) }}".to_owned(),
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}".to_owned(),
        "{{ ('a' * 1000000)|replace('', 'b' * 1000000) }}".to_owned(),
        "{{ ('b' * 1000000).join('a' * 1000000) }}".to_owned(),
        "{{ ('a' * 14000000).split('a')|length }}".to_owned(),
        "{{ ('a' * 14000000).split('')|length }}".to_owned(),
        "{{ (' \\n' * 7000000).splitlines()|length }}".to_owned(),
        "{{ ('a\\n' * 1000)|indent(10**9) }}".to_owned(),
        "{{ [1]|batch(10**9, 0)|list }}{{ [1]|slice(10**9, 0)|list }}".to_owned(),
        "{{ [1]|tojson(indent=10**9) }}".to_owned(),
        "{{ [range(99999), range(99999)]|tojson(indent=64) }}".to_owned(),
        "{{ strftime_now('%Y' * 1000000) }}".to_owned(),
        // Templates that minijinja's parser, compiler and executor would not survive.
        format!("{{{{ {} }}}}", vec!["1"; 60000].join("+")),
        format!("{{{{ {}1{} }}}}", "(".repeat(400), ")".repeat(400)),
        format!("{{{{ a{} }}}}", "|d".repeat(60000)),
        "{% if 1 %}".repeat(20000),
        "{{".repeat(20000),
        "{% for a in [1] %}{{ loop.cycle() }}{% endfor %}".to_owned(),
        "{% for a in [1] %}{{ loop . cycle (\n*[]) }}{% endfor %}".to_owned(),
        "{% for a in [1] %}{% with %}{% continue %}{% endwith %}{% endfor %}".to_owned(),
    ];
    for text in cases {
        let shown: String = text.chars().take(120).collect();
        match render(&text) {
            Ok(rendered) => panic!("{shown} gave {} bytes", rendered.len()),
            Err(ChatTemplateError::Panicked { .. } | ChatTemplateError::Slow { .. }) => {
                panic!("{shown} was not stopped")
            }
            Err(_) => {}
        }
    }
}

#[test]
fn long_templates_and_conversations_are_rendered() {
    let many = "{% elif a is not defined %}".repeat(9000);
    for text in [
        format!("{{{{ {} }}}}", vec!["1"; 500].join("+")),
        format!("{{% if a %}}{many}{{% endif %}}"),
        "x".repeat(MAX_TEMPLATE_BYTES),
        "{{ messages }}".repeat(10_000),
    ] {
        assert!(render(&text).is_ok(), "{:.60}", text);
    }
    // A conversation as long as a model's context, and a template that copies it for every message.
    let mut conversation = Conversation::ask(None, &"word ".repeat(300));
    conversation.messages = std::iter::repeat_n(conversation.messages[0].clone(), 120).collect();
    let step = "{% set n.text = n.text ~ m.content %}";
    let text = format!("{{% set n = namespace(text='') %}}{{% for m in messages %}}{step}{{% endfor %}}{{{{n.text}}}}");
    assert_eq!(template(&text).render(&conversation).expect("a text").len(), 120 * 1500);
}

#[test]
fn a_deadline_ends_work_that_costs_no_fuel() {
    let step = "{% if n.x == n.y %}{% endif %}";
    let text = repeated("x='x' * 3000000, y='x' * 3000000", 10_000, step, "");
    let error = template(&text).render_within(&Conversation::ask(None, "hi"), Duration::from_millis(50));
    assert!(matches!(error, Err(ChatTemplateError::Slow { .. })), "{error:?}");
}

/// Parts of templates: blocks are opened and closed by different ones.
const PARTS: [&str; 48] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{%- ",
    " -%}",
    "{% for m in messages %}",
    "{% for m in [[1], 'a'] recursive %}",
    "{% endfor %}",
    "{% if messages %}",
    "{% else %}",
    "{% endif %}",
    "{% set n = namespace(a=1) %}",
    "{% set n.a = n %}",
    "{% set n.a = [n.a, n.a] %}",
    "{% break %}",
    "{% continue %}",
    "{% with a = 1 %}",
    "{% endwith %}",
    "{% macro f(a, b=2) %}",
    "{% endmacro %}",
    "{% call f(1) %}",
    "{% endcall %}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% set t %}",
    "{% endset %}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% raw %}",
    "{% endraw %}",
    "{{ loop.cycle() }}",
    "{{ loop(messages) }}",
    "{{ caller() }}",
    "{{ f(f, a=1) }}",
    "{{ messages[::-1]|tojson }}",
    "{{ messages|groupby('role')|list ~ 1 }}",
    "{{ '%s{}'|format(messages) }}",
    "{{ -9223372036854775808 // -1 }}",
    "{{ 'é'[9223372036854775807:0:-1] }}",
    "(",
    ")",
    "'",
    "|",
    "*",
    "\u{200b}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn changed_templates_never_panic(
        file in 0_usize..12,
        changes in proptest::collection::vec((0.0..1.0_f64, 0..3 * PARTS.len(), 0_usize..20, any::<bool>()), 1..12),
    ) {
        let mut files: Vec<PathBuf> = std::fs::read_dir(recorded("")).expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jinja"))
            .collect();
        files.sort_unstable();
        let mut text: Vec<char> = std::fs::read_to_string(&files[file]).expect("a template").chars().collect();
        for (place, part, removed, at_tag) in changes {
            let mut at = (place * text.len() as f64) as usize;
            if at_tag {
                // Behind the next tag, where a whole one may stand.
                while at > 1 && at < text.len() && !(text[at - 1] == '}' && matches!(text[at - 2], '}' | '%' | '#')) {
                    at += 1;
                }
            }
            let part = PARTS.get(part).copied().unwrap_or_default();
            let removed = if part.is_empty() { removed } else { 0 };
            let end = (at + removed).min(text.len());
            text.splice(at.min(end)..end, part.chars());
        }
        let text: String = text.into_iter().collect();
        for given in recorded_json("conversations.json") {
            let result = template(&text).render(&conversation(&given));
            prop_assert!(
                !matches!(result, Err(ChatTemplateError::Panicked { .. } | ChatTemplateError::Slow { .. })),
                "{result:?}\n{text}"
            );
        }
    }
}
