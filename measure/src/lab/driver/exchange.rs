//! HTTP/1.1 over one connection that then ends: `GET /body/SIZE`, or `PUT /sink` with a body.
//!
//! What is sent goes in pieces that are whole TLS records and whole segments, but for the last.
//!
//! Invariant: an answer that is taken has the status, the length and every byte that it should have, and no more.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use super::client::now_ns;
use crate::lab::records::{Bulk, RequestRecord};
use crate::lab::workload::Wire;

/// What is read, or written, at once. rustls takes no more before a handshake has ended.
pub(super) const BUFFER_BYTES: usize = 64 << 10;
const HEADERS_MAX: usize = 32;

/// One request and its answer.
pub(super) struct Exchange {
    head: String,
    /// Of the request's body, to be sent yet.
    upload_bytes: u64,
    /// Of pieces that are sent, but for the last.
    piece_bytes: usize,
    status: u16,
    answer_bytes: u64,
}

impl Exchange {
    /// What a record asks for.
    pub(super) fn new(record: &RequestRecord, server: SocketAddr, wire: Wire) -> Exchange {
        let bytes = record.bytes;
        let unit = if wire.tls { wire.record_plain_bytes() } else { wire.segment_bytes } as usize;
        let piece_bytes = BUFFER_BYTES / unit * unit;
        let common = format!("Host: {server}\r\nConnection: close\r\n");
        match record.bulk {
            Bulk::Download => Exchange {
                head: format!("GET /body/{bytes} HTTP/1.1\r\n{common}\r\n"),
                upload_bytes: 0,
                piece_bytes,
                status: 200,
                answer_bytes: bytes,
            },
            Bulk::Upload => Exchange {
                head: format!("PUT /sink HTTP/1.1\r\n{common}Content-Length: {bytes}\r\n\r\n"),
                upload_bytes: bytes,
                piece_bytes,
                status: 204,
                answer_bytes: 0,
            },
        }
    }

    /// The next piece of the request, written to the buffer; none when all have been.
    pub(super) fn next<'a>(&mut self, buffer: &'a mut [u8; BUFFER_BYTES]) -> Option<&'a [u8]> {
        let head = std::mem::take(&mut self.head);
        let room = self.piece_bytes - head.len();
        let body = self.upload_bytes.min(room as u64) as usize;
        self.upload_bytes -= body as u64;
        let piece = &mut buffer[..head.len() + body];
        piece[..head.len()].copy_from_slice(head.as_bytes());
        piece[head.len()..].fill(b'.');
        (!piece.is_empty()).then_some(piece)
    }

    /// Sends the pieces that are left, and takes the answer: when its last byte was there.
    ///
    /// # Errors
    ///
    /// What went wrong, for the log.
    pub(super) fn run(
        &mut self,
        mut stream: impl Read + Write,
        buffer: &mut [u8; BUFFER_BYTES],
    ) -> Result<u64, String> {
        while let Some(piece) = self.next(buffer) {
            stream.write_all(piece).map_err(|error| format!("send: {error}"))?;
        }
        stream.flush().map_err(|error| format!("send: {error}"))?;

        let mut missing = self.head_of_answer(&mut stream, buffer)?;
        while missing > 0 {
            let read = receive(&mut stream, buffer)? as u64;
            missing = missing.checked_sub(read).ok_or("answer: longer than its head says")?;
        }
        let finished_ns = now_ns();
        await_close(&mut stream, buffer)?;
        Ok(finished_ns)
    }

    /// Takes the head of the answer: bytes of its body that are still to come.
    fn head_of_answer(
        &self,
        stream: &mut impl Read,
        buffer: &mut [u8; BUFFER_BYTES],
    ) -> Result<u64, String> {
        let mut filled = 0;
        loop {
            filled += receive(stream, &mut buffer[filled..])?;
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut answer = httparse::Response::new(&mut headers);
            let parsed =
                answer.parse(&buffer[..filled]).map_err(|error| format!("answer: {error}"))?;
            let httparse::Status::Complete(head_bytes) = parsed else { continue };
            let status = answer.code.unwrap_or_default();
            if status != self.status {
                return Err(format!("answer: status {status} instead of {}", self.status));
            }
            let length = length(answer.headers).unwrap_or(0);
            if length != self.answer_bytes {
                return Err(format!("answer: {length} bytes instead of {}", self.answer_bytes));
            }
            let body_bytes = (filled - head_bytes) as u64;
            let missing = length.checked_sub(body_bytes);
            return missing.ok_or_else(|| "answer: longer than its head says".to_owned());
        }
    }
}

