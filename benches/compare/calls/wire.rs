//! SIP as text, as much of it as a caller and a callee need whose peers are well behaved.

/// Takes bytes of a connection, gives whole messages.
#[derive(Debug, Default)]
pub(super) struct Framer(Vec<u8>);

impl Framer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message, if it is there to its end.
    pub(super) fn poll_message(&mut self) -> Option<Message> {
        // Keep-alives between messages.
        let idle = self.0.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.0.drain(..idle);
        let head = self.0.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&self.0[..head]);
        let body = header(&text, "Content-Length").and_then(|it| it.parse().ok()).unwrap_or(0);
        if self.0.len() < head + body {
            return None;
        }
        let whole = self.0.drain(..head + body).collect::<Vec<u8>>();
        Some(Message { text: String::from_utf8_lossy(&whole).into_owned(), head })
    }
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    text: String,
    head: usize,
}

impl Message {
    /// The status of a response.
    pub(super) fn status(&self) -> Option<u16> {
        self.text.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// The method, of a response too.
    pub(super) fn method(&self) -> &str {
        let line = self.header("CSeq").unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default()
    }

    /// The first header of that name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.text[..self.head], name)
    }

    /// All lines of headers of that name, whole.
    pub(super) fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.text[..self.head].split("\r\n").filter(move |line| value(line, name).is_some())
    }

    /// What follows the headers.
    pub(super) fn body(&self) -> &str {
        &self.text[self.head..]
    }

    /// The URI of Contact.
    pub(super) fn contact(&self) -> Option<&str> {
        let value = self.header("Contact")?;
        match value.split_once('<') {
            Some((_, rest)) => Some(rest.split_once('>')?.0),
            None => value.split(';').next(),
        }
    }
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = line.split_once(':')?;
    found.trim_end().eq_ignore_ascii_case(name).then(|| value.trim())
}

fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split("\r\n").find_map(|line| value(line, name))
}

/// A description of audio in G.711 u-law over SRTP; `crypto` is the value of the line.
pub(super) fn description(ip: std::net::IpAddr, port: u16, crypto: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/SAVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n\
         a=crypto:{crypto}\r\n"
    )
}
