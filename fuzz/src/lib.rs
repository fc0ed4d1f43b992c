//! What must hold for any bytes from outside; each function panics where it does not. The first
//! byte of the input says how the rest is cut.

mod message;
mod script;

pub use message::{addresses, message};
pub use script::{routing, script};

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use zmailer::base::clock::Now;
use zmailer::protocol::Input;
use zmailer::protocol::client;
use zmailer::protocol::content::{DotDecoder, Fault, Progress};
use zmailer::protocol::judge::line_fault;
use zmailer::protocol::server::{Peer, Session, Settings, Stored, Transaction, Verdict, Want};
use zmailer::router::relation::{
    Cache, Definition, Held, Lookup, MapId, Maps, Parsed as Defined, Relation, Step, Unavailable,
    Version, build, dbases,
};

fn settings() -> Settings {
    Settings {
        message_bytes_max: 5_000,
        recipients_max: 5,
        command_line_bytes_max: 600,
        line_bytes_max: 300,
        header_bytes_max: 1_000,
        ..Settings::default()
    }
}

fn cut(data: &[u8]) -> Option<(usize, &[u8])> {
    let (size, bytes) = data.split_first()?;
    Some((usize::from(*size).max(1), bytes))
}

/// What a client sees and what is stored when `bytes` come in pieces of `size`.
fn observe(bytes: &[u8], size: usize) -> (Vec<u8>, Vec<Transaction>) {
    let now = Now::default();
    let peer = Peer {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 1,
    };
    let mut session = Session::new(Arc::new(settings()), peer, now);
    let (mut output, mut held, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    session.greet(&mut output);
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        loop {
            let mut input = Input::new(&held);
            let want = session.receive(&mut input, now, &mut output);
            let consumed = input.consumed();
            held.drain(..consumed);
            match want {
                Want::Input => break,
                Want::Policy(_) => session.verdict(Verdict::Accept, now, &mut output),
                Want::Begin => session.begin("ID1", now, &mut output),
                Want::Store(transaction) => {
                    stored.push(*transaction);
                    session.stored(Stored::Accepted { id: "ID1" }, now, &mut output);
                }
                Want::Close => return (output, stored),
            }
        }
    }
    (output, stored)
}

/// A whole receiving session: the same however the bytes are cut; replies are lines with a code;
/// what is stored has recipients and no lone CR, LF or NUL unless it was declared binary.
pub fn commands(data: &[u8]) {
    let Some((size, bytes)) = cut(data) else {
        return;
    };
    let whole = observe(bytes, usize::MAX);
    let pieces = observe(bytes, size);
    assert_eq!(
        pieces.0.escape_ascii().to_string(),
        whole.0.escape_ascii().to_string()
    );
    assert_eq!(pieces.1.len(), whole.1.len());
    for (one, other) in pieces.1.iter().zip(&whole.1) {
        assert_eq!(one.content, other.content);
        assert!(!one.recipients.is_empty());
        if one.body != zmailer::protocol::server::BodyKind::Binary {
            assert_eq!(line_fault(&one.content, 10_000), None);
        }
    }
    for line in whole.0.split_inclusive(|byte| *byte == b'\n') {
        assert!(
            line.ends_with(b"\r\n") && line[..3].iter().all(u8::is_ascii_digit),
            "{line:?}"
        );
    }
}

/// Content, where it ended and what is wrong with it.
type Decoded = (Vec<u8>, Option<usize>, Option<Fault>);

fn decode(bytes: &[u8], size: usize) -> Decoded {
    let mut decoder = DotDecoder::new(300, 5_000);
    let (mut out, mut used) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        let (taken, progress) = decoder.feed(piece, &mut out);
        used += taken;
        if progress == Progress::End {
            return (out, Some(used), decoder.fault());
        }
    }
    (out, None, decoder.fault())
}

/// The dot decoder: the same for every cut; it ends behind a dot line and nowhere else; good content
/// is what the sender meant.
pub fn dot(data: &[u8]) {
    let Some((size, bytes)) = cut(data) else {
        return;
    };
    let (content, end, fault) = decode(bytes, usize::MAX);
    let (in_pieces, piece_end, piece_fault) = decode(bytes, size);
    assert_eq!((piece_end, piece_fault), (end, fault));
    if fault.is_none() {
        assert_eq!(in_pieces, content);
    }
    // Independently: the first CR LF . CR LF, with a CR LF imagined in front.
    let mut imagined = b"\r\n".to_vec();
    imagined.extend_from_slice(bytes);
    let first = imagined
        .windows(5)
        .position(|window| window == b"\r\n.\r\n");
    assert_eq!(end, first.map(|at| at + 3));
    if fault.is_none() && end.is_some() {
        assert_eq!(line_fault(&content, 300), None);
        assert!(content.is_empty() || content.ends_with(b"\r\n"));
    }
}

