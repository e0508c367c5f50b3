//! Server-sent events out of bytes: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! In: the body of an event stream, in whatever pieces it comes. Out: whole events. Comments and
//! fields that mean nothing here are left out, and no event is longer than it may be.

/// Bytes of one event: a provider's largest is 64 KiB of output in base64, and its names.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SentEvent {
    pub(crate) name: String,
    pub(crate) data: String,
    /// Where one goes on after it, if it says.
    pub(crate) id: Option<String>,
}

/// Why a stream is none of events.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventsError {
    #[error("an event has more than {EVENT_BYTES_MAX} bytes")]
    TooLong,
    #[error("an event is not UTF-8 text")]
    NotText,
}

/// What came so far.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, whose line feed ends no second line.
    after_return: bool,
    event: SentEvent,
    has_data: bool,
}

impl EventReader {
    /// Takes more bytes, and gives the events that are whole with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SentEvent>, EventsError> {
        let mut events = Vec::new();
        for byte in bytes {
            match (byte, self.after_return) {
                (b'\n', true) => self.after_return = false,
                (b'\n' | b'\r', _) => {
                    self.after_return = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line(&line)?);
                }
                _ => {
                    self.after_return = false;
                    self.line.push(*byte);
                    if self.line.len() + self.event.data.len() > EVENT_BYTES_MAX {
                        return Err(EventsError::TooLong);
                    }
                }
            }
        }
        Ok(events)
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<SentEvent>, EventsError> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let line = std::str::from_utf8(line).map_err(|_| EventsError::NotText)?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // A comment, or `retry`.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str, id: Option<&str>) -> SentEvent {
        SentEvent {
            name: name.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        }
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = ": here\n\nevent: output\nid: 5\ndata: {\"a\": 1}\n\nretry: 3\r\nevent:x\r\n\
                    data: one\r\ndata:two\r\n\r\nevent: nothing\n\ndata\n\nevent: cut\ndata: off\n";
        let expected = [
            event("output", "{\"a\": 1}", Some("5")),
            event("x", "one\ntwo", None),
            event("", "", None),
        ];
        for size in [1, 2, 3, 7, 1000] {
            let mut reader = EventReader::default();
            let found: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|piece| reader.push(piece).unwrap())
                .collect();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let mut reader = EventReader::default();
        let long = vec![b'a'; EVENT_BYTES_MAX + 1];
        assert_eq!(reader.push(&long), Err(EventsError::TooLong));
        // Also in many lines.
        let mut reader = EventReader::default();
        let lines = b"data: 0123456789\n".repeat(EVENT_BYTES_MAX / 8);
        assert_eq!(reader.push(&lines), Err(EventsError::TooLong));
        let mut reader = EventReader::default();
        assert_eq!(reader.push(b"data: \xff\n\n"), Err(EventsError::NotText));
    }
}
