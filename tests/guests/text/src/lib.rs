//! The summarize job's request, for guests that ask for it without the SDK.
//!
//! In: an article, an answer. Out: the same messages as that job's, as the JSON that
//! `wasi:nn` takes, and the same two sentences of the answer.

/// The messages that the job sends, as the input `chat`.
pub fn chat(article: &str) -> String {
    let content = format!(
        "Summarize this article in two sentences.\n\n{}",
        article.trim()
    );
    serde_json::json!([{ "role": "user", "content": content }]).to_string()
}

/// As much of an answer as the job shows: its first two sentences.
pub fn two_sentences(answer: &str) -> &str {
    let answer = answer.trim_start();
    let (mut ended, mut seen) = (false, 0);
    for (at, character) in answer.char_indices() {
        if ended && character.is_whitespace() {
            seen += 1;
            if seen == 2 {
                return &answer[..at];
            }
        }
        ended = matches!(character, '.' | '!' | '?')
            || ended && matches!(character, '"' | '\'' | ')' | '”');
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_and_the_cut_are_the_jobs() {
        assert_eq!(
            chat(" \"Silk\" \n"),
            r#"[{"content":"Summarize this article in two sentences.\n\n\"Silk\"","role":"user"}]"#
        );
        assert_eq!(two_sentences(" One. Two! Three."), "One. Two!");
        assert_eq!(two_sentences("Only one."), "Only one.");
    }
}
