//! A chat template, a zero byte, and messages as JSON. Whatever the template is, it is refused or it makes a text, in bounded
//! time and memory; the parts that the assistant says lie in the text, in order; and the template that an artifact carries
//! makes the same text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::model::companions::{Companions, TEMPLATE_FILE};
use slmc::text::chat_template::{ChatFrame, ChatTemplate, Conversation, Moment, read_conversation};
use slmc_fuzz::{directory, put};
use std::path::Path;

/// Most messages: finding answers renders the conversation again for each.
const MESSAGES: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let zero = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let mut companions = Companions::of(Path::new("m"));
    companions.add_bytes(TEMPLATE_FILE, &bytes[..zero]);
    let Ok(Some(template)) = ChatTemplate::of(&companions) else { return };
    let kept = ChatTemplate::from_section(Path::new("a.slm"), &template.to_section()).expect("slmc wrote the section");
    put(directory(), "talk.json", bytes.get(zero + 1..).unwrap_or_default());
    let asked = Conversation::ask(Some("Be brief."), "What is a fox?");
    let mut conversation = read_conversation(&directory().join("talk.json")).unwrap_or(asked);
    conversation.messages.truncate(MESSAGES);
    conversation.moment = Some(Moment::from_unix(1_700_000_000));
    // One that fails or takes its whole time does so every time.
    let Ok(text) = template.render(&conversation) else { return };
    assert_eq!(kept.render(&conversation).ok().as_ref(), Some(&text), "the artifact's template makes another text");
    if let Ok(marked) = template.answers(&conversation) {
        let mut end = 0;
        for answer in marked.answers {
            assert!(
                end <= answer.start && marked.text.get(answer.clone()).is_some(),
                "an answer lies outside of its text"
            );
            end = answer.end;
        }
    }
    if let Ok(frame) = ChatFrame::of(&template) {
        let _ = frame.compose(None, &["What?"]);
        let _ = frame.to_section();
    }
});
