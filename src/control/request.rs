//! Requests and responses as JSON-RPC 2.0 has them, held to more than it asks: every request has
//! an id, there are no batches, and no member but the four comes, nor any twice.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

/// What a client asks.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) id: Id,
    pub(super) method: String,
    pub(super) params: Option<&'a RawValue>,
}

/// By what a client knows the answer again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Id {
    Number(u64),
    Text(String),
    /// Of a request that has none that can be read.
    Null,
}

/// Why a request is not answered with a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: i32,
    pub(super) message: String,
}

/// Not JSON, or too long to be read.
pub(super) const PARSE_ERROR: i32 = -32700;
/// JSON, but no request.
pub(super) const INVALID_REQUEST: i32 = -32600;
/// Nothing of this name can be asked.
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
/// Not by this client, which may only read.
pub(super) const READ_ONLY: i32 = -32003;
/// Not with these parameters.
pub(super) const INVALID_PARAMS: i32 = -32602;

/// The longest id that is text, in bytes.
const ID_MAX: usize = 256;

impl Failure {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

impl<'a> Request<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// Why it is no request, and the id that it has all the same.
    pub(super) fn parse(frame: &'a [u8]) -> Result<Self, (Id, Failure)> {
        let json = std::str::from_utf8(frame).ok();
        let json: Option<&RawValue> = json.and_then(|text| serde_json::from_str(text).ok());
        let Some(json) = json else {
            let failure = Failure::new(PARSE_ERROR, "not JSON");
            return Err((Id::Null, failure));
        };
        let invalid = |id, message| Err((id, Failure::new(INVALID_REQUEST, message)));
        let Ok(Members(members)) = serde_json::from_str(json.get()) else {
            return invalid(Id::Null, "not an object");
        };
        let the_only = |name: &str| {
            let mut found = members.iter().filter(|(key, _)| key == name);
            match (found.next(), found.next()) {
                (Some((_, value)), None) => Ok(Some(*value)),
                (None, _) => Ok(None),
                _ => Err(()),
            }
        };
        let id = the_only("id").ok().flatten().and_then(Id::read);
        let Some(id) = id else {
            return invalid(
                Id::Null,
                "the id must be text of at most 256 bytes, or an integer from 0 to 2^64-1",
            );
        };
        let is_known = |(key, _): &(String, _)| MEMBERS.contains(&key.as_str());
        if !members.iter().all(is_known) {
            return invalid(
                id,
                "there are no members but jsonrpc, id, method and params",
            );
        }
        let (Ok(version), Ok(method), Ok(params)) =
            (the_only("jsonrpc"), the_only("method"), the_only("params"))
        else {
            return invalid(id, "a member comes twice");
        };
        let text = |value: Option<&RawValue>| -> Option<String> {
            value.and_then(|value| serde_json::from_str(value.get()).ok())
        };
        if text(version).as_deref() != Some("2.0") {
            return invalid(id, "jsonrpc must be \"2.0\"");
        }
        match text(method) {
            Some(method) => Ok(Self { id, method, params }),
            None => invalid(id, "the method must be text"),
        }
    }
}

const MEMBERS: [&str; 4] = ["jsonrpc", "id", "method", "params"];

impl Id {
    fn read(value: &RawValue) -> Option<Self> {
        if let Ok(number) = serde_json::from_str(value.get()) {
            return Some(Self::Number(number));
        }
        let text: String = serde_json::from_str(value.get()).ok()?;
        (text.len() <= ID_MAX).then_some(Self::Text(text))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Null => serializer.serialize_unit(),
        }
    }
}