fn length(headers: &[httparse::Header<'_>]) -> Option<u64> {
    let header = headers.iter().find(|one| one.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(header.value).ok()?.parse().ok()
}

fn receive(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize, String> {
    match stream.read(buffer) {
        Ok(0) => Err("receive: closed before the answer was complete".to_owned()),
        Ok(read) => Ok(read),
        Err(error) => Err(format!("receive: {error}")),
    }
}

/// The end, as it should be: nothing more, and no reset.
fn await_close(stream: &mut impl Read, buffer: &mut [u8]) -> Result<(), String> {
    match stream.read(buffer) {
        Ok(0) => Ok(()),
        Ok(_) => Err("answer: longer than its head says".to_owned()),
        // TLS that was not ended by TLS: nothing can be missing, for the length was right.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(format!("close: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what it was given, then closes; keeps what it was told.
    struct Server {
        says: Vec<u8>,
        told: Vec<u8>,
    }

    impl Read for Server {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            // In small pieces, as they may come.
            let read = self.says.len().min(buffer.len()).min(7);
            buffer[..read].copy_from_slice(&self.says[..read]);
            self.says.drain(..read);
            Ok(read)
        }
    }

    impl Write for Server {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.told.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn exchange(bulk: Bulk, bytes: u64, says: &str) -> (Result<u64, String>, Vec<u8>) {
        let record = RequestRecord {
            number: 0,
            kind: String::new(),
            bulk,
            packets: 0,
            bytes,
            due_ns: 0,
            started_ns: 0,
            connected_ns: None,
            finished_ns: None,
            port: None,
            error: None,
        };
        let address = SocketAddr::from(([10, 0, 0, 2], 80));
        let mut exchange = Exchange::new(&record, address, Wire::of_mtu(1500, false));
        let mut server = Server { says: says.as_bytes().to_vec(), told: Vec::new() };
        (exchange.run(&mut server, &mut [0; BUFFER_BYTES]), server.told)
    }

    #[test]
    fn a_download_names_its_size_and_takes_all_of_it() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nabcdefghijkl";
        let (result, told) = exchange(Bulk::Download, 12, answer);
        assert!(result.is_ok_and(|finished_ns| finished_ns > 0));
        let told = String::from_utf8(told).expect("it is text");
        assert!(told.starts_with("GET /body/12 HTTP/1.1\r\n") && told.ends_with("\r\n\r\n"));
    }

    #[test]
    fn an_upload_sends_as_many_bytes_as_it_says_in_pieces_of_whole_segments() {
        let (result, told) = exchange(Bulk::Upload, 200_000, "HTTP/1.1 204 No Content\r\n\r\n");
        assert!(result.is_ok());
        let head = told.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        assert_eq!(told.len() - head, 200_000);
        let text = std::str::from_utf8(&told[..head]).expect("it is text");
        assert!(text.contains("Content-Length: 200000\r\n"), "{text}");
    }

    #[test]
    fn an_answer_that_is_not_the_one_asked_for_is_refused() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
        for (says, error) in [
            (String::new(), "receive: closed before the answer was complete"),
            (format!("{head}abc"), "receive: closed before the answer was complete"),
            (format!("{head}abcdefghijklm"), "answer: longer than its head says"),
            (format!("{head}abcdefghijkl{head}"), "answer: longer than its head says"),
            (head.replace("12", "13"), "answer: 13 bytes instead of 12"),
            (head.replace("200", "404"), "answer: status 404 instead of 200"),
            ("SSH-2.0\r\n".to_owned(), "answer: invalid HTTP version"),
        ] {
            assert_eq!(exchange(Bulk::Download, 12, &says).0, Err(error.to_owned()), "{says:?}");
        }
    }
}