/// Chunks: a session that gets all of `data` as one BDAT stores it as it is or refuses it, and takes
/// the command behind it for a command.
pub fn bdat(data: &[u8]) {
    let Some((size, bytes)) = cut(data) else {
        return;
    };
    for body in ["7BIT", "BINARYMIME"] {
        let mut input = format!(
            "EHLO c.example\r\nMAIL FROM:<a@b.example> BODY={body}\r\nRCPT TO:<c@d.example>\r\n\
             BDAT {} LAST\r\n",
            bytes.len()
        )
        .into_bytes();
        input.extend_from_slice(bytes);
        input.extend_from_slice(b"VRFY x\r\n");
        let (output, stored) = observe(&input, size);
        assert!(output.starts_with(b"220 "));
        let text = String::from_utf8_lossy(&output);
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        assert!(last[0].starts_with("252 "), "{text}");
        match stored.as_slice() {
            [transaction] => {
                assert!(last[1].starts_with("250 "), "{text}");
                // Text gets the line end that its last line lacks.
                let mut content = transaction.content.as_slice();
                if body == "7BIT" && !bytes.ends_with(b"\r\n") {
                    content = content.strip_suffix(b"\r\n").unwrap_or_default();
                }
                assert!(content.ends_with(bytes));
            }
            [] => assert!(last[1].starts_with('5'), "{text}"),
            _ => panic!("one BDAT is one message"),
        }
    }
}

fn job(token: u64) -> client::Job {
    client::Job {
        token,
        sender: b"a@b.example".to_vec(),
        recipients: vec![client::JobRecipient {
            address: b"c@d.example".to_vec(),
            notify: 0,
            orcpt: None,
            privilege: None,
        }],
        content: client::Content::Memory(Arc::new(b"Subject: x\r\n\r\n.text\r\n".to_vec())),
        eight_bit: false,
        binary: false,
        smtputf8: false,
        ret: None,
        envid: None,
        identity: None,
    }
}

/// The sending session against any replies: each job ends exactly once, with a result for its
/// recipient, and what is sent holds no lone CR or LF.
pub fn replies(data: &[u8]) {
    let Some((size, bytes)) = cut(data) else {
        return;
    };
    let now = Now::default();
    let mut session = client::Session::new(Arc::new(client::Settings::default()), now);
    let (mut output, mut sent) = (Vec::new(), Vec::new());
    let (mut submitted, mut finished) = (0, Vec::new());
    let mut events = |session: &mut client::Session| {
        while let Some(event) = session.poll_event() {
            if let client::Event::Finished { token, results } = event {
                assert_eq!(results.len(), 1);
                finished.push(token);
            }
        }
    };
    for piece in bytes.chunks(size) {
        session.receive(piece, now, &mut output);
        events(&mut session);
        if session.can_take() && submitted < 3 {
            session.submit(job(submitted), now, &mut output);
            submitted += 1;
        }
        sent.append(&mut output);
        session.sent(now, &mut output);
        sent.append(&mut output);
        events(&mut session);
    }
    session.ended(now, None);
    events(&mut session);
    finished.sort_unstable();
    let expected: Vec<u64> = (0..submitted).collect();
    assert_eq!(finished, expected);
    assert_eq!(line_fault(&sent, 10_000), None);
}

/// Records of the spool: any bytes give records or an error; each takes something off the input.
pub fn records(data: &[u8]) {
    let mut rest = data;
    loop {
        let before = rest.len();
        let Ok(frame) = spool::record::take_frame(&mut rest) else {
            break;
        };
        assert_eq!(before - rest.len(), frame.payload.len() + 12);
        let _ = spool::record::message(frame.payload);
        let _ = spool::record::thread(frame.payload);
    }
    let _ = spool::record::envelope(data);
    if let Ok(parts) = spool::record::message(data) {
        let _ = spool::record::envelope(parts.envelope);
    }
    let _ = spool::layout::CommitHeader::decode(data);
    let _ = spool::layout::SegmentHeader::decode(data);
}

/// Databases: the first line is a key and words behind it, the rest a file of any type. A file is refused or
/// can be asked, printed and counted; a look-up ends whatever its driver and words are.
pub fn maps(data: &[u8]) {
    let (line, file) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b""[..]),
    };
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let _ = Definition::parse(&words, |_| None);
    let _ = dbases::parse(&String::from_utf8_lossy(file), "cdb");
    for kind in ["unordered", "aliases", "hostsfile", "cdb", "regex", "cidr"] {
        for driver in [
            "pathalias",
            "pathalias.nodot",
            "pathalias.at",
            "longestmatch",
        ] {
            let percent = if kind == "regex" { "-l" } else { "-l%" };
            let options = [percent, "-t", kind, "-f", "x", "-d", driver, "look"];
            let options: Vec<&[u8]> = options.iter().map(|word| word.as_bytes()).collect();
            let Ok(Defined::Define { name, definition }) = Definition::parse(&options, |_| None)
            else {
                panic!("{options:?}");
            };
            let source = definition.source().expect("types with files");
            let Ok(map) = build(&source, file.to_vec(), Vec::new()) else {
                break;
            };
            let mut printed = Vec::new();
            map.print(&mut printed);
            let _ = (map.count(), map.bytes());
            let relation = Relation {
                name: name.into(),
                definition: *definition,
                map: Some(MapId(0)),
            };
            let maps = OneMap(Version { map, owner: 0 });
            let mut lookup = Lookup::begin(&relation, &words);
            let mut cache = Cache::new(0);
            let step = lookup.step(&relation, None, &maps, &mut cache, Now::default());
            assert!(matches!(step, Step::Found(_) | Step::Missing), "{step:?}");
        }
    }
}

struct OneMap(Version);

impl Maps for OneMap {
    fn map(&self, _: MapId) -> Result<Held<'_>, Unavailable> {
        Ok(Held::Lent(&self.0))
    }
}
