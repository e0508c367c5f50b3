//! How likely an answer's tokens were, in the two shapes that OpenAI has for it.
//!
//! In: tokens as a job's lines have them. Out: `logprobs` of a chat's choice, or of a completion's.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A token of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenProb {
    token: String,
    logprob: f64,
    /// Where they are not those of `token`: of half a character.
    bytes: Option<Vec<u8>>,
    /// The likeliest tokens of its position.
    #[serde(default)]
    top: Vec<Self>,
}

impl TokenProb {
    fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.token.as_bytes())
    }

    fn json(&self) -> Value {
        json!({"token": self.token, "logprob": self.logprob, "bytes": self.bytes()})
    }
}

/// `choices[].logprobs` of `/v1/chat/completions`.
pub(super) fn of_chat(tokens: &[TokenProb]) -> Value {
    let content = tokens.iter().map(|token| {
        let mut json = token.json();
        json["top_logprobs"] = token.top.iter().map(TokenProb::json).collect();
        json
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// How far an answer's text has come.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// Characters of which the first byte was seen.
    begun: usize,
}

impl Offsets {
    /// At which character of the text a token begins.
    fn next(&mut self, bytes: &[u8]) -> usize {
        let begins = |byte: &u8| byte & 0xc0 != 0x80;
        let goes_on = bytes.first().is_some_and(|first| !begins(first));
        let offset = self.begun.saturating_sub(usize::from(goes_on));
        self.begun += bytes.iter().filter(|byte| begins(byte)).count();
        offset
    }
}

/// `choices[].logprobs` of `/v1/completions`. Offsets are characters of the answer's text.
pub(super) fn of_completion(tokens: &[TokenProb], offsets: &mut Offsets) -> Value {
    let top = tokens.iter().map(|token| {
        // The token that was taken stands among the likeliest, whether it is one of them or not.
        let named = token.top.iter().chain([token]);
        let pairs = named.map(|it| (it.token.clone(), json!(it.logprob)));
        Value::Object(pairs.collect::<Map<_, _>>())
    });
    json!({
        "tokens": tokens.iter().map(|it| &it.token).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|it| it.logprob).collect::<Vec<_>>(),
        "top_logprobs": top.collect::<Vec<_>>(),
        "text_offset": tokens.iter().map(|it| offsets.next(it.bytes())).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<TokenProb> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_chat_has_its_tokens_with_their_bytes() {
        let tokens = tokens(
            r#"[{"token": "Hé", "logprob": -0.25, "top": [{"token": "Hé", "logprob": -0.25}]}]"#,
        );
        let found = json!({"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169]});
        let mut with_top = found.clone();
        with_top["top_logprobs"] = json!([found]);
        assert_eq!(
            of_chat(&tokens),
            json!({"content": [with_top], "refusal": null})
        );
    }

    #[test]
    fn a_completions_offsets_are_characters_also_where_tokens_cut_them() {
        let all = tokens(
            r#"[{"token": "é", "logprob": -1}, {"token": " a", "logprob": -2, "top": [{"token": " b", "logprob": -0.5}]},
                {"token": "bytes:\\xf0\\x9f", "bytes": [240, 159], "logprob": -3},
                {"token": "bytes:\\xa6\\x8b", "bytes": [166, 139], "logprob": -4}, {"token": "!", "logprob": 0}]"#,
        );
        let mut offsets = Offsets::default();
        let found = of_completion(&all, &mut offsets);
        assert_eq!(found["text_offset"], json!([0, 1, 3, 3, 4]));
        assert_eq!(found["tokens"][1], " a");
        assert_eq!(found["token_logprobs"][2], json!(-3.0));
        assert_eq!(found["top_logprobs"][1], json!({" a": -2.0, " b": -0.5}));
        // A stream goes on where it was.
        let more = of_completion(&all[..1], &mut offsets);
        assert_eq!(more["text_offset"], json!([5]));
    }
}
