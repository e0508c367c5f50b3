//! A job's events, from the first byte to the end, over as many connections as it takes.
//!
//! In: a job's id. Out: its output in order, each byte once, progress, and the provider's word on
//! how it ended. A connection that breaks is made again, and goes on after the last byte.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;
use tussah_manifest::Digest;
use ureq::http::header;

use super::{
    Call, Patience, Remote, RemoteError,
    events::{EventReader, SentEvent},
    printable,
};

/// What a job says while it is followed.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    Started,
    Output(&'a [u8]),
    Progress {
        note: &'a str,
        done: u64,
        total: Option<u64>,
    },
}

/// What was heard of a job so far. Can be dropped and taken up again.
#[derive(Debug)]
pub(crate) struct Followed {
    id: Digest,
    output: Vec<u8>,
    output_bytes_max: u64,
}

impl Followed {
    pub(crate) const fn new(id: Digest, output_bytes_max: u64) -> Self {
        Self {
            id,
            output: Vec::new(),
            output_bytes_max,
        }
    }

    /// All the output so far.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// Listens until the end; answers the job as the provider shows it then.
    ///
    /// # Errors
    /// [`RemoteError`]; what was heard stays, so that one can go on.
    pub(crate) fn until_end(
        &mut self,
        remote: &Remote,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Value, RemoteError> {
        let mut patience = Patience::new();
        loop {
            let heard = self.output.len();
            match self.listen(remote, tell) {
                Ok(Some(view)) => return Ok(view),
                // The stream ended without the end: as good as a broken line.
                Ok(None) => {
                    let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    let url = remote.base().to_owned();
                    let broken = crate::pull::http::HttpError::Broken { url, source: error };
                    self.again(heard, broken.into(), &mut patience, remote)?;
                }
                Err(error) => self.again(heard, error, &mut patience, remote)?,
            }
        }
    }

    fn again(
        &self,
        heard: usize,
        error: RemoteError,
        patience: &mut Patience,
        remote: &Remote,
    ) -> Result<(), RemoteError> {
        if self.output.len() > heard {
            patience.renew();
        }
        patience.after(error, remote)
    }

    /// One connection; `None` if it ended before the job.
    fn listen(
        &mut self,
        remote: &Remote,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Option<Value>, RemoteError> {
        let mut call = Call::get(format!("/v1/jobs/{}/events", self.id))
            .header(header::ACCEPT, "text/event-stream");
        if !self.output.is_empty() {
            let name = header::HeaderName::from_static("last-event-id");
            call = call.header(name, self.output.len().to_string());
        }
        let mut exchange = remote.send(&call)?;
        if !exchange.status.is_success() {
            return Err(remote.refusal(exchange));
        }
        let mut reader = EventReader::default();
        while let Some(chunk) = remote.chunk(&mut exchange)? {
            let events = reader.push(&chunk);
            let events = events.map_err(|error| RemoteError::Nonsense(error.to_string()))?;
            for event in events {
                if let Some(view) = self.event(&event, tell)? {
                    return Ok(Some(view));
                }
            }
        }
        Ok(None)
    }

    fn event(
        &mut self,
        event: &SentEvent,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Option<Value>, RemoteError> {
        let nonsense = |what: &str| {
            let name = printable(&event.name);
            RemoteError::Nonsense(format!("its event `{name}` {what}"))
        };
        let data: Value = serde_json::from_str(&event.data).map_err(|_| nonsense("is not JSON"))?;
        match event.name.as_str() {
            "started" => tell(Told::Started),
            "output" => {
                let bytes = data["base64"]
                    .as_str()
                    .and_then(|text| BASE64.decode(text).ok());
                let bytes = bytes.ok_or_else(|| nonsense("has no output in base64"))?;
                let end = event.id.as_deref().and_then(|id| id.parse::<usize>().ok());
                let start = end.and_then(|end| end.checked_sub(bytes.len()));
                let start = start.ok_or_else(|| nonsense("does not say which bytes these are"))?;
                self.take(start, &bytes, tell)?;
            }
            "progress" => tell(Told::Progress {
                note: data["note"].as_str().unwrap_or_default(),
                done: data["done"].as_u64().unwrap_or_default(),
                total: data["total"].as_u64(),
            }),
            "ended" => return Ok(Some(data)),
            "error" => {
                let text = |field: &str| data["error"][field].as_str().unwrap_or_default();
                return Err(RemoteError::Refused {
                    status: ureq::http::StatusCode::SERVICE_UNAVAILABLE,
                    code: text("code").to_owned(),
                    message: printable(text("message")),
                    wait: None,
                });
            }
            // A later provider may say more.
            _ => {}
        }
        Ok(None)
    }

    /// Takes the bytes from `start` on, but for those that are known.
    fn take(
        &mut self,
        start: usize,
        bytes: &[u8],
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), RemoteError> {
        let nonsense = |message: String| Err(RemoteError::Nonsense(message));
        let known = self.output.len();
        let Some(skip) = known.checked_sub(start) else {
            return nonsense(format!("output {known} to {start} is missing"));
        };
        let fresh = bytes.get(skip..).unwrap_or_default();
        let length = known.saturating_add(fresh.len());
        if u64::try_from(length).unwrap_or(u64::MAX) > self.output_bytes_max {
            let max = self.output_bytes_max;
            return nonsense(format!(
                "the output has more than the {max} bytes it may have"
            ));
        }
        self.output.extend_from_slice(fresh);
        if !fresh.is_empty() {
            tell(Told::Output(fresh));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str, end: usize) -> SentEvent {
        SentEvent {
            name: "output".to_owned(),
            data: format!("{{\"base64\": \"{}\"}}", BASE64.encode(text)),
            id: Some(end.to_string()),
        }
    }

    #[test]
    fn bytes_that_come_twice_are_told_once() {
        let mut followed = Followed::new(Digest::of(b"job"), 10);
        let mut told = Vec::new();
        for (text, end) in [("abc", 3), ("abc", 3), ("bcde", 5), ("f", 6)] {
            let mut tell = |what: Told<'_>| match what {
                Told::Output(bytes) => told.extend_from_slice(bytes),
                other => panic!("{other:?}"),
            };
            followed.event(&output(text, end), &mut tell).unwrap();
        }
        assert_eq!(told, b"abcdef");
        assert_eq!(followed.output(), b"abcdef");
        for (event, reason) in [
            (output("x", 9), "output 6 to 8 is missing"),
            (output("ghijk", 11), "more than the 10 bytes"),
            (output("abc", 1), "which bytes these are"),
            (
                SentEvent {
                    name: "output".to_owned(),
                    data: "{}".to_owned(),
                    id: None,
                },
                "no output in base64",
            ),
        ] {
            let refused = followed.event(&event, &mut |_| ()).unwrap_err();
            assert!(refused.to_string().contains(reason), "{refused}");
        }
    }
}
