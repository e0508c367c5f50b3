//! What the bot is told by its environment.
//!
//! In: variables, of which secrets may stand in files. Out: a checked [`Config`], or what is wrong
//! with a variable. A secret is never shown, neither by `Debug` nor in an error.

use std::fmt;

/// A token or a key.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the request that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// How the bot works.
#[derive(Debug, Clone)]
pub struct Config {
    /// Of BotFather.
    pub token: Secret,
    /// Where the Bot API is, without a slash at the end.
    pub telegram_url: String,
    /// Where the provider is, without `/v1` and without a slash at the end.
    pub provider_url: String,
    /// A client's key at the provider.
    pub provider_key: Secret,
    /// The name of a deployed job of the shape `chat`.
    pub model: String,
    /// Where the page of `miniapp/` is served, if it is.
    pub page_url: Option<String>,
    /// Answers of one chat in an hour.
    pub hourly_max: u32,
}

/// A variable that is missing or wrong.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl Config {
    /// Reads the variables; `get` gives one by its name.
    ///
    /// # Errors
    /// [`ConfigError`] names the first variable that is missing or wrong.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let url = |name: &'static str, default: Option<&str>| {
            let url = get(name).or_else(|| default.map(str::to_owned));
            let url = url.ok_or_else(|| wrong(name, "is missing"))?;
            check_url(name, url.trim_end_matches('/'))
        };
        let page = get("TUSSAH_PAGE_URL").filter(|page| !page.is_empty());
        Ok(Self {
            token: secret(&get, "TELEGRAM_TOKEN", "TELEGRAM_TOKEN_FILE")?,
            telegram_url: url("TELEGRAM_URL", Some("https://api.telegram.org"))?,
            provider_url: url("TUSSAH_URL", Some("http://127.0.0.1:8899"))?
                .trim_end_matches("/v1")
                .to_owned(),
            provider_key: secret(&get, "TUSSAH_KEY", "TUSSAH_KEY_FILE")?,
            model: get("TUSSAH_MODEL").unwrap_or_else(|| "chat".to_owned()),
            page_url: page
                .map(|page| check_url("TUSSAH_PAGE_URL", &page))
                .transpose()?,
            hourly_max: match get("BOT_ANSWERS_PER_HOUR") {
                None => 30,
                Some(text) => match text.parse() {
                    Ok(count @ 1..=3600) => count,
                    _ => return Err(wrong("BOT_ANSWERS_PER_HOUR", "is no number from 1 to 3600")),
                },
            },
        })
    }
}

fn wrong(name: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError {
        name,
        problem: problem.into(),
    }
}

/// Tokens go there: in the clear only to this machine.
fn check_url(name: &'static str, url: &str) -> Result<String, ConfigError> {
    let host = |rest: &str| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        host.rsplit_once(':')
            .map_or(host, |(host, _)| host)
            .to_owned()
    };
    let good = match url.split_once("://") {
        Some(("https", rest)) => !host(rest).is_empty(),
        Some(("http", rest)) => ["127.0.0.1", "localhost", "[::1]"].contains(&host(rest).as_str()),
        _ => false,
    };
    if good && !url.contains('@') {
        return Ok(url.to_owned());
    }
    Err(wrong(
        name,
        "is no https:// address, nor an http:// one of this machine",
    ))
}

fn secret(
    get: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    file: &'static str,
) -> Result<Secret, ConfigError> {
    let (text, name) = match (get(name), get(file)) {
        (Some(_), Some(_)) => {
            return Err(wrong(name, format!("is set, and so is {file}: give one")));
        }
        (Some(text), None) => (text, name),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => (text, file),
            Err(error) => return Err(wrong(file, format!("cannot read {path}: {error}"))),
        },
        (None, None) => return Err(wrong(name, format!("is missing; set it, or {file}"))),
    };
    let text = text.trim();
    let letter = |letter: char| letter.is_ascii_alphanumeric() || ":_-".contains(letter);
    if text.is_empty() || !text.chars().all(letter) {
        return Err(wrong(
            name,
            "is not letters, digits, `:`, `_` and `-` alone",
        ));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(set: &[(&str, &str)]) -> Result<Config, String> {
        let get = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::from_env(get).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_secrets_are_not_shown() {
        let secrets = [("TELEGRAM_TOKEN", "1:secret"), ("TUSSAH_KEY", "tsk_secret")];
        let good = config(&secrets).unwrap();
        assert_eq!(good.telegram_url, "https://api.telegram.org");
        assert!(!format!("{good:?}").contains("secret"));
        for (set, says) in [
            (
                &[][..],
                "TELEGRAM_TOKEN: is missing; set it, or TELEGRAM_TOKEN_FILE",
            ),
            (
                &[("TELEGRAM_TOKEN", "a/secret")],
                "TELEGRAM_TOKEN: is not letters",
            ),
            (
                &[("TELEGRAM_TOKEN", "1:secret"), ("TELEGRAM_TOKEN_FILE", "x")],
                "give one",
            ),
            (
                &[("TELEGRAM_TOKEN_FILE", "/nowhere")],
                "cannot read /nowhere",
            ),
        ] {
            let error = config(set).unwrap_err();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
        for (name, value, good) in [
            ("TUSSAH_URL", "http://localhost:8899/v1/", true),
            ("TUSSAH_URL", "http://127.0.0.1.example.org", false),
            ("TUSSAH_URL", "http://example.org", false),
            ("TUSSAH_URL", "https://example.org/a", true),
            ("TELEGRAM_URL", "https://me@example.org", false),
            ("TELEGRAM_URL", "file:///etc", false),
            ("BOT_ANSWERS_PER_HOUR", "0", false),
            ("BOT_ANSWERS_PER_HOUR", "60", true),
        ] {
            let mut set = secrets.to_vec();
            set.push((name, value));
            let found = config(&set);
            assert_eq!(found.is_ok(), good, "{name}={value}: {found:?}");
        }
    }
}