/// The members of an object in their order, also those of one name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                    if members.len() > MEMBERS_MAX {
                        return Err(de::Error::custom("too many members"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// More than any request has, so that one of 1 MiB does not become a list of 100,000.
const MEMBERS_MAX: usize = 64;

/// The answer to a request, as a line.
pub(super) fn response<R: Serialize>(id: &Id, result: Result<&R, &Failure>) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Response<'a, R> {
        jsonrpc: &'static str,
        id: &'a Id,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a R>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<ErrorObject<'a>>,
    }
    #[derive(serde::Serialize)]
    struct ErrorObject<'a> {
        code: i32,
        message: &'a str,
    }
    let error = result.err().map(|failure| ErrorObject {
        code: failure.code,
        message: &failure.message,
    });
    let response = Response {
        jsonrpc: "2.0",
        id,
        result: result.ok(),
        error,
    };
    // Numbers, text and lists: there is nothing that JSON could not hold.
    let mut line = serde_json::to_vec(&response).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> (Id, i32) {
        let (id, failure) = Request::parse(text.as_bytes()).unwrap_err();
        (id, failure.code)
    }

    #[test]
    fn a_request_is_read() {
        let request = br#" {"method":"m","params":[1],"id":"a\u0062","jsonrpc":"2.0"}"#;
        let request = Request::parse(request).unwrap();
        assert_eq!(request.id, Id::Text("ab".to_owned()));
        assert_eq!(request.method, "m");
        assert_eq!(request.params.unwrap().get(), "[1]");
    }

    #[test]
    fn ids_are_text_or_integers_that_are_not_negative() {
        let id = |id: &str| {
            let request = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
            Request::parse(request.as_bytes()).map(|request| request.id)
        };
        assert_eq!(id("0").unwrap(), Id::Number(0));
        assert_eq!(id("18446744073709551615").unwrap(), Id::Number(u64::MAX));
        let longest = "x".repeat(ID_MAX);
        assert_eq!(id(&format!("{longest:?}")).unwrap(), Id::Text(longest));
        let longer = format!("{:?}", "x".repeat(ID_MAX + 1));
        for wrong in [
            "null",
            "-1",
            "1.0",
            "1.5",
            "1e3",
            "18446744073709551616",
            "[]",
            &longer,
        ] {
            let (found, failure) = id(wrong).unwrap_err();
            assert_eq!(
                (found, failure.code),
                (Id::Null, INVALID_REQUEST),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_no_request_is_refused_by_its_kind() {
        for text in [
            "",
            "{",
            "nonsense",
            "{\"id\":1}}",
            "\u{0}",
            "{\"id\":\"\\ud800\"}",
        ] {
            let (id, _) = failure(text);
            assert_eq!(id, Id::Null, "{text:?}");
        }
        for text in ["", "{", "nonsense", "{\"id\":1}}"] {
            assert_eq!(failure(text).1, PARSE_ERROR, "{text:?}");
        }
        assert_eq!(Request::parse(b"\"\xff\"").unwrap_err().1.code, PARSE_ERROR);
        for (text, id) in [
            ("[]", Id::Null),
            ("1", Id::Null),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#, Id::Null),
            (r#"{"jsonrpc":"2.0","method":"m"}"#, Id::Null),
            (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"m"}"#, Id::Null),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","method":"m"}"#,
                Id::Number(1),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","more":1}"#,
                Id::Number(1),
            ),
            (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, Id::Number(1)),
            (r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, Id::Number(1)),
            (r#"{"id":1,"method":"m"}"#, Id::Number(1)),
            (r#"{"jsonrpc":"2.0","id":1}"#, Id::Number(1)),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Id::Number(1)),
        ] {
            assert_eq!(failure(text), (id, INVALID_REQUEST), "{text}");
        }
    }

    #[test]
    fn nested_deeply_it_is_still_only_wrong() {
        for opening in ["[", "{\"a\":"] {
            let text = opening.repeat(200_000);
            assert_eq!(failure(&text), (Id::Null, PARSE_ERROR));
        }
    }

    #[test]
    fn a_response_is_one_line() {
        let line = response(&Id::Number(1), Ok(&["a\n"]));
        assert_eq!(
            line,
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[\"a\\n\"]}\n"
        );
        let failure = Failure::new(METHOD_NOT_FOUND, "method not found");
        let line = response::<()>(&Id::Null, Err(&failure));
        let expected = concat!(
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"method not found"}}"#,
            "\n"
        );
        assert_eq!(line, expected.as_bytes());
    }
}
