//! The other end of a control socket, for softnet's own commands.
//!
//! Whoever answers may be anybody who runs as the VM's user, so an answer has a limit in time and in
//! length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A connection to a running softnet.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    asked: u64,
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum ClientError {
    /// softnet does not do it; the message says why.
    #[error("{0}")]
    Refused(String),
    /// Nothing came within the time limit, or the connection broke.
    #[error("softnet does not answer")]
    Silent(#[from] io::Error),
    /// What came is no answer to what was asked: the other end is an older softnet, or none.
    #[error("what answers is not this version of softnet")]
    Unreadable,
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: P,
}

#[derive(Deserialize)]
struct Response<R> {
    id: Option<u64>,
    result: Option<R>,
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    message: String,
}

impl Client {
    /// Speaks over this connection.
    ///
    /// # Errors
    /// If the system sets no time limits.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
            asked: 0,
        })
    }

    /// Asks for something, and waits for the result for at most five seconds.
    ///
    /// # Errors
    /// Why there is none. After any error but [`ClientError::Refused`] the connection is of no use.
    pub fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<R, ClientError> {
        self.asked += 1;
        let request = Request {
            jsonrpc: "2.0",
            id: self.asked,
            method,
            params,
        };
        let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        let mut limited = (&mut self.stream).take(ANSWER_MAX);
        if limited.read_until(b'\n', &mut answer)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let answer: Response<R> =
            serde_json::from_slice(&answer).map_err(|_| ClientError::Unreadable)?;
        match answer {
            Response {
                error: Some(error), ..
            } => Err(ClientError::Refused(error.message)),
            Response {
                id: Some(id),
                result: Some(result),
                ..
            } if id == self.asked => Ok(result),
            _ => Err(ClientError::Unreadable),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// Twice what the longest answer takes.
const ANSWER_MAX: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// What a client makes of this answer to its first request.
    fn told(answer: &'static [u8]) -> Result<Vec<u32>, ClientError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut theirs = BufReader::new(theirs);
            let mut request = String::new();
            theirs.read_line(&mut request).unwrap();
            assert_eq!(
                request,
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{}}\n"
            );
            let _ = theirs.get_mut().write_all(answer);
        });
        let params = serde_json::Map::new();
        let told = Client::new(ours).unwrap().call("m", params);
        server.join().unwrap();
        told
    }

    #[test]
    fn a_result_is_told_and_so_is_why_there_is_none() {
        let answer = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[1,2]}\n";
        assert_eq!(told(answer).unwrap(), [1, 2]);
        let answer = b"{\"id\":1,\"error\":{\"code\":-1,\"message\":\"not so\"}}\n";
        assert_eq!(told(answer).unwrap_err().to_string(), "not so");
        assert!(matches!(told(b""), Err(ClientError::Silent(_))));
        for other in [
            &b"{}\n"[..],
            b"\n",
            b"{\"id\":1",
            b"\xff\n",
            b"{\"id\":2,\"result\":[1]}\n",
            b"{\"id\":1,\"result\":7}\n",
        ] {
            assert!(matches!(told(other), Err(ClientError::Unreadable)));
        }
    }

    #[test]
    fn an_answer_without_end_is_read_in_part() {
        let long = vec![b'x'; 3 << 20].leak();
        assert!(matches!(told(long), Err(ClientError::Unreadable)));
    }
}
